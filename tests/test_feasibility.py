from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import oracles
from oracles import Problem, problem, spread, subsets, tilt
from problems import asked as random_palette
from problems import at_margin, groups, lattice, many, pilot
from valuepalette import feasibility
from valuepalette.feasibility import Stretch, Support
from valuepalette.laying import tilted
from valuepalette.tilting import Tilted

INF = np.inf


def source(p: Problem) -> Tilted:
    return tilted(groups(p), spread(p), joint=p.joint)


def support_of(p: Problem, k: int | None = None) -> Support:
    data = source(p)
    return data.support if k is None else lambda d: data.subset_support(d, k)


def standard(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    base, unit = tilt(p, np.zeros(p.features)).levels, spread(p)
    return ((p.lower - base) / unit).astype(float), ((p.upper - base) / unit).astype(float)


def proves(
    p: Problem, found: Stretch, rise_lower: np.ndarray, rise_upper: np.ndarray, slack: float = 1e-9
) -> None:
    """Both ends of the bracket, by hand: the point meets the bounds, the direction forbids more."""
    lower, upper = standard(p)
    low, high = lower + found.low * rise_lower, upper + found.low * rise_upper
    assert np.all(found.point >= low - slack)
    assert np.all(found.point <= high + slack)
    if np.any(np.abs((upper - lower) / 2 - found.high) < 1e-6):
        return  # an interval is in its own way: its two ends pull against each other, whatever the pilot
    d = found.direction
    asks = sum(x * (lower[i] if x > 0 else upper[i]) for i, x in enumerate(d) if x)
    rises = sum(x * (rise_lower[i] if x > 0 else rise_upper[i]) for i, x in enumerate(d) if x)
    assert rises == pytest.approx(1.0, abs=1e-9)
    assert source(p).support(d)[0] - asks == pytest.approx(found.high, abs=1e-9)


def finite(make: Callable[[np.random.Generator], Problem], seed: int, count: int) -> list[Problem]:
    """Problems whose margin is a number."""
    drawn = [make(rng) for rng in many(seed, count)]
    return [p for p in drawn if np.isfinite(oracles.margin(p))]


def test_the_margin_of_one_value_by_hand() -> None:
    p = problem([0.0, 1.0, 0.0, 3.0], [2, 2], [1.5])  # reach 2, deviation sqrt((1/4 + 9/4) / 2)
    found = feasibility.margin(support_of(p), *standard(p), gap=1e-12)
    assert found.low == pytest.approx(0.5 / np.sqrt(1.25))
    assert found.high == pytest.approx(0.5 / np.sqrt(1.25))
    assert found.direction == pytest.approx([1.0])


def test_the_margin_is_that_of_the_linear_programme() -> None:
    for p in finite(random_palette, 41, 150):
        found = feasibility.margin(support_of(p), *standard(p))
        want = oracles.margin(p)
        assert found.low - 1e-9 <= want <= found.high + 1e-9
        assert found.high - found.low <= 1e-6
        slack = np.where(p.lower == p.upper, 0.0, 1.0)
        proves(p, found, slack, -slack)


def test_the_margin_without_inequalities() -> None:
    for rng in many(42, 30):
        p = pilot(rng)
        level = tilt(p, rng.normal(size=p.features) / spread(p)).levels.astype(float)
        had = replace(p, lower=level, upper=level)
        assert feasibility.margin(support_of(had), *standard(had)).low == INF
        far = level + 100 * np.abs(level) + 100 * np.ptp(p.values, axis=0)
        lost = replace(p, lower=far, upper=far)
        found = feasibility.margin(support_of(lost), *standard(lost))
        assert found.high == -INF
        lower, _ = standard(lost)
        assert found.direction @ lower > source(lost).support(found.direction)[0]  # and here is the proof


@pytest.mark.parametrize("short", [0.0, 5e-11, 3e-10, 9e-10])
def test_the_margin_where_an_equality_lies_out_of_reach_by_less_than_the_tolerance(short: float) -> None:
    p = problem([[-1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [3], [0.0, 0.0])
    lower, upper = standard(p)
    upper[0] = lower[0] = support_of(p)(np.array([1.0, 0.0]))[0] + short
    found = feasibility.margin(support_of(p), lower, upper)
    assert found.low == pytest.approx((2.0 - 0.0) / spread(p)[1], abs=1e-6)


def test_the_margin_at_k_is_that_of_all_subsets() -> None:
    for rng in many(43, 12):
        p = random_palette(rng, prompts=3, candidates=5, joint=False)
        for k in (2, 3):
            want = oracles.margin(subsets(p, k)), spread(subsets(p, k))
            found = feasibility.margin(support_of(p, k), *standard(p))
            if not np.isfinite(want[0]):
                assert found.low == found.high == want[0]
            elif p.features == 1:
                # One feature: the units differ by a factor only.
                scale = float(want[1][0] / spread(p)[0])
                assert found.low - 1e-9 <= want[0] * scale <= found.high + 1e-9
            elif abs(want[0]) > 1e-5:
                assert (found.low > 0) == (want[0] > 0)


def test_the_distance_gives_equalities_slack_too() -> None:
    for rng in many(44, 80):
        p = random_palette(rng)
        found = feasibility.distance(support_of(p), *standard(p))
        assert found.low - 1e-9 <= oracles.distance(p) <= found.high + 1e-9
        ones = np.ones(p.features)
        proves(p, found, ones, -ones)


def outside(p: Problem) -> bool:
    """Whether the base level fails the palette: elsewhere the gauge has no answer."""
    lower, upper = standard(p)
    return bool(np.any(lower > 1e-6) or np.any(upper < -1e-6))


def test_the_gauge_decides_as_the_linear_programme() -> None:
    seen = {True: 0, False: 0}
    for rng in many(45, 120):
        p = random_palette(rng)
        if not outside(p):
            continue
        want = oracles.gauge(p)
        found = feasibility.gauge(support_of(p), *standard(p))
        assert found.low - 1e-8 <= want <= found.high + 1e-8
        if abs(want) > 1e-8:
            assert (found.low > 0) == (want > 0)
            assert (found.high > 0) == (want > 0)
        seen[want > 0] += 1
    assert min(seen.values()) > 20


def test_the_gauge_finds_the_boundary() -> None:
    for rng in many(46, 40):
        p = lattice(rng, joint=bool(rng.integers(2)))
        found = feasibility.gauge(support_of(p), *standard(p))
        assert abs(found.low) < 1e-9
        assert abs(found.high) < 1e-9


def test_the_gauge_is_positive_exactly_where_an_optimum_exists() -> None:
    """max t with w >= t and the gauge answer one question, by linear programmes that share nothing."""
    for rng in many(47, 60):
        p = random_palette(rng, push=0.0)
        if not outside(p):
            continue
        for target in (1e-5, 0.0, -1e-5):
            try:
                near = at_margin(p, target)
            except ValueError:
                continue
            if not outside(near):
                continue
            found = feasibility.gauge(support_of(near), *standard(near))
            inside = oracles.interior(near)
            if inside > 1e-8:
                assert found.low > 0
            if inside < -1e-6:
                assert found.high < 0


def test_farthest_by_hand() -> None:
    """Outcomes (0,0), (1,0), (1,1): the second value reaches 1, and .4 with the first at most .4."""
    p = problem([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [3], [-INF, -INF], [0.4, INF])
    unit, base = spread(p), np.array([2 / 3, 1 / 3])
    found = feasibility.farthest(
        support_of(p), *standard(p), at=np.zeros(2), along=np.array([0.0, 1.0]), gap=1e-10
    )
    assert base[1] + found.low * unit[1] == pytest.approx(0.4)
    free = feasibility.farthest(
        support_of(p), np.full(2, -INF), np.full(2, INF), at=np.zeros(2), along=np.array([0.0, 1.0])
    )
    assert base[1] + free.low * unit[1] == pytest.approx(1.0)


def test_farthest_where_the_others_lie_on_the_edge() -> None:
    """One feature at the most that can be had leaves the rest no room but what rounding takes."""
    for rng in many(49, 150):
        p = pilot(rng)
        if p.features < 2:
            continue
        low, high = np.full(p.features, -INF), np.full(p.features, INF)
        support = support_of(p)
        units = np.eye(p.features)
        low[0] = support(units[0])[0]
        found = feasibility.farthest(support, low, high, at=np.zeros(p.features), along=units[1])
        assert found.high - found.low <= 2e-6
        assert found.point[0] >= low[0] - 1e-9


def test_farthest_is_that_of_the_linear_programme() -> None:
    lost = 0
    for rng in many(48, 100):
        p = random_palette(rng)
        along = rng.choice([-1.0, 0.0, 0.5, 1.0], size=p.features)
        along[rng.integers(p.features)] = 1.0
        at = 0.1 * rng.normal(size=p.features)
        found = feasibility.farthest(support_of(p), *standard(p), at=at, along=along)
        base, unit = tilt(p, np.zeros(p.features)).levels.astype(float), spread(p)
        raw = base + at * unit
        line = replace(
            p,
            lower=np.where(along > 0, raw, np.where(along < 0, -INF, p.lower)),
            upper=np.where(along < 0, raw, np.where(along > 0, INF, p.upper)),
        )
        want = oracles.farthest(line, along * unit)
        if want == -INF:
            lost += 1
            assert found.high == -INF
            lower, upper = standard(p)
            d = found.direction
            asks = sum(x * (lower[i] if x > 0 else upper[i]) for i, x in enumerate(d) if x)
            assert asks > source(p).support(d)[0]
        else:
            assert found.low - 1e-8 <= want <= found.high + 1e-8
            assert found.high - found.low <= 1e-6
    assert lost > 2


@pytest.mark.parametrize("joint", [False, True])
def test_brackets_close_on_many_prompts(joint: bool) -> None:
    """σ is an average of many kinks in prompt mode: cuts must not stall, nor their number explode."""
    rng = np.random.default_rng(49)
    prompts, candidates, m = 400, 8, 5
    values = rng.normal(size=(prompts * candidates, m)) @ rng.normal(size=(m, m))
    free = np.full(m, INF)
    p = Problem(
        values,
        np.arange(0, len(values) + 1, candidates),
        np.full(prompts, 1 / prompts),
        values.mean(axis=0) + 0.6 * values.std(axis=0),
        free,
        joint=joint,
    )
    calls = 0
    data = source(p)

    def counted(d: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        return data.support(d)

    found = feasibility.margin(counted, *standard(p))
    assert found.high - found.low <= 1e-6
    assert found.low - 1e-9 <= oracles.margin(p) <= found.high + 1e-9
    assert calls <= 200


def test_a_bracket_that_is_moved_is_noticed() -> None:
    """The checks above can fail."""
    p = finite(random_palette, 50, 10)[0]
    found = feasibility.margin(support_of(p), *standard(p))
    slack = np.where(p.lower == p.upper, 0.0, 1.0)
    proves(p, found, slack, -slack)
    with pytest.raises(AssertionError):
        proves(p, replace(found, low=found.low + 1e-4), slack, -slack)
    with pytest.raises(AssertionError):
        proves(p, replace(found, high=found.high - 1e-4), slack, -slack)
