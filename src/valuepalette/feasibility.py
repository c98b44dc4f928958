# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""How far the levels can go: one concave problem in the bounds, enclosed by proofs from both sides.

Bounds move along a line, lower + t·rise_lower ≤ L ≤ upper + t·rise_upper: what is the largest t for which
a reachable level L meets them? The margin of a palette, its certificate, the gauge that decides whether an optimum
exists, and the farthest point in a direction differ in the line alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from valuepalette.grouping import Array

__all__ = ["Stretch", "Support", "distance", "farthest", "gauge", "margin", "stretch"]

_ROUNDING = 1e-12

Support = Callable[[Array], tuple[float, Array]]
"""d -> (σ(d), a reachable point that attains it)."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The largest t, enclosed.

    low        a t that is had: `point` proves it
    high       no t above this can be had: `direction` proves it
    point      a reachable level that meets the bounds at `low`, shape (m,)
    direction  d = d⁺ − d⁻ with high = σ(d) − d⁺ᵀlower + d⁻ᵀupper and d⁺ᵀrise_lower − d⁻ᵀrise_upper = 1
    points     every reachable point met on the way, shape (calls, m)
    """

    low: float
    high: float
    point: Array
    direction: Array
    points: Array


def stretch(
    support: Support,
    lower: Array,
    upper: Array,
    rise_lower: Array,
    rise_upper: Array,
    points: Array,
    *,
    gap: float = 1e-6,
    below: float = -np.inf,
    above: float = np.inf,
    max_calls: int = 200,
) -> Stretch:
    """max t : lower + t·rise_lower ≤ L ≤ upper + t·rise_upper, L reachable; by column generation.

    The master is a linear programme over mixtures of the reachable `points` (c, m), some mixture of which has
    to meet the bounds at some t; its multipliers are a direction d, and σ(d) bounds t from above and yields the next
    point. Directions are first tried half way to the best so far, which damps the zigzag of many kinks. Stops
    when high − low ≤ gap, low > above, high < below, or after `max_calls` calls of `support`. Both ends are +∞ on
    a line that tightens nothing.
    """
    low, high = -np.inf, np.inf
    point, best = points[0], np.zeros((2, len(lower)))
    calls = 0
    while True:
        low, point, multipliers = _master(points, lower, upper, rise_lower, rise_upper)
        if low == np.inf:
            high = np.inf
            break
        if high - low <= gap or low > above or high < below or calls >= max_calls:
            break
        trials = [multipliers] if not np.isfinite(high) else [(multipliers + best) / 2, multipliers]
        found: list[Array] = []
        improved = False
        for plus, minus in trials:
            value, corner = support(plus - minus)
            calls += 1
            found.append(corner)
            rise = _demand(plus, minus, rise_lower, rise_upper)
            bound = (value - _demand(plus, minus, lower, upper)) / rise
            if bound < high:
                high, best, improved = bound, np.stack([plus, minus]) / rise, True
                break
        fresh = np.array(found)
        known = (np.abs(fresh[:, None] - points[None]).max(axis=2) <= 1e-14).any(axis=1)
        if known.all() and not improved:
            break
        points = np.concatenate([points, fresh[~known]])
    return Stretch(low, high, point, best[0] - best[1], points)


def _demand(plus: Array, minus: Array, lower: Array, upper: Array) -> float:
    """d⁺ᵀlower − d⁻ᵀupper, over the bounds that are there."""
    return float(plus[plus > 0] @ lower[plus > 0] - minus[minus > 0] @ upper[minus > 0])


def _master(
    points: Array, lower: Array, upper: Array, rise_lower: Array, rise_upper: Array
) -> tuple[float, Array, Array]:
    """The best t over mixtures of `points`, the mixture, and the multipliers (2, m) of its bounds."""
    has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
    equal = (lower == upper) & (rise_lower == rise_upper)
    has_lower, has_upper = has_lower & ~equal, has_upper & ~equal
    columns = points.T
    A_ub = np.concatenate(
        [
            np.column_stack([-columns[has_lower], rise_lower[has_lower]]),
            np.column_stack([columns[has_upper], -rise_upper[has_upper]]),
        ]
    )
    b_ub = np.concatenate([-lower[has_lower], upper[has_upper]])
    mixture = np.append(np.ones(len(points)), 0.0)[None]
    A_eq = np.concatenate([mixture, np.column_stack([columns[equal], -rise_lower[equal]])])
    b_eq = np.append(1.0, lower[equal])
    cost = np.append(np.zeros(len(points)), -1.0)
    bounds = [(0.0, None)] * len(points) + [(None, None)]
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    answer = linprog(cost, A_ub, b_ub, A_eq, b_eq, bounds, method="highs", options=options)
    if answer.status == 3:
        return np.inf, points[0], np.zeros((2, len(lower)))
    if answer.x is None:
        raise ValueError(
            "points must have a mixture that meets the bounds somewhere along the line, got none"
        )
    multipliers = np.zeros((2, len(lower)))
    side = -np.asarray(answer.ineqlin.marginals, dtype=float)
    multipliers[0, has_lower] = side[: has_lower.sum()]
    multipliers[1, has_upper] = side[has_lower.sum() :]
    pull = np.asarray(answer.eqlin.marginals, dtype=float)[1:]
    # d of an equality row: raising its right-hand side lowers t where d > 0, and the programme minimises −t.
    multipliers[0, equal], multipliers[1, equal] = np.maximum(pull, 0), np.maximum(-pull, 0)
    share = np.asarray(answer.x[:-1], dtype=float)
    return float(answer.x[-1]), share @ points, np.maximum(multipliers, 0)


def _start(support: Support, lower: Array, upper: Array, points: Array | None) -> Array:
    """Reachable points to begin with: the base, each bound's own extreme, and those already known."""
    m = len(lower)
    extremes: list[Array] = [np.zeros(m)]
    for i in np.flatnonzero(np.isfinite(lower) | np.isfinite(upper)):
        unit = np.zeros(m)
        unit[i] = 1.0
        extremes += [
            support(sign * unit)[1] for sign in (1, -1) if np.isfinite(lower[i] if sign > 0 else upper[i])
        ]
    known = np.array(extremes)
    return known if points is None else np.concatenate([known, points])


def distance(
    support: Support,
    lower: Array,
    upper: Array,
    points: Array | None = None,
    *,
    gap: float = 1e-6,
    above: float = np.inf,
) -> Stretch:
    """The largest common slack t, lower + t ≤ L ≤ upper − t, equalities included; ‖direction‖₁ = 1.

    Below zero the palette cannot be had, and the direction is its sharpest certificate: asked − reach = −high.
    """
    rise = np.ones(len(lower))
    points = _start(support, lower, upper, points)
    return stretch(support, lower, upper, rise, -rise, points, gap=gap, above=above)


def margin(support: Support, lower: Array, upper: Array, *, gap: float = 1e-6) -> Stretch:
    """s* of MATH 4: the largest common slack of the inequalities, equalities met exactly.

    +∞ without inequalities, −∞ (with the direction that proves it) if the equalities cannot be had.
    """
    equal = lower == upper
    if not equal.any():
        return distance(support, lower, upper, gap=gap)
    slack = distance(
        support,
        np.where(equal, lower, -np.inf),
        np.where(equal, upper, np.inf),
        gap=min(gap, 1e-10),
        above=-1e-11,
    )
    if slack.high < -1e-9:
        return Stretch(-np.inf, -np.inf, slack.point, slack.direction, slack.points)
    if not (np.isfinite(lower) | np.isfinite(upper))[~equal].any():
        return Stretch(np.inf, np.inf, slack.point, slack.direction, slack.points)
    # What the equalities lack within that tolerance, and the programme's own, they are given: or no mixture might meet
    # them.
    ease = np.where(equal, max(-slack.low, 0.0) + 1e-10, 0.0)
    lower, upper = lower - ease, upper + ease
    rise = np.where(equal, 0.0, 1.0)
    points = _start(support, lower, upper, slack.points)
    return stretch(support, lower, upper, rise, -rise, points, gap=gap)


def gauge(support: Support, lower: Array, upper: Array, points: Array | None = None) -> Stretch:
    """t = ρ − 1 for the largest ρ with ρ·lower ≤ L ≤ ρ·upper reachable; the base is at 0, outside the palette.

    An optimal λ exists if and only if ρ > 1: then the palette holds a mixture of the base, where every
    candidate has weight, and a reachable level. ρ = 1 is the boundary, and ρ < 1 cannot be had. Equalities,
    implied or asked, need no case of their own. Decides the sign of t to 1e-9; at zero it goes on until the
    direction is exact.
    """

    def enclose(points: Array, gap: float) -> Stretch:
        return stretch(
            support, lower, upper, lower, upper, points, gap=gap, below=-1e-9, above=1e-9, max_calls=1000
        )

    found = enclose(_start(support, lower, upper, points), 1e-10)
    return enclose(found.points, 1e-14) if abs(found.low) <= 1e-9 and abs(found.high) <= 1e-9 else found


def farthest(
    support: Support, lower: Array, upper: Array, at: Array, along: Array, *, gap: float = 1e-6
) -> Stretch:
    """max t such that at + t·along is reachable where `along` is not zero, the bounds held elsewhere.

    Where along_i > 0 the level must be at least at_i + t·along_i, where along_i < 0 at most; where it is zero,
    lower_i ≤ L_i ≤ upper_i. −∞, with the direction that proves it, if these others cannot be had.
    """
    moving = along != 0
    lower = np.where(moving, np.where(along > 0, at, -np.inf), lower)
    upper = np.where(moving, np.where(along < 0, at, np.inf), upper)
    held = distance(
        support, np.where(moving, -np.inf, lower), np.where(moving, np.inf, upper), gap=1e-10, above=1e-9
    )
    if held.high < -1e-9:
        return Stretch(-np.inf, -np.inf, held.point, held.direction, held.points)
    # On the edge of what can be had the others leave the programmes no room but what rounding takes.
    ease = np.where(moving, 0.0, max(_ROUNDING, -held.low))
    lower, upper = lower - ease, upper + ease
    points = np.concatenate([_start(support, lower, upper, held.points), held.point[None]])
    return stretch(support, lower, upper, along, along, points, gap=gap)
