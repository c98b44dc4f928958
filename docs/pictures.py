"""Draws the pictures of docs/plots.md by the snippets that stand above them, and docs/images/growth.svg.

    python docs/pictures.py            writes docs/images/*.svg
    python docs/pictures.py FOLDER     writes them there

A picture `images/before-after.svg` is the figure that its snippet calls `before_after`. The same snippets always give
the same files: draws are seeded, and SVG holds no date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from valuepalette import plots

PAGE = Path(__file__).with_name("plots.md")
IMAGES = PAGE.parent / "images"
GROWTH = {
    "rows": "rows, with 6 values",
    "values": "values, of 1,000,000 rows",
    "candidates": "candidates a prompt, in 1,000,000 rows",
}
_PART = re.compile(r"^```python\n(.*?)^```$|^!\[(.+?)\]\(images/([\w-]+)\.svg\)$", re.DOTALL | re.MULTILINE)


def snippets(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each Python snippet of a page with the pictures under it, their titles by name."""
    code, shown = "", dict[str, str]()
    for found in _PART.finditer(page):
        if found[1]:
            if shown:
                yield code, shown
            code, shown = found[1], {}
        else:
            shown[found[3]] = found[2].replace("\n", " ")
    if shown:
        yield code, shown


def draw(folder: Path) -> list[Path]:
    """Writes all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for code, shown in snippets(PAGE.read_text(encoding="utf-8")):
        namespace: dict[str, Any] = {}
        exec(compile(code, str(PAGE), "exec"), namespace)
        for name, title in shown.items():
            written.append(folder / f"{name}.svg")
            figure = namespace[name.replace("-", "_")]
            _write(written[-1], plots.svg(figure, title, width=100 * figure.get_figwidth()))
    written.append(folder / "growth.svg")
    _write(written[-1], growth(json.loads((IMAGES / "growth.json").read_text(encoding="utf-8"))))
    return written


def growth(measured: dict[str, list[tuple[int, float]]]) -> str:
    """What docs/growth.py measured: three panels with a common scale of seconds."""
    from matplotlib.figure import Figure

    with plots.theme("light"):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
    for panel, (name, pairs) in zip(panels, measured.items(), strict=True):
        plots.growth(
            {"measured": pairs}, size=GROWTH[name], cost="processor seconds of a whole solve", ax=panel
        )
        panel.label_outer()
        if panel is not panels[0]:
            panel.get_legend().remove()
        if name == "candidates":
            panel.lines[0].remove()  # the rows are the same, so that nothing grows in proportion
    seconds = [each for pairs in measured.values() for _, each in pairs]
    panels[0].set_ylim(min(seconds) / 1.8, max(seconds) * 1.8)
    return plots.svg(figure, "How the cost of a solve grows with rows, values and candidates", width=900)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else IMAGES)
