"""Adjusting bounds, against bisection over exact linear programmes, enumeration, closed forms and a cone solver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

import oracles
import problems
from oracles import Problem, spread, subsets, tilt
from problems import groups
from valuepalette.adjustment import GAP, ROOM, Adjustment, greedy, highest, interpolate, nearest
from valuepalette.dual import Status, optimise
from valuepalette.grouping import Groups
from valuepalette.tilting import prompt_support

Float = NDArray[np.float64]
INF = np.inf
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def wild(seed: int, *, joint: bool, prompts: int = 6, candidates: int = 5) -> Problem:
    """A palette that asks for about two standard deviations in random directions."""
    rng = np.random.default_rng([909, seed])
    drawn = problems.asked(
        rng, push=2.0, prompts=prompts, candidates=candidates, joint=joint, features=3, shape="normal"
    )
    loose = drawn.lower < drawn.upper
    # A sixth of the features are asked for what they have.
    kept = (rng.random(3) < 1 / 6) & loose & np.isinf(drawn.upper)
    return replace(drawn, lower=np.where(kept, base(drawn), drawn.lower)) if kept.any() else drawn


def base(p: Problem) -> Float:
    return tilt(p, np.zeros(p.features)).levels.astype(float)


def relaxed(p: Problem, rho: float) -> Problem:
    """Written from the definition: an end that the base misses has gone the part rho of its way."""
    c0 = base(p)
    lower = np.minimum(p.lower, c0 + rho * np.maximum(p.lower - c0, 0))
    upper = np.maximum(p.upper, c0 + rho * np.minimum(p.upper - c0, 0))
    return replace(p, lower=lower, upper=upper)


def bisected(p: Problem) -> float:
    """The largest rho by bisection over linear programmes."""
    if oracles.distance(p) >= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if oracles.distance(relaxed(p, middle)) >= 0 else (low, middle)
    return low


def steep(p: Problem) -> float:
    """The fastest way of a bound from the base, in standard deviations."""
    c0, unit = base(p), spread(p)
    ways = np.concatenate([np.where(p.lower > c0, p.lower - c0, 0), np.where(p.upper < c0, c0 - p.upper, 0)])
    return float((ways / np.tile(unit, 2)).max())


def sound(p: Problem, found: Adjustment) -> None:
    """Bounds that can be had, are had, and lie nowhere beyond the ask."""
    unit = spread(p)
    assert found.optimum.status is Status.OPTIMAL
    assert (found.lower <= p.lower).all()
    assert (found.upper >= p.upper).all()
    assert (found.lower <= found.upper).all()
    assert ((found.optimum.levels - found.lower) / unit).min() > -1e-8
    assert ((found.upper - found.optimum.levels) / unit).min() > -1e-8


# ---- interpolation


@pytest.mark.parametrize("joint", [False, True])
def test_rho_is_that_of_a_bisection(joint: bool) -> None:
    short = 0
    for seed in range(12):
        p = wild(seed, joint=joint)
        found = interpolate(groups(p), p.lower, p.upper, joint=joint)
        exact = bisected(p)
        assert abs(found.rho - exact) * steep(p) <= GAP, seed
        assert found.rho <= exact + 1e-9, seed
        sound(p, found)
        assert found.inside <= 2e-6
        got = relaxed(p, found.rho - found.inside / steep(p)) if found.rho < 1 else p
        assert found.lower == pytest.approx(got.lower, abs=1e-9)
        assert found.upper == pytest.approx(got.upper, abs=1e-9)
        short += found.rho < 1
    assert short > 5


@pytest.mark.parametrize("k", [2, 3])
def test_rho_is_exact_for_fewer_candidates_than_there_are(k: int) -> None:
    short = 0
    for seed in range(6):
        p = wild(seed, joint=False)
        found = interpolate(groups(p), p.lower, p.upper, block=k)
        exact = bisected(replace(subsets(p, k), lower=p.lower, upper=p.upper))
        assert abs(found.rho - exact) * steep(p) <= GAP, seed
        sound(p, found)
        short += found.rho < 1
    assert short > 2


def test_what_can_be_had_is_left_alone() -> None:
    for seed in range(10):
        p = problems.planted(np.random.default_rng([77, seed])).problem
        before = optimise(groups(p), p.lower, p.upper, joint=p.joint)
        assert before.status is Status.OPTIMAL
        order = list(range(p.features))
        for found in (
            interpolate(groups(p), p.lower, p.upper, joint=p.joint),
            greedy(groups(p), p.lower, p.upper, order, joint=p.joint),
            nearest(groups(p), p.lower, p.upper, joint=p.joint),
        ):
            assert (found.rho, found.inside, found.limits) == (1.0, 0.0, {})
            assert np.array_equal(found.lower, p.lower)
            assert np.array_equal(found.upper, p.upper)
            assert found.optimum.weights == pytest.approx(before.weights)


def test_a_value_that_cannot_move_keeps_all_at_the_base() -> None:
    still = np.column_stack([np.arange(4.0), np.ones(4)])
    p = oracles.problem(still, [2, 2], [2.0, 1.5])
    found = interpolate(groups(p), p.lower, p.upper)
    assert found.rho == 0
    assert found.lower == pytest.approx([1.5, 1.0])
    assert found.limits[0] == found.limits[1]
    assert found.limits[0].features == (1,)
    # Value by value, the other has its ask.
    found = greedy(groups(p), p.lower, p.upper, [1, 0])
    assert found.lower == pytest.approx([2.0, 1.0], abs=2e-6)
    assert set(found.limits) == {1}


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_single_candidate_keeps_all_at_the_base(one_by_one: bool) -> None:
    p = problems.pilot(np.random.default_rng(3), prompts=4, candidates=3, features=2, joint=False)
    lower = base(p) + spread(p)
    if one_by_one:
        found = greedy(groups(p), lower, np.full(2, INF), [1, 0], block=1)
    else:
        found = interpolate(groups(p), lower, np.full(2, INF), block=1)
    assert found.rho == pytest.approx(0, abs=1e-9)
    assert found.optimum.levels == pytest.approx(base(p))


def test_limits_name_the_values_in_conflict() -> None:
    # The third value is independent of the two that exclude each other, and asks for little.
    corners = np.array([[x, y, z] for x, y in TRIANGLE for z in (-1.0, 1.0)])
    p = oracles.problem(corners, [6], [0.8, 0.6, 0.1])
    found = interpolate(groups(p), p.lower, p.upper)
    assert found.rho == pytest.approx((1 - 2 / 3) / (1.4 - 2 / 3), abs=1e-5)
    assert set(found.limits) == {0, 1, 2}
    assert all(set(limit.features) == {0, 1} and limit.by == "reach" for limit in found.limits.values())


# ---- a budget


@pytest.mark.parametrize("joint", [False, True])
def test_a_budget_is_spent_to_the_last(joint: bool) -> None:
    for seed in range(8):
        p = wild(seed, joint=joint)
        for kl in (0.01, 0.2):
            found = interpolate(groups(p), p.lower, p.upper, joint=joint, kl=kl)
            sound(p, found)
            assert found.inside == 0
            assert found.optimum.kl <= kl * (1 + 1e-8)
            if found.rho < 1 and found.optimum.kl < kl * (1 - 1e-8):
                free = interpolate(groups(p), p.lower, p.upper, joint=joint)
                assert found.rho == free.rho
            elif found.rho < 1:
                more = relaxed(p, found.rho + 1e-6)
                assert optimise(groups(p), more.lower, more.upper, joint=joint).kl > kl
                assert all(limit.by == "kl" for limit in found.limits.values())


def test_a_budget_on_two_outcomes() -> None:
    p = oracles.problem([0.0, 1.0], [2], [0.95])
    for kl in (1e-6, 0.1, 0.4, 0.6):

        def over(x: float, kl: float = kl) -> float:
            return float(np.log(2) + x * np.log(x) + (1 - x) * np.log(1 - x) - kl)

        level = brentq(over, 0.5, 1 - 1e-12)
        found = interpolate(groups(p), p.lower, p.upper, kl=kl)
        assert found.lower[0] == pytest.approx(min(level, 0.95), abs=1e-9)
        got = highest(groups(p), np.array([-INF]), np.array([INF]), [0], kl)
        assert got[0] == pytest.approx(level, abs=1e-6)


# ---- greedy


def test_one_value_after_another() -> None:
    p = oracles.problem(TRIANGLE, [3], [1.2, 0.6])
    found = greedy(groups(p), p.lower, p.upper, [0, 1])
    # The second is held at its base level of 1/3 at first, so the first reaches 2/3.
    first = 1 / 3 + ROOM / 3
    assert found.lower == pytest.approx([first, 1 - first], abs=1e-5)
    assert found.limits[0].features == found.limits[1].features == (0, 1) or set(
        found.limits[0].features
    ) == {0, 1}
    assert found.rho == pytest.approx((1 - first - 1 / 3) / (0.6 - 1 / 3), abs=1e-5)
    other = greedy(groups(p), p.lower, p.upper, [1, 0])
    assert other.lower == pytest.approx([0.4, 0.6], abs=1e-5)
    assert set(other.limits) == {0}


@pytest.mark.parametrize(("joint", "k"), [(False, None), (True, None), (False, 3)])
def test_greedy_is_sound_and_puts_the_first_first(joint: bool, k: int | None) -> None:
    for seed in range(5):
        p = wild(seed, joint=joint)
        c0 = base(p)
        for order in ([0, 1, 2], [2, 1, 0]):
            found = greedy(groups(p), p.lower, p.upper, order, joint=joint, block=k)
            sound(p, found)
            asked = [i for i in order if p.lower[i] > c0[i] or p.upper[i] < c0[i]]
            if not asked:
                continue
            # The first alone, the others held where the base meets them, from the exact programme.
            first = asked[0]
            only = np.arange(3) == first
            whole = replace(subsets(p, k), lower=p.lower, upper=p.upper) if k else p
            held = relaxed(whole, 0.0)
            alone = replace(
                held, lower=np.where(only, p.lower, held.lower), upper=np.where(only, p.upper, held.upper)
            )
            up = p.lower[first] > c0[first]
            want = (p.lower if up else p.upper)[first] - c0[first]
            got = (found.lower if up else found.upper)[first] - c0[first]
            reach = bisected(alone)
            part = 1 if reach == 1 or len(asked) == 1 else ROOM
            back = found.inside / abs(want / spread(p)[first])
            assert part * reach - 1.01 * back - 1e-5 <= got / want <= part * reach + 1e-5


def test_greedy_within_a_budget() -> None:
    for seed in range(8):
        p = wild(seed, joint=False)
        found = greedy(groups(p), p.lower, p.upper, [0, 1, 2], kl=0.1)
        sound(p, found)
        assert found.optimum.kl <= 0.1 * (1 + 1e-8)


# ---- nearest


def edge_projection(points: Float, target: Float) -> Float:
    """The point nearest to `target` with no coordinate more counted than missing, over a fine grid of a polygon."""
    from scipy.spatial import ConvexHull

    hull = points[ConvexHull(points).vertices]
    share = np.linspace(0, 1, 20001)[:, None]
    edges = [a + share * (b - a) for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True)]
    all_points = np.concatenate(edges)
    short = np.maximum(target - all_points, 0)
    return short[(short**2).sum(axis=1).argmin()]


def test_nearest_on_polygons() -> None:
    for seed in range(10):
        rng = np.random.default_rng([11, seed])
        points = rng.normal(size=(8, 2))
        p = oracles.problem(points, [8], rng.uniform(0.5, 2.5, size=2))
        if oracles.distance(p) > 0:
            continue
        unit = spread(p)
        found = nearest(groups(p), p.lower, p.upper)
        short = edge_projection(points / unit, p.lower / unit)
        assert (p.lower - found.lower) / unit == pytest.approx(short, abs=2e-4)


@pytest.mark.extra("cvxpy", "clarabel")
@pytest.mark.parametrize(("joint", "k"), [(False, None), (True, None), (False, 2)])
def test_nearest_is_that_of_a_quadratic_programme(joint: bool, k: int | None) -> None:
    import cvxpy as cp

    for seed in range(6):
        p = wild(seed, joint=joint)
        unit, whole = spread(p), subsets(p, k) if k else p
        w = cp.Variable(len(whole.values), nonneg=True)
        mass = whole.share[whole.group].astype(float)
        level = (mass[:, None] * (whole.values - base(p)) / unit).T @ w
        low, high = (p.lower - base(p)) / unit, (p.upper - base(p)) / unit
        parts = [cp.sum_squares(cp.pos(low[i] - level[i])) for i in range(3) if np.isfinite(low[i])]
        parts += [cp.sum_squares(cp.pos(level[i] - high[i])) for i in range(3) if np.isfinite(high[i])]
        sums = [cp.sum(w[np.flatnonzero(whole.group == g)]) == 1 for g in range(len(whole.share))]
        model = cp.Problem(cp.Minimize(sum(parts)), sums)
        model.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        at = np.asarray(level.value)
        found = nearest(groups(p), p.lower, p.upper, joint=joint, block=k)
        lower, upper = np.where(at < low, at, low), np.where(at > high, at, high)
        room = 3e-6 + 2 * found.inside
        has = np.isfinite(p.lower)
        assert ((found.lower - base(p)) / unit)[has] == pytest.approx(lower[has], abs=room), seed
        has = np.isfinite(p.upper)
        assert ((found.upper - base(p)) / unit)[has] == pytest.approx(upper[has], abs=room), seed
        sound(p, found)


def test_how_far_the_nearest_has_gone() -> None:
    # From (1/3, 1/3); the second is asked to fall, an equality above reach counts at its lower end.
    p = oracles.problem(TRIANGLE, [3], [4 / 3, -INF], [4 / 3, -1.0])
    found = nearest(groups(p), p.lower, p.upper)
    assert found.rho == pytest.approx(min(2 / 3 / 1, 1 / 3 / (4 / 3)), abs=1e-5)
    assert found.lower[0] == pytest.approx(1.0, abs=1e-5)
    assert found.upper == pytest.approx([4 / 3, 0.0], abs=1e-5)


def test_nearest_within_a_budget_is_nearer_than_the_way_there() -> None:
    for seed in range(8):
        p = wild(seed, joint=False)
        unit = spread(p)

        def missing(found: Adjustment, p: Problem = p, unit: Float = unit) -> float:
            has_lower, has_upper = np.isfinite(p.lower), np.isfinite(p.upper)
            low = np.subtract(p.lower, found.lower, where=has_lower, out=np.zeros(3))
            high = np.subtract(found.upper, p.upper, where=has_upper, out=np.zeros(3))
            return float(np.linalg.norm(np.concatenate([low, high]) / np.tile(unit, 2)))

        near = nearest(groups(p), p.lower, p.upper, kl=0.15)
        sound(p, near)
        assert near.optimum.kl <= 0.15 * (1 + 1e-8)
        assert missing(near) <= missing(interpolate(groups(p), p.lower, p.upper, kl=0.15)) + 1e-6
        assert missing(near) >= missing(nearest(groups(p), p.lower, p.upper)) - 1e-5


# ---- as high as possible


@pytest.mark.parametrize(("joint", "k"), [(False, None), (True, None), (False, 3)])
def test_the_highest_within_a_budget(joint: bool, k: int | None) -> None:
    for seed in range(3):
        p = wild(seed, joint=joint, prompts=12)
        c0, unit = base(p), spread(p)
        lower = np.array([-INF, c0[1] + 0.1 * unit[1], -INF])
        upper = np.array([INF, INF, c0[2]])
        got = highest(groups(p), lower, upper, [0], 0.3, joint=joint, block=k)
        assert np.array_equal(got[1:], lower[1:])
        kwargs: dict[str, Any] = {"joint": joint, "block": k}
        at = optimise(groups(p), got, upper, **kwargs)
        assert at.status is Status.OPTIMAL
        assert at.kl == pytest.approx(0.3, abs=1e-7)
        # The next two share: the first keeps most of what it could gain, the last takes what is left.
        both = highest(groups(p), np.array([-INF, lower[1], -INF]), np.full(3, INF), [0, 2], 0.3, **kwargs)
        at = optimise(groups(p), both, np.full(3, INF), **kwargs)
        assert at.kl == pytest.approx(0.3, abs=1e-7)
        assert (both[[0, 2]] > c0[[0, 2]] - unit[[0, 2]]).all()


def test_without_room_nothing_is_raised() -> None:
    p = oracles.problem(TRIANGLE, [3], [0.9, -INF])
    spent = highest(groups(p), p.lower, p.upper, [1], 0.05)
    assert np.array_equal(spent, p.lower)
    beyond = highest(groups(p), np.array([1.5, -INF]), p.upper, [1], 5.0)
    assert np.array_equal(beyond, [1.5, -INF])
    # A budget that no level exhausts: to the edge of reach, just inside.
    edge = highest(groups(p), np.array([0.5, -INF]), p.upper, [1], 50.0)
    assert edge == pytest.approx([0.5, 0.5], abs=2e-6)
    assert optimise(groups(p), edge, p.upper).status is Status.OPTIMAL


@pytest.mark.parametrize("seed", range(12))
def test_the_highest_does_not_trust_the_blocks(seed: int) -> None:
    """Of skewed values random blocks of k may hold more than k candidates reach on average; a budget may not buy it."""
    values = np.exp(2 * np.random.default_rng(seed).normal(size=(35, 1)))
    on = Groups(values, np.arange(0, 36, 7), np.full(5, 0.2))
    lower = highest(on, np.array([-INF]), np.array([INF]), [0], np.log(4), block=4)
    assert lower[0] < on.weights @ prompt_support(on, np.ones(1), 4)
    assert optimise(on, lower, np.array([INF]), block=4).status is Status.OPTIMAL
