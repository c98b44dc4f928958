"""Run every benchmark and write docs/benchmarks.md; `python -m benchmarks NAME` writes the section of one."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pkgutil import iter_modules

import benchmarks

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PACKAGES = ("valuepalette", "numpy", "scipy", "torch", "transformers", "cvxpy", "clarabel")
INTRODUCTION = """\
# Benchmarks

Written by `make bench`. Every table was measured in one run on one machine, which stands above it, so compare the rows
of a table with each other and not with another table.

All of it ran on processors. The column of GPUs, tokens per second of `sample`, `finetune` and `distill`, is still
empty: none was at hand.
"""


def names() -> list[str]:
    """The benchmarks: every module beside this one."""
    return sorted(module.name for module in iter_modules(benchmarks.__path__) if module.name != "__main__")


def processor() -> str:
    """The processor's own name where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def machine() -> Iterator[str]:
    """What it ran on, a line each."""
    yield f"- {processor()}, {os.cpu_count()} cores; {platform.system()}, Python {platform.python_version()}"
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    yield f"- {', '.join(found)}"


def title(name: str) -> str:
    """A benchmark's section is found by this."""
    return (import_module(f"benchmarks.{name}").__doc__ or name).splitlines()[0].rstrip(".")


def section(name: str) -> str:
    """One benchmark's own text under its title, and what it ran on."""
    text = import_module(f"benchmarks.{name}").run().strip()
    return "\n".join([f"## {title(name)}", "", *machine(), "", text, ""])


def written() -> dict[str, str]:
    """The page's sections by their titles."""
    if not PAGE.is_file():
        return {}
    _, *parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.splitlines()[0]: f"## {part.rstrip()}\n" for part in parts}


def main(chosen: list[str]) -> None:
    """Run the chosen benchmarks and print them, or all of them and write the page."""
    unknown = sorted(set(chosen) - set(names()))
    if unknown:
        raise SystemExit(f"benchmark must be one of {', '.join(names())}, got {', '.join(unknown)}")
    for name in chosen or names():
        print(f"running {name} ...", file=sys.stderr, flush=True)
        found = section(name)
        print(found, flush=True)
        # Each is written when it is there, in the order of their names, and leaves the others' as they are.
        sections = {**written(), title(name): found}
        order = [title(each) for each in names()]
        kept = [sections[each] for each in order if each in sections]
        PAGE.write_text("\n".join([INTRODUCTION, *kept]), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PAGE.parents[1])}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
