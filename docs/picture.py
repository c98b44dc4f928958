"""Draws docs/images/asked-and-got.svg: what a palette asked and what was got on unseen prompts.

    python docs/picture.py RUN PALETTE    takes the figures from a run's folder and keeps them beside the picture
    python docs/picture.py                draws from the figures kept

Every number comes from the solution and the evaluations of the run; nothing is typed in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from valuepalette import Evaluation, Solution

PICTURE = Path(__file__).parent / "images" / "asked-and-got.svg"
FIGURES = PICTURE.with_suffix(".json")
METHODS = {"decoding": "valuepalette"}
"""The methods drawn, in the order of the legend, by their folder in a run."""

WIDTH, LEFT, RIGHT, TOP, ROW = 820, 215, 40, 92, 46
STYLE = """\
text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.head { font-size: 16px; font-weight: 600 }
.rule { stroke: #d1d9e0 } .base { stroke: #59636e }
.asked { stroke: #bc4c00; stroke-width: 3; fill: none }
.got { stroke: #0969da; stroke-width: 3 } .dot { fill: #0969da; stroke: none }
.other { fill: none; stroke: #818b98; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 }
  .rule { stroke: #3d444d } .base { stroke: #9198a1 }
  .asked { stroke: #f0883e }
  .got { stroke: #4493f8 } .dot { fill: #4493f8 }
  .other { stroke: #9198a1 }
}"""


def figures(run: Path, palette: str) -> dict[str, Any]:
    """What the picture shows of a palette: gains in within-prompt standard deviations, by value and method."""
    solution = Solution.load(run / "solutions" / f"{palette}.json")
    evaluations = {
        method: Evaluation.load(run / "evaluation" / method / f"{palette}.json") for method in METHODS
    }
    ours = evaluations["decoding"]
    values = []
    for name, spread in zip(solution.features, solution.spread.tolist(), strict=True):
        if solution.asked[name] == "free" or not spread:
            continue
        got = {
            method: {"gain": judged[name].gain / spread, "se": judged[name].gain_se / spread}
            for method, judged in evaluations.items()
        }
        values.append(
            {"name": name, "asked": solution.asked[name], "target": ours[name].to_gain / spread, "got": got}
        )
    return {"palette": palette, "prompts": ours.prompts, "candidates": ours.candidates, "values": values}


def drawn(shown: dict[str, Any]) -> str:
    """The picture."""
    values = shown["values"]
    ends = [end for value in values for end in _ends(value)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def x(gain: float) -> float:
        return round(LEFT + (gain - low) * scale, 1)

    bottom = TOP + ROW * len(values)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 44}" role="img">',
        f"<title>Asked and got on {shown['prompts']} unseen prompts</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<text class="head" x="8" y="26">Asked and got on {shown["prompts"]} unseen prompts</text>',
        *_legend(),
        *_ticks(low, high, x, bottom),
    ]
    for number, value in enumerate(values):
        lines += _row(value, TOP + ROW * number + ROW / 2, x)
    lines.append(
        f'<text class="small" x="{LEFT}" y="{bottom + 36}">gain over the model as it is, in standard deviations '
        "between answers to one prompt; bars are 95 %</text>"
    )
    return "\n".join([*lines, "</svg>", ""])


def _ends(value: dict[str, Any]) -> Iterator[float]:
    yield value["target"]
    for method, got in value["got"].items():
        bar = 1.96 * got["se"] if method == "decoding" else 0
        yield from (got["gain"] - bar, got["gain"] + bar)


def _legend() -> Iterator[str]:
    """A mark and a word for each."""
    at = 8
    marks = [('<path class="asked" d="M{x} 46 V62"/>', "asked")]
    for method, label in METHODS.items():
        marks.append((_mark(method, "{x}", 54), label))
    for mark, label in marks:
        yield mark.replace("{x}", f"{at + 8}")
        yield f'<text x="{at + 24}" y="59">{escape(label)}</text>'
        at += 48 + 7 * len(label)


def _mark(method: str, x: float | str, y: float) -> str:
    """Ours is a dot; each other method has a shape of its own, so that colour is not needed."""
    if method == "decoding":
        return f'<circle class="dot" cx="{x}" cy="{y}" r="6"/>'
    shapes = ("M-6 -6 H6 V6 H-6 Z", "M0 -7 L7 6 H-7 Z", "M-6 -6 L6 6 M-6 6 L6 -6")
    shape = shapes[list(METHODS).index(method) - 1]
    return f'<path class="other" transform="translate({x} {y})" d="{shape}"/>'


def _ticks(low: float, high: float, x: Any, bottom: int) -> Iterator[str]:
    step = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / step <= 8)
    for number in range(int(low / step) - 1, int(high / step) + 2):
        if low <= (gain := number * step) <= high:
            yield f'<path class="{"rule" if number else "base"}" d="M{x(gain)} {TOP} V{bottom}"/>'
            label = f"{gain:+.1f}".replace("-", "−") if number else "0"
            yield f'<text class="small" x="{x(gain)}" y="{bottom + 16}" text-anchor="middle">{label}</text>'


def _row(value: dict[str, Any], y: float, x: Any) -> Iterator[str]:
    yield f'<text x="8" y="{y - 1}">{escape(value["name"])}</text>'
    yield f'<text class="small" x="8" y="{y + 14}">{escape(value["asked"])}</text>'
    for method, got in value["got"].items():
        if method != "decoding":
            yield _mark(method, x(got["gain"]), y)
    ours = value["got"]["decoding"]
    bar = 1.96 * ours["se"]
    yield f'<path class="got" d="M{x(ours["gain"] - bar)} {y} H{x(ours["gain"] + bar)}"/>'
    yield f'<path class="asked" d="M{x(value["target"])} {y - 13} V{y + 13}"/>'
    yield _mark("decoding", x(ours["gain"]), y)


def main(arguments: list[str]) -> None:
    if arguments:
        run, palette = arguments
        PICTURE.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(figures(Path(run), palette), indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(drawn(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
