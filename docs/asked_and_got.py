"""Draws docs/images/asked-and-got.svg: what a palette asked, and what was got on unseen prompts.

    python docs/asked_and_got.py RUN PALETTE    takes the figures from a run's folder and keeps them beside the picture
    python docs/asked_and_got.py                draws from the figures kept

Every number comes from the solution, the evaluation and the candidates of the run; nothing is typed in. Beside the
palette stand two things one would do without it, on the same candidates: a weight for each value that is one over its
standard deviation, and the best candidate by that sum.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from valuepalette import Evaluation, Pilot, Solution, choose, evaluate

PICTURE = Path(__file__).parent / "images" / "asked-and-got.svg"
FIGURES = PICTURE.with_suffix(".json")
OURS, EQUAL, BEST = "this palette", "equal weights", "best of k"
METHODS = (OURS, EQUAL, BEST)

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
    ours = Evaluation.load(run / "evaluation" / "decoding" / f"{palette}.json")
    spreads = dict(zip(solution.features, solution.spread.tolist(), strict=True))
    asked = [name for name, text in solution.asked.items() if text != "free" and spreads[name] > 0]
    judged = {OURS: ours, **_others(run, solution, ours, asked)}
    values: list[dict[str, Any]] = []
    for name in asked:
        unit = spreads[name]
        got = {method: _rounded(found[name].gain / unit) for method, found in judged.items()}
        se = _rounded(ours[name].gain_se / unit)
        target = _rounded(ours[name].to_gain / unit)
        values.append({"name": name, "asked": solution.asked[name], "target": target, "got": got, "se": se})
    return {
        "palette": palette,
        "prompts": ours.prompts,
        "candidates": ours.candidates,
        "kl": {method: _rounded(found.kl) for method, found in judged.items()},
        "values": values,
    }


def _others(run: Path, solution: Solution, ours: Evaluation, asked: list[str]) -> dict[str, Evaluation]:
    pilot, unseen, k = Pilot.read(run / "pilot"), Pilot.read(run / "held_out"), solution.candidates
    spreads = dict(zip(pilot.values, pilot.array.std(axis=0).tolist(), strict=True))
    sides = {name: 1 if math.isfinite(ours[name].lower) else -1 for name in asked}
    equal = {name: side / spreads[name] for name, side in sides.items()}
    # Weights a million times as large leave nothing to chance.
    best = {name: 1e6 * weight for name, weight in equal.items()}
    return {
        method: evaluate(choose(unseen, levels), levels)
        for method, levels in (
            (EQUAL, Solution.from_weights(pilot, equal, k)),
            (BEST, Solution.from_weights(pilot, best, k)),
        )
    }


def _rounded(number: float) -> float:
    return round(number, 4)


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
        *_legend(shown["kl"], shown["candidates"]),
        *_ticks(low, high, x, bottom),
    ]
    for number, value in enumerate(values):
        lines += _row(value, TOP + ROW * number + ROW / 2, x)
    lines.append(
        f'<text class="small" x="8" y="{bottom + 38}">Gain over the model as it is, in standard deviations between '
        "answers to one prompt; bars: 95 %. KL: how far from the model, in nats.</text>"
    )
    return "\n".join([*lines, "</svg>", ""])


def _ends(value: dict[str, Any]) -> Iterator[float]:
    yield from (value["target"], *value["got"].values())
    yield from (value["got"][OURS] - 1.96 * value["se"], value["got"][OURS] + 1.96 * value["se"])


def _legend(kl: dict[str, float], candidates: int) -> Iterator[str]:
    """A mark and a word for each method, with its distance from the model."""
    y, at = 54, 16
    yield f'<path class="asked" d="M{at} {y - 8} V{y + 8}"/>'
    yield f'<text x="{at + 16}" y="{y + 5}">asked</text>'
    at += 80
    for method in METHODS:
        label = f"{method.replace(BEST, f'best of {candidates}')}, KL {kl[method]:.2f}"
        yield _mark(method, at, y)
        yield f'<text x="{at + 16}" y="{y + 5}">{label}</text>'
        at += 44 + 7.5 * len(label)


def _mark(method: str, x: float, y: float) -> str:
    """Each method has a shape of its own, so that nothing hangs on colour."""
    if method == OURS:
        return f'<circle class="dot" cx="{x}" cy="{y}" r="6"/>'
    shape = {EQUAL: "M-5 -5 H5 V5 H-5 Z", BEST: "M0 -6 L6 5 H-6 Z"}[method]
    return f'<path class="other" transform="translate({x} {y})" d="{shape}"/>'


def _ticks(low: float, high: float, x: Callable[[float], float], bottom: int) -> Iterator[str]:
    step = next(step for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / step <= 8)
    for number in range(int(low / step) - 1, int(high / step) + 2):
        if low <= (gain := number * step) <= high:
            yield f'<path class="{"rule" if number else "base"}" d="M{x(gain)} {TOP} V{bottom}"/>'
            label = f"{gain:+.1f}".replace("-", "−") if number else "0"
            yield f'<text class="small" x="{x(gain)}" y="{bottom + 16}" text-anchor="middle">{label}</text>'


def _row(value: dict[str, Any], y: float, x: Callable[[float], float]) -> Iterator[str]:
    ours, bar = value["got"][OURS], 1.96 * value["se"]
    yield f'<text x="8" y="{y - 1}">{escape(value["name"])}</text>'
    yield f'<text class="small" x="8" y="{y + 14}">{escape(value["asked"])}</text>'
    yield f'<path class="got" d="M{x(ours - bar)} {y} H{x(ours + bar)}"/>'
    for method in (BEST, EQUAL):
        yield _mark(method, x(value["got"][method]), y)
    yield f'<path class="asked" d="M{x(value["target"])} {y - 13} V{y + 13}"/>'
    yield _mark(OURS, x(ours), y)


def main(arguments: list[str]) -> None:
    if arguments:
        run, palette = arguments
        PICTURE.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(figures(Path(run), palette), indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(drawn(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
