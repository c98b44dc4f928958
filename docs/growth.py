"""Draws docs/images/growth.svg: how the cost of a solve grows with rows, values and candidates.

python docs/growth.py measure    measures anew and keeps the figures beside the picture (some minutes)
python docs/growth.py            draws from the figures kept
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parent / "images" / "growth.svg"
FIGURES = PICTURE.with_suffix(".json")

ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
VALUES = (2, 4, 8, 16, 32)
CANDIDATES = (2, 4, 8, 16, 32, 64, 128)
USUAL = {"rows": 1_000_000, "values": 6, "candidates": 16}
TITLES = {
    "rows": "rows, with 6 values",
    "values": "values, of 1,000,000 rows",
    "candidates": "candidates a prompt, in 1,000,000 rows",
}

WIDTH, HEIGHT, LEFT, TOP, GAP = 900, 330, 56, 62, 30
STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e } .head { font-size: 16px; font-weight: 600 }
.rule { stroke: #d1d9e0 } .line { stroke: #0969da; stroke-width: 2; fill: none } .dot { fill: #0969da }
.straight { stroke: #818b98; stroke-dasharray: 4 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .rule { stroke: #3d444d }
  .line { stroke: #4493f8 } .dot { fill: #4493f8 } .straight { stroke: #9198a1 }
}"""


def figures() -> dict[str, list[tuple[int, float]]]:
    """Seconds of processor time of a whole solve on Parquet, the better of two, by what is varied."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.size import write

    from valuepalette import solve
    from valuepalette.shards import open_shards

    out: dict[str, list[tuple[int, float]]] = {}
    for name, numbers in (("rows", ROWS), ("values", VALUES), ("candidates", CANDIDATES)):
        out[name] = []
        for number in numbers:
            told = USUAL | {name: number}
            palette = {f"v{i}": ("reach 20%", "+0.1", "keep")[min(i, 2)] for i in range(told["values"])}
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), told["rows"], told["values"], told["candidates"])
                seconds = []
                for _ in range(2):
                    start = time.process_time()
                    solve(open_shards(folder), palette)
                    seconds.append(time.process_time() - start)
            out[name].append((number, round(min(seconds), 3)))
            print(name, number, out[name][-1][1], file=sys.stderr, flush=True)
    return out


def drawn(shown: dict[str, Any]) -> str:
    """Three panels with a common scale of seconds, both axes logarithmic."""
    seconds = [y for points in shown.values() for _, y in points]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    bottom = HEIGHT - 66
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>How the cost of a solve grows</title>",
        f"<style>\n{STYLE}\n</style>",
        '<text class="head" x="8" y="26">Processor seconds of a whole solve on Parquet</text>',
        '<text class="small" x="8" y="46">Dashed: in proportion</text>',
    ]
    width = (WIDTH - LEFT - 24 - 2 * GAP) / 3

    def y(second: float) -> float:
        return round(bottom - (math.log10(second) - low) / (high - low) * (bottom - TOP), 1)

    for number, (name, points) in enumerate(shown.items()):
        left = LEFT + number * (width + GAP)
        lines += _panel(name, points, left, width, y, range(low, high + 1), bottom, number == 0)
    return "\n".join([*lines, "</svg>", ""])


def _panel(
    name: str,
    points: list[tuple[int, float]],
    left: float,
    width: float,
    y: Any,
    powers: range,
    bottom: float,
    labelled: bool,
) -> Iterator[str]:
    first, last = math.log10(points[0][0]), math.log10(points[-1][0])

    def x(number: float) -> float:
        return round(left + (math.log10(number) - first) / (last - first) * width, 1)

    for power in powers:
        yield f'<path class="rule" d="M{left:.1f} {y(10**power)} h{width:.1f}"/>'
        if labelled:
            label = f"{10.0**power:g} s"
            yield f'<text class="small" x="{left - 8}" y="{y(10**power) + 4}" text-anchor="end">{label}</text>'
    # In proportion to the last point, as far as the panel goes.
    end, top = points[-1]
    start = max(points[0][0], end * 10 ** powers[0] / top)
    if name != "candidates":
        yield f'<path class="straight" d="M{x(start)} {y(top * start / end)} L{x(end)} {y(top)}"/>'
    path = " L".join(f"{x(number)} {y(second)}" for number, second in points)
    yield f'<path class="line" d="M{path}"/>'
    for number, second in points:
        yield f'<circle class="dot" cx="{x(number)}" cy="{y(second)}" r="4"/>'
        label = f"{number:,}" if number < 1000 else f"{number / 1e6:g}M"
        yield f'<text class="small" x="{x(number)}" y="{bottom + 18}" text-anchor="middle">{label}</text>'
    yield f'<text x="{left + width / 2:.1f}" y="{bottom + 42}" text-anchor="middle">{TITLES[name]}</text>'


def main(arguments: list[str]) -> None:
    if arguments:
        FIGURES.write_text(json.dumps(figures(), indent=1) + "\n", encoding="utf-8")
    PICTURE.write_text(drawn(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
