"""The paper's own pilots: its tables, exactly, and the verdict on every palette its solver was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull

from helpers import SHARED, needs_shared
from oracles import Problem, margin, spread, tilt
from problems import groups
from proofs import check
from valuepalette import dual
from valuepalette.dual import Optimum, Status

pytestmark = needs_shared

NAMES = ("humor", "helpfulness", "harmlessness", "diversity", "coherence", "perplexity")
OPT, LLAMA = "pilot-opt1.3b-anthropic", "pilot-llama2chat-anthropic"
INF = np.inf

# Weights by the pilot and the quantile of the first three values; the rest are kept. Kish's effective sample size.
TABLE = {
    (OPT, 50): ([2.543, 0.240, 0.284, 0, 0, 0], 1750),
    (OPT, 60): ([6.301, 0.838, 0.933, 0, 0, 0], 829),
    (OPT, 70): ([12.759, 1.530, 1.692, 0, 0, 0], 194),
    (OPT, 80): ([29.700, 2.586, 3.055, 0, 0, 0], 23.7),
    (LLAMA, 50): ([0.269, 0.205, 0.212, 0.058, 0, 0.075], 1969),
    (LLAMA, 60): ([0.850, 0.784, 0.793, 0, 0, 0.041], 765),
    (LLAMA, 70): ([2.016, 1.395, 1.500, 0, 0, 0.065], 180),
    (LLAMA, 80): ([5.944, 2.432, 2.923, 0, 0, 0.150], 20.0),
}
ALONE = {
    (OPT, "humor"): 16.428,
    (OPT, "helpfulness"): 0.721,
    (OPT, "harmlessness"): 0.952,  # the paper prints 1.27, which is the palette
    (LLAMA, "humor"): 2.887,
    (LLAMA, "helpfulness"): 0.693,
    (LLAMA, "harmlessness"): 0.988,
}


@cache
def pilot(name: str) -> Problem:
    """The whole pilot, sorted by prompt; every row weighs the same."""
    table = pq.read_table(SHARED / f"{name}.parquet")
    prompt = table["prompt_id"].to_numpy()
    order = np.argsort(prompt, kind="stable")
    values = np.column_stack([table[value].to_numpy() for value in NAMES])[order]
    sizes = np.bincount(prompt[order])
    starts = np.append(0, np.cumsum(sizes))
    free = np.full(len(NAMES), INF)
    return Problem(values, starts, sizes / sizes.sum(), -free, free, joint=True, note=name)


def palette(name: str, quantile: float) -> np.ndarray:
    """The paper's recipe: the larger of mean and quantile for three values, the mean for three, rounded."""
    values = pilot(name).values
    mean = values.mean(axis=0)
    raised = np.maximum(mean, np.percentile(values, quantile, axis=0))
    return np.round(np.where(np.arange(6) < 3, raised, mean), 3)


def optimise(p: Problem) -> Optimum:
    return dual.optimise(groups(p), p.lower, p.upper, joint=p.joint)


@pytest.mark.parametrize(("name", "quantile"), TABLE)
def test_the_table_of_weights(name: str, quantile: int) -> None:
    weights, sample = TABLE[name, quantile]
    p = replace(pilot(name), lower=palette(name, quantile))
    found = optimise(p)
    assert found.status is Status.OPTIMAL
    assert found.weights == pytest.approx(weights, abs=5.1e-4)
    assert np.array_equal(found.weights == 0, np.array(weights) == 0)
    assert found.kish == pytest.approx(sample, rel=2e-3, abs=0.6 if sample > 100 else 0.06)
    check(p, found)
    # The proof of MATH 4, rule 2, with no linear programme; HHH-80 on OPT has weights down to 1e-69.
    assert np.all(found.error * spread(p) < 1e-5)


@pytest.mark.parametrize("name", [OPT, LLAMA])
def test_hhh_80_can_be_had_and_hhh_90_cannot(name: str) -> None:
    possible = replace(pilot(name), lower=palette(name, 80))
    assert margin(possible) > 0.03
    assert optimise(possible).status is Status.OPTIMAL
    lost = replace(pilot(name), lower=palette(name, 90))
    assert margin(lost) < -0.01
    found = optimise(lost)
    assert found.status is Status.INFEASIBLE
    check(lost, found)


def test_the_margin_and_the_smallest_weight_of_hhh_80() -> None:
    p = replace(pilot(OPT), lower=palette(OPT, 80))
    assert margin(p) == pytest.approx(0.041, abs=5e-4)
    smallest = tilt(p, optimise(p).weights).probabilities.min()
    assert 0 < smallest < 1e-60


@pytest.mark.parametrize(("name", "value"), ALONE)
def test_one_value_at_80_percent(name: str, value: str) -> None:
    i = NAMES.index(value)
    alone = replace(pilot(name), lower=np.where(np.arange(6) == i, palette(name, 80), -INF))
    found = optimise(alone)
    assert found.weights[i] == pytest.approx(ALONE[name, value], abs=5.1e-4)
    check(alone, found)


def test_prompts_can_hardly_be_moved_in_prompt_mode() -> None:
    """130 of 2,178 prompts have a second answer to choose: the paper's palettes need re-weighted prompts."""
    p = replace(pilot(LLAMA), lower=palette(LLAMA, 50), joint=False)
    found = optimise(p)
    assert found.status is Status.INFEASIBLE
    check(p, found)


# ---- every palette that the reference solved


@cache
def asked_of_the_reference() -> list[dict[str, list]]:
    return pq.read_table(SHARED / "reference-llama2chat-solves.parquet").to_pylist()


@cache
def corners() -> np.ndarray:
    """The Llama pilot without the rows inside its convex hull, which no linear programme needs."""
    values = pilot(LLAMA).values
    return values[ConvexHull((values - values.mean(axis=0)) / values.std(axis=0)).vertices]


def columns(line: dict[str, list]) -> list[int]:
    return [NAMES.index(value) for value in line["values"]]


def asked(line: dict[str, list]) -> Problem:
    p, lower = pilot(LLAMA), np.array(line["palette"])
    return replace(p, values=p.values[:, columns(line)], lower=lower, upper=np.full(len(lower), INF))


def room(line: dict[str, list]) -> float:
    """The margin by HiGHS on the corners of the hull, in deviations of the whole pilot."""
    unit = pilot(LLAMA).values.std(axis=0)
    points = (corners()[:, columns(line)] - line["palette"]) / unit[columns(line)]
    n, m = points.shape
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([-points.T, np.ones(m)]),
        b_ub=np.zeros(m),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.status == 0
    return -float(found.fun)


def judge(lines: Sequence[dict[str, list]]) -> tuple[int, int]:
    """Feasible and infeasible palettes clear of the threshold, each verdict proved and the LP's."""
    feasible = infeasible = 0
    for line in lines:
        p = asked(line)
        found, exact = optimise(p), room(line)
        check(p, found)
        if exact > 1e-6:
            assert found.status is Status.OPTIMAL
        if exact < -1e-6:
            assert found.status is Status.INFEASIBLE
        feasible += exact > 0.01
        infeasible += exact < -0.01
    return feasible, infeasible


def test_the_hull_has_the_margin_of_the_pilot() -> None:
    for line in asked_of_the_reference()[::200]:
        assert room(line) == pytest.approx(margin(asked(line)), abs=1e-8)


def test_a_tenth_of_the_palettes_of_the_reference() -> None:
    feasible, infeasible = judge(asked_of_the_reference()[::10])
    assert feasible > 60
    assert infeasible > 30


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_all_palettes_of_the_reference(part: int) -> None:
    judge(asked_of_the_reference()[part::4])


@pytest.mark.slow
def test_how_many_of_the_reference_palettes_can_be_had() -> None:
    rooms = np.array([room(line) for line in asked_of_the_reference()])
    assert (rooms > 0.01).sum() > 930
    assert (rooms < -0.01).sum() == 490
