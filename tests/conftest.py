"""`--core`: the tests of the mathematics alone, where only the core dependencies are installed; `--rest`: all others.

In the core a skip that should not happen is a failure: only the absence of the shared data may skip. Tests marked
`extra` need a package beyond the core and are left out, not skipped.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

CORE = (
    # the mathematics
    "naming",
    "oracles",
    "grouping",
    "tilting",
    "laying",
    "newton",
    "feasibility",
    "projection",
    "dual",
    "adjustment",
    "resampling",
    "palette",
    "features",
    "uncertainty",
    "anytime",
    "conformal",
    "judging",
    # the pilot
    "prompts",
    "provenance",
    "transcripts",
    "tabulating",
    "reading",
    "joining",
    "describing",
    "pilot",
    # and where the two meet
    "certificates",
    "adjusting",
    "solving",
    "sequential",
    "sensitivity",
    "sequencing",
    "streaming",
    "bootstrapping",
    "crossfitting",
    "sizing",
    "regions",
    "clouds",
    "landscapes",
    "corrections",
    "trainers",
    "exporting",
    "fuzz",
    "paper_pilots",
    "docs",
)
collect_ignore = ["standins"]  # what other processes import in the place of packages
MAY_SKIP = "the shared data folder is not beside the checkout"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--core", action="store_true", help="only the mathematics, on the core dependencies")
    parser.addoption("--rest", action="store_true", help="only what --core leaves out")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "extra(*packages): needs packages beyond the core")
    if config.getoption("--core"):
        # A plugin and not hooks of this file: those would not be asked about modules outside tests/.
        config.pluginmanager.register(Core(), "valuepalette-core")
    elif config.getoption("--rest"):
        config.pluginmanager.register(Rest(), "valuepalette-rest")


def in_core(path: Path) -> bool:
    return path.stem.removeprefix("test_") in CORE


def beyond_core(item: pytest.Item) -> bool:
    return item.get_closest_marker("extra") is not None or item.get_closest_marker("models") is not None


class Rest:
    """Leaves out what `--core` runs."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = [item for item in items if in_core(item.path) and not beyond_core(item)]
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if not in_core(item.path) or beyond_core(item)]


class Core:
    """Leaves out what needs more than the core, and turns skips into failures."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        if collection_path.suffix != ".py" or collection_path.name == "conftest.py":
            return None
        return None if in_core(collection_path) else True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        beyond = [item for item in items if beyond_core(item)]
        config.hook.pytest_deselected(items=beyond)
        items[:] = [item for item in items if not beyond_core(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        return _no_skip(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        return _no_skip(report)


def _no_skip(report):
    if report.skipped and not hasattr(report, "wasxfail") and MAY_SKIP not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report
