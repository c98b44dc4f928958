"""Many resamples at once against each of them on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import problems
from oracles import spread
from problems import groups, many
from valuepalette.dual import Status, evaluate_at, optimise
from valuepalette.grouping import Groups
from valuepalette.quantities import quantile
from valuepalette.resampling import draw, resample, resampled_quantiles

INF = np.inf


def drawn(on: Groups, times: np.ndarray) -> Groups:
    """A resample written out: each prompt as often as it was drawn."""
    who = np.repeat(np.arange(len(times)), times.astype(int))
    rows = np.concatenate([np.arange(on.starts[g], on.starts[g + 1]) for g in who])
    starts = np.concatenate([[0], np.cumsum(on.sizes[who])])
    return Groups(on.values[rows], starts, on.weights[who] / on.weights[who].sum())


def shares_of(on: Groups, times: np.ndarray) -> np.ndarray:
    shares = times * on.weights
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("joint", "block", "candidates"),
    [(False, None, None), (False, None, 6), (True, None, None), (False, 2, 4)],
)
@pytest.mark.parametrize("heat", [0.3, 1.0])
def test_each_resample_is_what_it_is_alone(
    joint: bool, block: int | None, candidates: Any, heat: float
) -> None:
    """k = 2 of 4 has all its pairs as blocks, so nothing about them is random."""
    settled = 0
    for rng in many(431, 6):
        p = problems.planted(rng, heat=heat, joint=joint, prompts=25, candidates=candidates).problem
        on = groups(p)
        whole = optimise(on, p.lower, p.upper, joint=joint, block=block)
        start = whole.weights if whole.status is Status.OPTIMAL else np.zeros(p.features)
        times = draw(25, 8, seed=1)
        both = [np.tile(ends, (8, 1)) for ends in (p.lower, p.upper)]
        found = resample(on, start, shares_of(on, times), *both, joint=joint, block=block, tol=1e-9)
        unit = spread(p)
        for b in range(8):
            alone = drawn(on, times[b])
            one = optimise(alone, p.lower, p.upper, joint=joint, block=block)
            assert found.solved[b] == (one.status is Status.OPTIMAL), (p.note, one.status)
            assert found.bases[b] == pytest.approx(alone.base, rel=1e-9, abs=1e-9 * unit.max())
            if not found.solved[b]:
                assert np.isnan(found.weights[b]).all()
                continue
            settled += 1
            assert found.residual[b] <= 1e-9
            assert (found.levels[b] - one.levels) / unit == pytest.approx(0, abs=1e-7)
            assert (found.weights[b] - one.weights) * unit == pytest.approx(0, abs=1e-4)
            there = optimise_at(on, found.weights[b], joint, block)
            assert (found.whole[b] - there) / unit == pytest.approx(0, abs=1e-9)
    assert settled > 20


def optimise_at(on: Groups, weights: np.ndarray, joint: bool, block: int | None) -> np.ndarray:
    return evaluate_at(on, weights, joint=joint, block=block).levels


def test_the_edge_of_reach_is_decided_as_alone() -> None:
    """98 % of the way to the most of the pilot: some resamples can have it and some cannot, each is told apart."""
    told: set[bool] = set()
    for rng in many(432, 4):
        p = problems.pilot(rng, joint=False, prompts=20, candidates=5, features=2, weighted=False)
        on = groups(p)
        lower = on.base + 0.98 * (np.maximum.reduceat(on.values, on.starts[:-1]).mean(axis=0) - on.base)
        lower, upper = np.array([lower[0], -INF]), np.full(2, INF)
        times = draw(20, 12, seed=2)
        found = resample(
            on, np.zeros(2), shares_of(on, times), *(np.tile(e, (12, 1)) for e in (lower, upper))
        )
        alone = [optimise(drawn(on, one), lower, upper).status is Status.OPTIMAL for one in times]
        assert found.solved.tolist() == alone
        told |= set(alone)
    assert told == {True, False}


def test_a_far_start_arrives_too() -> None:
    p = problems.planted(
        np.random.default_rng(433), heat=1.0, joint=False, prompts=30, candidates=6, features=3
    )
    on = groups(p.problem)
    both = [np.tile(ends, (5, 1)) for ends in (p.problem.lower, p.problem.upper)]
    shares = shares_of(on, draw(30, 5, seed=3))
    unit = spread(p.problem)
    near = resample(on, p.weights, shares, *both, tol=1e-9)
    far = resample(on, 8 / unit * np.sign(p.weights), shares, *both, tol=1e-9)
    assert near.solved.tolist() == far.solved.tolist()
    assert near.solved.any()
    assert near.weights * unit == pytest.approx(far.weights * unit, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", ["normal", "ties"])
def test_quantiles_are_those_of_the_rows_written_out(weighted: bool, shape: str) -> None:
    for rng in many(434, 4):
        on = groups(problems.pilot(rng, prompts=12, features=1, weighted=weighted, shape=shape, joint=False))
        times = draw(12, 10, seed=4)
        for q in (0.0, 0.2, 0.5, 0.83, 1.0):
            got = resampled_quantiles(on, times, q)
            for b in range(10):
                one = drawn(on, times[b])
                weights = np.repeat(on.weights / on.sizes, on.sizes)
                rows = np.repeat(np.repeat(np.arange(12), on.sizes), 1)
                count = times[b][rows].astype(int)
                want = quantile(np.repeat(on.values[:, 0], count), np.repeat(weights, count), np.array([q]))[
                    0
                ]
                assert got[b] == pytest.approx(want, rel=1e-9, abs=1e-12)
                assert len(one.values) == count.sum()


def test_a_prompt_that_is_never_drawn_says_nothing() -> None:
    """In joint mode neither, though one of its rows lies far above all others."""
    values = np.array([[0.0], [1.0], [0.5], [2.0], [900.0], [950.0]])
    on = Groups(values, np.array([0, 2, 4, 6]), np.full(3, 1 / 3))
    shares = np.array([[0.5, 0.5, 0.0]])
    for joint in (False, True):
        alone = Groups(values[:4], np.array([0, 2, 4]), np.full(2, 0.5))
        want = optimise(alone, np.array([1.1]), np.array([INF]), joint=joint)
        found = resample(on, np.zeros(1), shares, np.array([[1.1]]), np.array([[INF]]), joint=joint, tol=1e-9)
        assert found.solved.all()
        assert found.weights[0] == pytest.approx(want.weights, rel=1e-5)
