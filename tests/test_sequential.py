"""One value after another: the same optimum as all at once, and the paper's form, which stops short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from oracles import Problem, problem, spread, tilt, violation
from problems import groups, lattice, many, pilot, planted
from valuepalette.dual import Status, optimise
from valuepalette.sequential import Step, ascend

INF = np.inf


def run(p: Problem, blocks: list[list[int]] | None = None, **options: object) -> list[Step]:
    blocks = blocks or [[i] for i in range(p.features)]
    columns = [p.values[:, i].copy() for i in range(p.features)]
    return ascend(columns.__getitem__, groups(p), p.lower, p.upper, blocks, joint=p.joint, **options)  # type: ignore[arg-type]


def far(p: Problem, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs((a - b) * spread(p)).max())


@pytest.mark.parametrize("joint", [False, True])
def test_the_end_is_that_of_all_at_once(joint: bool) -> None:
    steps = 0
    for rng in many(301 + joint, 25):
        case = planted(rng, joint=joint, heat=0.5, features=int(rng.integers(2, 5)))
        p, found = (
            case.problem,
            optimise(groups(case.problem), case.problem.lower, case.problem.upper, joint=joint),
        )
        binding = np.flatnonzero(found.weights)
        unit = spread(p)[binding]
        inner = found.covariance[np.ix_(binding, binding)] / np.outer(unit, unit)
        if len(binding) and np.linalg.eigvalsh(inner)[0] < 1e-2:
            continue  # where little separates the values, weights are not known to 1e-8 anyway
        way = run(p, rounds=2_000, tol=1e-11)
        assert way[-1].residual <= 1e-11
        assert violation(p, way[-1].weights) <= 1e-10
        assert far(p, way[-1].weights, found.weights) < 1e-8
        steps += len(way)
    assert steps > 200


def test_what_a_step_says_is_so() -> None:
    for rng in many(303, 10):
        case = planted(rng, heat=1.0)
        p, unit = case.problem, np.maximum(spread(case.problem), 1e-300)
        for step in run(p, rounds=3):
            at = tilt(p, step.weights)
            assert step.levels == pytest.approx(at.levels.astype(float), rel=1e-9, abs=1e-9 * unit.max())
            assert step.kl == pytest.approx(float(at.kl), abs=1e-10)
            assert step.residual == pytest.approx(violation(p, step.weights), abs=1e-9)


def test_each_step_solves_its_block_and_leaves_the_others() -> None:
    rng = np.random.default_rng(304)
    p = pilot(rng, prompts=12, candidates=6, features=3, joint=False, shape="normal")
    p = replace(p, lower=groups(p).base + 0.3 * spread(p))
    before = np.zeros(3)
    for step in run(p, [[0, 1], [2]], rounds=4):
        others = [i for i in range(3) if i not in step.block]
        assert np.array_equal(step.weights[others], before[others])
        own = list(step.block)
        assert np.all(
            (step.weights[own] == 0) | (np.abs(step.levels - p.lower)[own] <= 1e-9 * spread(p)[own])
        )
        before = step.weights


def test_the_dual_rises_with_every_step() -> None:
    for rng in many(305, 10):
        p = planted(rng, heat=1.0).problem
        heights = []
        for step in run(p, rounds=20):
            bound = np.where(step.weights > 0, p.lower, np.where(step.weights < 0, p.upper, 0.0))
            log_partition = step.weights @ step.levels - step.kl
            heights.append(step.weights @ bound - log_partition)
        assert np.all(np.diff(heights) >= -1e-9 * (1 + np.abs(heights).max()))


def test_one_block_of_everything_is_one_step() -> None:
    rng = np.random.default_rng(306)
    p = pilot(rng, prompts=12, candidates=6, features=3, joint=False, shape="normal")
    p = replace(p, lower=groups(p).base + 0.3 * spread(p))
    way = run(p, [[0, 1, 2]])
    assert len(way) == 1
    assert far(p, way[0].weights, optimise(groups(p), p.lower, p.upper).weights) < 1e-9


@pytest.mark.parametrize("k", [2, 3, 5])
def test_blocks_of_k_are_those_of_the_solver(k: int) -> None:
    rng = np.random.default_rng([307, k])
    p = pilot(rng, prompts=60, candidates=8, features=3, joint=False, shape="effects")
    p = replace(p, lower=groups(p).base + np.array([0.2, 0.1, -0.2]) * spread(p))
    found = optimise(groups(p), p.lower, p.upper, block=k, seed=3)
    assert found.status is Status.OPTIMAL
    end = run(p, candidates=k, seed=3, tol=1e-11)[-1]
    assert far(p, end.weights, found.weights) < 1e-8
    assert end.levels == pytest.approx(found.levels, abs=1e-8 * spread(p).max())
    assert end.kl == pytest.approx(found.kl, abs=1e-9)
    assert far(p, run(p, candidates=k, seed=4, tol=1e-11)[-1].weights, found.weights) > 1e-4


def test_increments_that_are_not_negative_stop_short() -> None:
    """Three outcomes: the first value is raised, the second then lifts it too, and no step may take it back."""
    p = problem([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [3], [0.8, 0.6])
    short = run(p, increments=True)[-1]
    assert short.weights == pytest.approx([np.log(2), np.log(9 / 4)])
    assert short.kl == pytest.approx(0.1710, abs=5e-5)
    assert np.all(short.levels >= p.lower - 1e-12)
    full = run(p)[-1]
    assert full.weights == pytest.approx([0, np.log(3)], abs=1e-8)
    assert full.kl == pytest.approx(0.1483, abs=5e-5)


def test_a_large_offset_changes_nothing() -> None:
    rng = np.random.default_rng(308)
    p = pilot(rng, prompts=12, candidates=6, features=3, joint=False, shape="normal")
    shift = np.array([1e6, -1e4, 1e5]) * spread(p)
    moved = replace(p, values=p.values + shift)
    p = replace(p, lower=groups(p).base + 0.2 * spread(p))
    moved = replace(moved, lower=groups(moved).base + 0.2 * spread(p))
    assert far(p, run(p)[-1].weights, run(moved)[-1].weights) < 1e-7


def test_what_cannot_be_had_ends_early_or_never() -> None:
    alone = problem([[0.0, 0.0], [1.0, 3.0]], [2], [1.5, 0.5])
    assert len(run(alone)) == 1
    conflict = problem([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], [3], [0.7, 0.7])
    way = run(conflict, rounds=500)
    assert way[-1].residual > 1e-3
    assert len(way) < 1000
    for rng in many(309, 10):
        edge = lattice(rng, joint=False)
        assert not np.isfinite(edge.lower).all() or run(edge, rounds=20)[-1].residual > 1e-12


def test_a_value_without_spread() -> None:
    p = problem([[2.0, 0.0], [2.0, 1.0]], [2], [1.0, 0.75])
    assert run(p)[-1].weights == pytest.approx([0.0, np.log(3)])
    assert run(replace(p, lower=np.array([2.5, 0.75])))[-1].residual >= 0.5
