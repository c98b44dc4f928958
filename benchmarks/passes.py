"""One pass over a million rows, and a whole solve.

A table of 1,000,000 rows and six values, 62,500 prompts of 16 candidates, in joint mode (one group of all rows) and in
prompt mode. A pass returns log-partition, levels, covariance and support at one weight vector. Beside it: copying the
same bytes plus one `np.exp` per row, which no pass can do without, and the same figures in plain NumPy, without
blocks. Each contender takes turns with the first, so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from valuepalette import grouping, tilting
from valuepalette.dual import Status, optimise
from valuepalette.grouping import Groups
from valuepalette.laying import tilted
from valuepalette.tilting import spread

Float = NDArray[np.float64]

ROWS, CANDIDATES, FEATURES = 1_000_000, 16, 6
ROUNDS = 11
SOLVES = 3
ASKED = np.array([0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
"""Over the base level, in standard deviations; what is 0 is kept."""


def pilot() -> Groups:
    rng = np.random.default_rng(0)
    prompts = ROWS // CANDIDATES
    values = rng.normal(size=(prompts, CANDIDATES, FEATURES)) + rng.normal(size=(prompts, 1, FEATURES))
    starts = np.arange(0, ROWS + 1, CANDIDATES)
    return Groups(values.reshape(ROWS, FEATURES), starts, np.full(prompts, 1 / prompts))


def plain(values: Float, weights: Float, joint: bool) -> tuple[float, Float, Float]:
    """Softmax, mean and covariance as one writes them down."""
    table = values[None] if joint else values.reshape(-1, CANDIDATES, FEATURES)
    score = table @ weights
    top = score.max(axis=1, keepdims=True)
    law = np.exp(score - top)
    total = law.sum(axis=1, keepdims=True)
    law /= total
    mean = (law[:, None] @ table)[:, 0]
    rest = (table - mean[:, None]).reshape(-1, FEATURES)
    covariance = (rest * law.reshape(-1, 1)).T @ rest / len(table)
    return float((top + np.log(total / table.shape[1])).mean()), mean.mean(axis=0), covariance


def floor(values: Float, out: Float, row: Float) -> None:
    np.copyto(out, values)
    np.exp(values[:, 0], out=row)


def one_thread() -> AbstractContextManager[object]:
    return patch.object(tilting, "THREADS", 1)


def beside(least: Callable[[], object], contender: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of a contender, and the median of how many times as long it takes as the least."""
    seconds = []
    for _ in range(ROUNDS + 1):
        marks = [time.perf_counter()]
        for run_ in (least, contender):
            run_()
            marks.append(time.perf_counter())
        seconds.append(np.diff(marks))
    floor_, mine = np.array(seconds[1:]).T
    return float(np.median(mine)), float(np.median(mine / floor_))


def passes(groups: Groups, joint: bool) -> dict[str, tuple[float, float]]:
    scale = spread(groups, joint=joint)
    source, weights = tilted(groups, scale, joint=joint), np.full(FEATURES, 0.3)
    out, row = np.empty_like(groups.values), np.empty(ROWS)
    ours, theirs = source.pass_(weights), plain(groups.values, weights / scale, joint)
    if np.abs(ours.covariance * np.outer(scale, scale) - theirs[2]).max() > 1e-9:
        raise RuntimeError("the two passes differ")

    def alone() -> None:
        with one_thread():
            source.pass_(weights)

    def least() -> None:
        floor(groups.values, out, row)

    contenders = {
        "copy + one exp per row": least,
        "valuepalette": lambda: source.pass_(weights),
        "valuepalette, one thread": alone,
        # Last, since its BLAS threads stay awake for a while and would be in the way.
        "plain NumPy": lambda: plain(groups.values, weights, joint),
    }
    return {name: beside(least, contender) for name, contender in contenders.items()}


def solves(groups: Groups, joint: bool) -> tuple[float, float, int]:
    """Seconds to lay the pilot out, seconds of a whole solve, which has to do that too, and its passes."""
    laid, whole, count = [], [], 0
    for _ in range(SOLVES):
        fresh = Groups(groups.values, groups.starts, groups.weights)
        start = time.perf_counter()
        tilted(fresh, spread(fresh, joint=joint), joint=joint)
        laid.append(time.perf_counter() - start)
        fresh = Groups(groups.values, groups.starts, groups.weights)
        start = time.perf_counter()
        lower = fresh.base + ASKED * spread(fresh, joint=joint)
        found = optimise(fresh, lower, np.full(FEATURES, np.inf), joint=joint)
        whole.append(time.perf_counter() - start)
        if found.status is not Status.OPTIMAL:
            raise RuntimeError(f"the palette must have an optimum, got {found.status.name}")
        count = found.passes
    return float(np.median(laid)), float(np.median(whole)), count


def run() -> str:
    """The tables, in Markdown."""
    groups = pilot()
    measured = {joint: passes(groups, joint) for joint in (True, False)}
    lines = []
    for name in measured[True]:
        cells = [
            f"{seconds * 1e3:.1f} ms | {ratio:.1f}"
            for seconds, ratio in (measured[j][name] for j in (True, False))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    (laid, joint, few), (also, prompt, many) = (solves(groups, joint) for joint in (True, False))
    prompts, block = ROWS // CANDIDATES, grouping.CELLS // FEATURES
    return f"""\
{ROWS:,} rows, {FEATURES} values, float64; prompt mode has {prompts:,} prompts of {CANDIDATES} candidates.
Medians of {ROUNDS} rounds, and how many times as long as copying the same bytes plus one exponential per row.

| one pass | joint mode | | prompt mode | |
|---|---:|---:|---:|---:|
{table}

A whole solve, from the table to weights, levels by prompt and the proof, takes {joint:.2f} s in joint mode
({few} passes) and {prompt:.2f} s in prompt mode ({many} passes); {laid:.2f} s and {also:.2f} s of that go into
standardising the table and laying it out.

Two threads help only where each call into NumPy lasts long enough. With blocks of 10,000 rows a call takes 10 to
50 µs, about as long as one thread needs to wake the other when it gives the interpreter back, and two threads are no
faster than one; with blocks of {block:,} rows they are, where both cores are free. BLAS keeps its own threads out of
it: products this thin gain nothing from them, and on a busy machine a call can wait for them longer than the whole
pass takes.
"""


if __name__ == "__main__":
    print(run())
