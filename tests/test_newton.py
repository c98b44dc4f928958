from __future__ import annotations

import numpy as np
import pytest

from oracles import Problem, spread, tilt, violation
from problems import asked as random_palette
from problems import at_margin, groups, lattice, many, planted
from valuepalette.laying import tilted
from valuepalette.newton import Iterate, asked, maximise, residuals, separation

INF = np.inf


def standard(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The bounds as levels over the base, in standard deviations."""
    base, unit = tilt(p, np.zeros(p.features)).levels, spread(p)
    return ((p.lower - base) / unit).astype(float), ((p.upper - base) / unit).astype(float)


def run(p: Problem, **options: float) -> Iterate:
    lower, upper = standard(p)
    return maximise(tilted(groups(p), spread(p), joint=p.joint), lower, upper, **options)  # type: ignore[arg-type]


def test_what_the_bounds_ask_by_hand() -> None:
    lower, upper = np.array([1.0, -INF, 3.0]), np.array([INF, 2.0, 3.0])
    assert asked(np.array([2.0, -1.0, -1.0]), lower, upper) == 2 * 1 - 2 - 3
    assert asked(np.array([0.0, 0.0, 0.0]), lower, upper) == 0
    assert asked(np.array([-1.0, 0.0, 0.0]), lower, upper) == -INF  # leans on a bound that is not there
    assert separation(np.array([2.0, -1.0, -1.0]), -5.0, lower, upper) == (-3 + 5) / 4
    assert separation(np.zeros(3), 0.0, lower, upper) == -INF


def test_residuals_by_hand() -> None:
    lower, upper = np.array([1.0, 1.0, -INF, 0.0, 2.0]), np.array([INF, INF, 1.0, 3.0, 2.0])
    levels = np.array([1.5, 0.5, 1.5, 1.0, 2.5])
    assert residuals(np.zeros(5), levels, lower, upper) == pytest.approx([0, 0.5, -0.5, 0, -0.5])
    pulled = residuals(np.array([1.0, 1.0, -1.0, -1.0, 1.0]), levels, lower, upper)
    assert pulled == pytest.approx([-0.5, 0.5, -0.5, 2.0, -0.5])


def test_the_logistic_function_is_inverted() -> None:
    p = Problem(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1), np.array([0.8]), np.array([INF]))
    found = run(p)
    assert found.weights / spread(p) == pytest.approx([np.log(4.0)])
    assert found.kkt <= 1e-9


def test_planted_weights_are_found_from_cold() -> None:
    passes = []
    for rng in many(31, 250):
        case = planted(rng)
        found = run(case.problem)
        assert found.kkt <= 1e-9, case.problem.note
        weights = found.weights / spread(case.problem)
        assert violation(case.problem, weights) < 2e-9
        # Zero is exactly zero, but for an equality that happens to hold at no weight.
        loose = case.problem.lower != case.problem.upper
        assert np.array_equal(np.sign(weights)[loose], np.sign(case.weights)[loose])
        passes.append(found.passes)
    assert np.median(passes) <= 7
    assert max(passes) <= 30


def test_zero_weights_are_exactly_zero_and_cost_one_pass() -> None:
    for rng in many(32, 30):
        p = random_palette(rng)
        base = tilt(p, np.zeros(p.features)).levels.astype(float)
        unit = spread(p)
        met = Problem(p.values, p.starts, p.weights, base - 0.1 * unit, base + 0.1 * unit, joint=p.joint)
        found = run(met)
        assert np.array_equal(found.weights, np.zeros(p.features))
        assert found.passes == 1


@pytest.mark.parametrize("shape", ["skewed", "outliers", "heavy"])
def test_outliers_do_not_stall(shape: str) -> None:
    """A step along an outlier must not leave every weight but one underflown, with no way back."""
    for rng in many(33, 60):
        case = planted(rng, shape=shape, heat=float(rng.choice([1.0, 3.0, 10.0])))
        found = run(case.problem)
        # Where the answer itself lies beyond what doubles can tell apart from a boundary, 1e-9 still holds.
        assert found.kkt <= 1e-9
        assert found.passes <= 60


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    for rng in many(34, 40):
        case = planted(rng, heat=1.0)
        p, unit = case.problem, spread(case.problem)
        lower, upper = standard(p)
        data = tilted(groups(p), unit, joint=p.joint)
        cold = maximise(data, lower, upper)
        warm = maximise(data, lower, upper, start=cold.weights)
        assert warm.passes == 1
        near = maximise(data, lower, upper, start=cold.weights * 1.01)
        assert near.kkt <= 1e-9
        assert near.weights == pytest.approx(cold.weights, abs=1e-5)


def test_passes_grow_slowly_towards_the_boundary() -> None:
    most: dict[float, list[int]] = {}
    for rng in many(35, 40):
        p = random_palette(rng, push=0.0)
        for target in (1e-2, 1e-4, 1e-6):
            try:
                near = at_margin(p, target)
            except ValueError:
                continue
            most.setdefault(target, []).append(run(near).passes)
    assert np.median(most[1e-2]) <= 12
    assert np.median(most[1e-4]) <= 18
    assert np.median(most[1e-6]) <= 25


def test_an_impossible_palette_separates() -> None:
    seen = 0
    for rng in many(36, 60):
        try:
            p = at_margin(random_palette(rng), -0.05)
        except ValueError:
            continue
        found = run(p)
        lower, upper = standard(p)
        gap = separation(found.weights, found.tilt.support, lower, upper)
        assert gap > 1e-8, p.note
        assert gap <= 0.05 + 1e-6  # no direction proves more than the margin
        seen += 1
    assert seen > 30


def test_on_the_boundary_it_ends_with_large_weights_and_no_verdict() -> None:
    for rng in many(37, 30):
        p = lattice(rng, joint=bool(rng.integers(2)))
        found = run(p)
        assert found.passes <= 60
        assert np.isfinite(found.weights).all()
        assert np.abs(found.weights).sum() > 10 or found.kkt > 1e-9
