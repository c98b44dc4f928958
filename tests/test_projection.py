"""The nearest reachable level, and what a budget of KL buys, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from problems import groups, pilot
from valuepalette.laying import tilted
from valuepalette.newton import maximise
from valuepalette.projection import approach, project, within_budget
from valuepalette.tilting import Tilted, spread

Float = NDArray[np.float64]
INF = np.inf


def ball(direction: Float) -> tuple[float, Float]:
    """All within 1 of the origin."""
    size = float(np.linalg.norm(direction))
    return size, direction / size if size else np.zeros_like(direction)


def test_the_nearest_point_of_a_ball() -> None:
    # Three times as far away as the ball reaches, along (1, 2, 2) / 3; the second from above.
    lower, upper = np.array([1.0, -INF, 2.0, -INF]), np.array([INF, -2.0, INF, INF])
    missing, points = project(ball, lower, upper)
    assert missing == pytest.approx([2 / 3, -4 / 3, 4 / 3, 0.0], abs=1e-6)
    assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-12
    # A bound that is met pulls at nothing, and intervals count at the end that is missed.
    missing, _ = project(ball, np.array([-1.0, 2.0, -0.5]), np.array([INF, 3.0, 0.5]))
    assert missing == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_nothing_is_missing_within_reach() -> None:
    missing, _ = project(ball, np.array([0.5, 0.5]), np.array([INF, 0.5]))
    assert not missing.any()


def test_what_is_missing_is_a_certificate() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        corners = rng.normal(size=(12, 3))

        def hull(direction: Float, corners: Float = corners) -> tuple[float, Float]:
            best = int((corners @ direction).argmax())
            return float(corners[best] @ direction), corners[best]

        centre = 3 * rng.normal(size=3)
        lower, upper = centre - rng.uniform(0, 1, size=3), centre + rng.uniform(0, 1, size=3)
        lower[rng.random(3) < 0.3] = -INF
        upper[rng.random(3) < 0.3] = INF
        missing, _ = project(hull, lower, upper)
        if missing.any():
            asks = np.where(missing > 0, lower, np.where(missing < 0, upper, 0.0)) @ missing
            assert asks - hull(missing)[0] == pytest.approx(missing @ missing, abs=1e-9)


def test_points_next_to_the_end_of_a_line() -> None:
    zero, ask = np.zeros(2), np.array([1.5, 2.0])
    points = approach(ball, zero, np.full(2, INF), ask, zero, zero[None])
    assert len(points) < 30
    # The line ends at (.6, .8), where the ball's normal is (.6, .8) too.
    assert (points @ [0.6, 0.8]).max() > 1 - 1e-9


def source(seed: int) -> Tilted:
    made = groups(
        pilot(np.random.default_rng(seed), shape="normal", prompts=10, candidates=6, features=3, joint=False)
    )
    return tilted(made, spread(made, joint=False))


def test_a_budget_on_two_outcomes() -> None:
    def excess(x: float) -> float:
        return float(np.log(2) + x * np.log(x) + (1 - x) * np.log(1 - x) - 0.3)

    two = tilted(groups(_coin()), np.array([0.5]))
    value, point = within_budget(two, 0.3)(np.array([2.0]))
    level = (brentq(excess, 0.5, 1 - 1e-12) - 0.5) / 0.5
    assert (value, point[0]) == pytest.approx((2 * level, level), abs=1e-9)
    # More than it takes to go all the way.
    value, point = within_budget(two, 5.0)(np.array([2.0]))
    assert (value, point[0]) == pytest.approx((2.0, 1.0), abs=1e-9)
    assert within_budget(two, 5.0)(np.array([0.0])) == (0.0, np.zeros(1))


def _coin():
    from oracles import problem

    return problem([0.0, 1.0], [2], [-INF])


def test_a_budget_costs_what_it_says() -> None:
    at, rng = source(8), np.random.default_rng(8)
    for kl in (1e-4, 0.1, 0.5):
        for _ in range(5):
            direction = rng.normal(size=3)
            value, point = within_budget(at, kl)(direction)
            assert value == pytest.approx(direction @ point, abs=1e-9)
            # The cheapest way to exactly this point costs the budget.
            found = maximise(at, point, point)
            cost = found.weights @ found.tilt.levels - found.tilt.log_partition
            assert cost == pytest.approx(kl, rel=1e-6)
            assert value <= at.support(direction)[0]
