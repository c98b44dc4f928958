"""The pictures of docs/comparing.md, of the comparison in the run folder: python recipes/comparison/pictures.py."""

from __future__ import annotations

from pathlib import Path

from valuepalette import plots
from valuepalette.comparing import Comparison

HERE = Path(__file__).parent
IMAGES = HERE.parents[1] / "docs" / "images"


def main() -> None:
    compared = Comparison.load(HERE / "run" / "compare" / "glad.json")
    pictures = {"methods": plots.comparison(compared), "scaled": plots.overoptimisation(compared)}
    for name, figure in pictures.items():
        (IMAGES / f"recipe-{name}.svg").write_text(plots.svg(figure), encoding="utf-8")


if __name__ == "__main__":
    main()
