"""Measures how the cost of a solve grows with rows, values and candidates, in some minutes.

Keeps the figures in docs/images/growth.json, which docs/pictures.py draws.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

FIGURES = Path(__file__).parent / "images" / "growth.json"

ROWS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
VALUES = (2, 4, 8, 16, 32)
CANDIDATES = (2, 4, 8, 16, 32, 64, 128)
USUAL = {"rows": 1_000_000, "values": 6, "candidates": 16}


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


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(figures(), indent=1) + "\n", encoding="utf-8")
