"""Adjusting palettes that cannot be had: ours and the paper's line search.

Figure 11 of the paper on the pilot of its OPT-1.3B (2,312 rows, joint mode): random palettes on the first 1 to 6
values, aggressive ones between the 80 % quantile and the largest reward, conservative ones between the mean and the
70 % quantile. The exact share of the way comes from a linear programme over all rows, so no contender is its own judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.optimize import linprog

from benchmarks.solving import NAMES, PILOT, paper_torch
from valuepalette.adjustment import interpolate
from valuepalette.grouping import Groups

HEAD = (
    "| palettes, values | can be had | mean ρ | valuepalette | error | paper's bisection | error "
    "| paper's ten points | share it calls feasible | exact share |"
)
Float = NDArray[np.float64]

PALETTES = 50
THEIRS = 5
"""Of which the paper's algorithm gets these; it takes up to a hundred times as long."""


def ours(values: Float, asked: Float) -> float:
    n, m = values.shape
    groups = Groups(values, np.arange(n + 1), np.full(n, 1 / n))
    return interpolate(groups, asked, np.full(m, np.inf), joint=True).rho


def bisection(values: Float, asked: Float) -> float:
    """The paper's interpolation: halve [c0, c] until it is 0.001 long, a full run of its solver at every point."""
    base, low, high = values.mean(axis=0), 0.0, 1.0
    if paper_torch(values, asked).feasible:
        return 1.0
    while np.linalg.norm((high - low) * (asked - base)) > 1e-3:
        middle = (low + high) / 2
        feasible = paper_torch(values, base + middle * (asked - base)).feasible
        low, high = (middle, high) if feasible else (low, middle)
    return low


def line_search(values: Float, asked: Float) -> float:
    """The paper's Figure 11: ten points from c0 to c, up to the first that fails; the share that did not."""
    base = values.mean(axis=0)
    for count, rho in enumerate(np.linspace(0, 1, 10)):
        if not paper_torch(values, base + rho * (asked - base)).feasible:
            return count / 10
    return 1.0


def exact(values: Float, asked: Float) -> float:
    """max ρ: a mixture of the rows reaches c0 + ρ(c − c0)."""
    n, base, unit = len(values), values.mean(axis=0), values.std(axis=0)
    z, rise = (values - base) / unit, (asked - base) / unit
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([-z.T, rise]),
        b_ub=np.zeros(len(unit)),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(0, 1)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return -float(found.fun)


def palettes(values: Float, kind: str) -> Float:
    rng = np.random.default_rng(11)
    if kind == "aggressive":
        ends = np.quantile(values, 0.8, axis=0), values.max(axis=0)
    else:
        ends = values.mean(axis=0), np.maximum(np.quantile(values, 0.7, axis=0), values.mean(axis=0))
    return rng.uniform(*ends, size=(PALETTES, values.shape[1]))


@dataclass(frozen=True)
class Score:
    """One contender on some palettes: seconds and what it said, each (palettes,)."""

    seconds: Float
    said: Float


def race(contender: Callable[[Float, Float], float], values: Float, asked: Float) -> Score:
    seconds, said = [], []
    contender(values, asked[0])  # imports and caches are not what is measured
    for one in asked:
        start = time.perf_counter()
        said.append(contender(values, one))
        seconds.append(time.perf_counter() - start)
    return Score(np.array(seconds), np.array(said))


def line(kind: str, values: Float) -> str:
    base, unit = values.mean(axis=0), values.std(axis=0)
    asked = palettes(values, kind)
    truth = np.array([exact(values, one) for one in asked])
    # An error in ρ moves the bound that has farthest to go by this many standard deviations.
    way = np.abs((asked - base) / unit).max(axis=1)
    mine = race(ours, values, asked)
    theirs, search = race(bisection, values, asked[:THEIRS]), race(line_search, values, asked[:THEIRS])
    off = np.abs(mine.said - truth) * way
    their_off = (np.abs(theirs.said - truth[:THEIRS]) * way[:THEIRS]).max()
    grid = ((np.linspace(0, 1, 10) <= mine.said[:, None]).mean(axis=1)).mean()
    cells = [
        f"{kind}, {values.shape[1]}",
        f"{(truth >= 1).mean():.0%}",
        f"{truth.mean():.2f}",
        f"{np.median(mine.seconds) * 1e3:.1f} ms",
        f"{off.max():.0e}",
        f"{np.median(theirs.seconds):.2f} s",
        f"{their_off:.2f}",
        f"{np.median(search.seconds):.2f} s",
        f"{search.said.mean():.2f}",
        f"{grid:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def run() -> str:
    """The table, in Markdown."""
    if not Path(PILOT).exists():
        return "Not measured: the paper's pilot is not beside this checkout."
    table = pq.read_table(PILOT)
    values = np.column_stack([table[name].to_numpy() for name in NAMES])
    rows = "\n".join(
        line(kind, values[:, :m]) for kind in ("aggressive", "conservative") for m in range(1, len(NAMES) + 1)
    )
    return f"""\
The paper's OPT-1.3B pilot (2,312 rows, joint mode), {PALETTES} random palettes for each line; the paper's algorithm,
rendered from its description (150 Adam steps in float32 at every point), gets the first {THEIRS}. Times are medians.
ρ is the share of the way from the base levels to the palette that can be had, by a linear programme; an error is the
largest, in standard deviations of the bound that has farthest to go.

{HEAD}
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

The time of valuepalette includes the weights of the adjusted palette, a millionth of a standard deviation inside the
limit. The last two columns are what the paper's Figure 11 shows: the share of ten points from the base to the palette
that pass as feasible (it prints .968 .946 .728 .688 .686 .682 for the aggressive ones). The paper's test is an overflow
of float32, which asks whether numbers are large, not whether the palette can be had.
"""
