# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""The reachable level nearest to a box of bounds, and what can be had within a budget of KL.

Both speak of a convex set through its support function alone, as the column generation of `feasibility` does.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from valuepalette.feasibility import Support
from valuepalette.grouping import Array
from valuepalette.tilting import Source

__all__ = ["approach", "project", "within_budget"]


def project(
    support: Support,
    lower: Array,
    upper: Array,
    points: Array | None = None,
    *,
    gap: float = 1e-6,
    share: float = 0.0,
    max_calls: int = 1000,
) -> tuple[Array, Array]:
    """What is missing, y − L, where reachable L and lower ≤ y ≤ upper are nearest in the 2-norm; shape (m,).

    Zero if the bounds can be had. Else it is a direction that proves they cannot: σ(y − L) falls short of what they
    ask of it by ‖y − L‖². Accurate to `gap`, or where ‖y − L‖² is known to a part `share` of itself. Also all
    reachable points met, those given in `points` (c, m) first.

    Fully corrective Frank-Wolfe: the least-norm element of {y − L} among mixtures of the corners met so far, where
    a bound without an opposite is a ray; a corner that gains less than gap²/2 ends it.
    """
    asked = np.flatnonzero(np.isfinite(lower) | np.isfinite(upper))
    low, high = lower[asked], upper[asked]
    one_sided, has_lower = np.isinf(low) | np.isinf(high), np.isfinite(low)
    rays = np.eye(len(asked))[:, one_sided] * np.where(has_lower, 1.0, -1.0)[one_sided]
    only = np.where(has_lower, low, high)
    points = np.zeros((0, len(lower))) if points is None else points
    # Of a two-sided bound either end may meet a point: the nearer one to begin with.
    corners = np.where(one_sided, only, np.clip(points[:, asked], low, high)) - points[:, asked]
    missing = np.zeros(len(lower))
    # Only the end that exists can be missed; rounding may say otherwise.
    least, most = np.where(np.isfinite(high), -np.inf, 0.0), np.where(has_lower, np.inf, 0.0)
    missing[asked] = (
        np.clip(_least_norm(corners, rays), least, most) if len(corners) else np.clip(0.0, low, high)
    )
    for _ in range(max_calls):
        size = float(np.linalg.norm(missing))
        if size <= gap:
            return np.zeros(len(lower)), points
        point = support(missing / size)[1]
        ends = np.where(one_sided, only, np.where(missing[asked] > 0, low, high))
        corner = ends - point[asked]
        if len(corners) and size**2 - float(missing[asked] @ corner) <= max(gap**2 / 2, share * size**2):
            break
        corners, points = np.concatenate([corners, corner[None]]), np.concatenate([points, point[None]])
        missing = np.zeros(len(lower))
        missing[asked] = np.clip(_least_norm(corners, rays), least, most)
    return missing, points


def approach(
    support: Support,
    lower: Array,
    upper: Array,
    rise_lower: Array,
    rise_upper: Array,
    points: Array,
    *,
    gap: float = 1e-6,
) -> Array:
    """Reachable points near the farthest that bounds on a line can be met, for `feasibility.stretch` to begin with.

    From t = 1 backwards, Newton on the distance of the bounds from all that is reachable: what is missing at t proves
    that no more than the next t can be had.
    """
    t = 1.0
    while True:
        missing, points = project(
            support, lower + t * rise_lower, upper + t * rise_upper, points, gap=gap, share=0.1
        )
        if not missing.any():
            return points
        plus, minus = np.maximum(missing, 0), np.maximum(-missing, 0)
        demand = plus[plus > 0] @ lower[plus > 0] - minus[minus > 0] @ upper[minus > 0]
        rise = float(plus @ rise_lower - minus @ rise_upper)
        if rise <= 0:
            return points
        before, t = t, float(support(missing)[0] - demand) / rise
        if not 0 < t < before:
            return points


def _least_norm(corners: Array, rays: Array) -> Array:
    """The least-norm element of the mixtures of `corners` (c, m) plus the cone of `rays` (m, r).

    min ‖Cw + Ru‖² + unit²(Σw − 1)² over w, u ≥ 0 finds it times the sum of w: without the last row both are free to
    shrink together.
    """
    unit = float(np.linalg.norm(corners, axis=1).min())
    if unit == 0:
        return np.zeros(corners.shape[1])
    ones = np.append(np.full(len(corners), unit), np.zeros(rays.shape[1]))
    matrix = np.concatenate([np.hstack([corners.T, rays]), ones[None]])
    mixture = nnls(matrix, np.append(np.zeros(corners.shape[1]), unit))[0]
    return matrix[:-1] @ mixture / mixture[: len(corners)].sum()


def within_budget(source: Source, budget: float) -> Support:
    """The support function of the levels that cost at most `budget` nats: d -> (max dᵀL, the L that attains it).

    L = ∇F(s·d) with KL(s·d) = budget, and the maximum is min over s of (F(s·d) + budget)/s, an upper bound at any s.
    """

    def support(direction: Array) -> tuple[float, Array]:
        curvature = float(direction @ source.pass_(np.zeros(source.size)).covariance @ direction)
        if curvature <= 0:
            return 0.0, np.zeros(source.size)
        low, high, s = 0.0, np.inf, float(np.sqrt(2 * budget / curvature))
        while True:
            at = source.pass_(s * direction)
            along = float(direction @ at.levels)
            kl = s * along - at.log_partition
            spent = abs(kl - budget) <= 1e-12 * (1 + budget) or (high < np.inf and high - low <= 1e-14 * high)
            if spent or (kl < budget and at.support - s * along <= 1e-12 * abs(at.support)):
                break
            low, high = (s, high) if kl < budget else (low, s)
            # Newton on √KL, which starts as a straight line and flattens where the reach ends.
            slope, root = s * float(direction @ at.covariance @ direction), np.sqrt(max(kl, 0.0))
            top = high if high < np.inf else 8 * s
            trial = s + 2 * root * (np.sqrt(budget) - root) / slope if slope > 0 else top
            s = trial if low < trial < top else (top if high == np.inf else (low + high) / 2)
        return min((at.log_partition + budget) / s, at.support / s), at.levels

    return support
