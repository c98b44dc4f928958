# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Maximise the dual of a palette by Newton steps in a trust region: an iterate, no verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from valuepalette.grouping import Array
from valuepalette.tilting import Source, Tilt

__all__ = ["Iterate", "asked", "maximise", "maximise_in_box", "newton_step", "residuals", "separation"]


@dataclass(frozen=True, slots=True)
class Iterate:
    """Where the maximisation stands.

    weights    λ, shape (m,)
    tilt       the pass at λ
    residuals  by how much stationarity fails, signed; the wrong-signed part where λ_i = 0; shape (m,)
    passes     passes over the data so far
    """

    weights: Array
    tilt: Tilt
    residuals: Array
    passes: int

    @property
    def kkt(self) -> float:
        """The largest residual."""
        return float(np.abs(self.residuals).max(initial=0.0))


def asked(weights: Array, lower: Array, upper: Array) -> float:
    """λ⁺ᵀlower − λ⁻ᵀupper: what the bounds demand of λᵀlevel. An absent bound with weight on it gives −∞."""
    bound = np.where(weights > 0, lower, np.where(weights < 0, upper, 0.0))
    return float(weights @ bound) if np.isfinite(bound).all() else -np.inf


def separation(weights: Array, support: float, lower: Array, upper: Array) -> float:
    """(λ⁺ᵀlower − λ⁻ᵀupper − σ(λ)) / ‖λ‖₁: above zero, λ proves that the palette cannot be had."""
    size = float(np.abs(weights).sum())
    return (asked(weights, lower, upper) - support) / size if size > 0 else -np.inf


def residuals(weights: Array, levels: Array, lower: Array, upper: Array) -> Array:
    """The gradient of the dual, its harmless part left out, shape (m,).

    Where λ_i > 0 the level must equal `lower`, where λ_i < 0 `upper`; where λ_i = 0 it must lie between them.
    """
    below, above = lower - levels, upper - levels
    at_zero = np.where(below > 0, below, np.where(above < 0, above, 0.0))
    return np.where(weights > 0, below, np.where(weights < 0, above, at_zero))


def maximise(
    source: Source,
    lower: Array,
    upper: Array,
    start: Array | None = None,
    *,
    first: Tilt | None = None,
    tol: float = 1e-9,
    max_passes: float = 60,
    max_separation: float = 1e-8,
) -> Iterate:
    """The weights λ that maximise g(λ) = λ⁺ᵀlower − λ⁻ᵀupper − F(λ), as far as `max_passes` go.

    Bounds are levels of the source's features; either end may be infinite, equal ends ask for an equality.
    λ_i is never negative where only `lower` is finite, never positive where only `upper` is, and exactly zero where
    no bound binds. Stops when every residual is at most `tol`, when λ separates the palette from all that is
    reachable by more than `max_separation`, when rounding leaves nothing to gain, or after `max_passes`. `first` is
    the pass at the start, where it is at hand.

    Each step maximises the quadratic model exactly over the sign set cut by a box, the trust region. Without it
    one step along an outlier makes every weight but one vanish, and the Hessian with them.
    """
    weights = np.zeros(source.size) if start is None else start
    at = source.pass_(weights) if first is None else first
    here = Iterate(weights, at, residuals(weights, at.levels, lower, upper), 1)
    value = asked(weights, lower, upper) - at.log_partition
    passes, radius = 1, 2.0
    while here.kkt > tol and passes < max_passes:
        if separation(here.weights, here.tilt.support, lower, upper) > max_separation:
            break
        step, predicted = newton_step(here, lower, upper, radius)
        weights = here.weights + step
        if not np.any(weights != here.weights):
            break
        at = source.pass_(weights)
        passes += 1
        there = Iterate(weights, at, residuals(weights, at.levels, lower, upper), passes)
        value_there = asked(weights, lower, upper) - at.log_partition
        gain = value_there - value
        # Where the gain would drown in rounding, a falling residual decides instead.
        measurable = predicted > 1e-12 * (1 + abs(value) + float(np.abs(weights).sum()))
        accepted = gain > 1e-4 * predicted if measurable else there.kkt < here.kkt
        if measurable and gain > 0.75 * predicted and np.abs(step).max() > 0.9 * radius:
            radius *= 4
        elif not accepted or (measurable and gain < 0.25 * predicted):
            radius = min(radius, float(np.abs(step).max())) / 4
        if accepted:
            here, value = there, value_there
    return Iterate(here.weights, here.tilt, here.residuals, passes)


def newton_step(here: Iterate, lower: Array, upper: Array, radius: float) -> tuple[Array, float]:
    """The maximiser of the quadratic model over the sign set within `radius`, and the gain it predicts."""
    weights, hessian = here.weights, here.tilt.covariance
    # The side whose bound acts: the sign of λ_i, at zero the sign that the residual asks for, at rest the only bound's.
    side = np.sign(np.where(weights != 0, weights, here.residuals))
    side = np.where(side != 0, side, np.isinf(upper) * 1.0 - np.isinf(lower))
    free = lower == upper
    slope = np.where(side > 0, lower, upper) - here.tilt.levels
    low = np.where(free | (side < 0), -radius, np.maximum(-radius, -weights))
    high = np.where(free | (side > 0), radius, np.minimum(radius, -weights))
    still = (side == 0) & ~free
    slope[still] = low[still] = high[still] = 0.0
    step = maximise_in_box(hessian, slope, low, high)
    return step, float(slope @ step - 0.5 * step @ hessian @ step)


def maximise_in_box(hessian: Array, slope: Array, low: Array, high: Array) -> Array:
    """argmax slopeᵀp − ½ pᵀHp over low ≤ p ≤ high around 0, by a primal active set; H may be singular."""
    m = len(slope)
    unit = np.sqrt(hessian.diagonal())
    unit = np.where(unit > 0, unit, 1.0)
    H = hessian / (unit[:, None] * unit)
    H.flat[:: m + 1] += 1e-13
    slope, bottom, top = slope / unit, low * unit, high * unit
    p, pull = np.zeros(m), slope
    held = ((low == 0) & (slope <= 0)) | ((high == 0) & (slope >= 0))
    for _ in range(10 * m + 10):
        move = np.flatnonzero(~held)
        if len(move):
            here, step = p[move], np.linalg.solve(H[move[:, None], move], pull[move])
            bound = np.where(step > 0, top[move], bottom[move])
            beyond = np.abs(step) > np.abs(bound - here)
            if beyond.any():
                # As far as the first bound, which then holds.
                length = np.divide(bound - here, step, out=np.full(len(move), np.inf), where=beyond)
                first = int(length.argmin())
                p[move] = here + length[first] * step
                p[move[first]] = bound[first]
                held[move[first]] = True
                pull = slope - H @ p
                continue
            p[move] = here + step
            pull = slope - H @ p
        wrong = held & (low < high) & np.where(p == top, pull < 0, pull > 0)
        if not wrong.any() or np.abs(pull[wrong]).max() <= 1e-15 * (1 + np.abs(slope).max()):
            break
        held[int(np.where(wrong, np.abs(pull), -1.0).argmax())] = False
    # A weight that reaches its bound at zero lands on it exactly, not within rounding.
    return np.where(p == bottom, low, np.where(p == top, high, p / unit))
