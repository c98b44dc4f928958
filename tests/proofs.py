"""What a status claims, proved again in raw units and extended precision, with nothing taken on trust."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from oracles import Problem, asked, constant, face, polish, sign_valid, spread, support, tilt, violation
from valuepalette.dual import Optimum, Status

TIGHT = 2e-9
"""The solver's tolerance in standard deviations, and as much again for rounding."""


def check(p: Problem, found: Optimum, tolerance: float = TIGHT) -> None:
    """Raises AssertionError unless everything that `found` says of `p` is true (all candidates, no blocks)."""
    match found.status:
        case Status.OPTIMAL:
            assert not found.faces
            assert found.certificate is None
            assert violation(p, found.weights) <= tolerance, f"{p.note}: not optimal"
            _forward(p, found, np.ones(len(p.values), dtype=bool))
            _error(p, found)
        case Status.BOUNDARY:
            assert found.faces
            assert found.certificate is None
            _boundary(p, found, tolerance)
        case Status.INFEASIBLE:
            certificate(p, found)
        case _:
            raise AssertionError(f"{p.note}: no verdict")


def certificate(p: Problem, found: Optimum) -> None:
    """The direction asks for more than any choice of answers gives."""
    c = found.certificate
    assert c is not None
    if np.any(p.lower > p.upper):
        return
    assert sign_valid(p, c.direction)
    size = np.abs(c.direction) @ np.maximum(spread(p), np.abs(p.values).max(axis=0) * 1e-14)
    asks, reach = asked(p, c.direction), support(p, c.direction)
    assert asks > reach, f"{p.note}: the certificate proves nothing"
    rounding = 1e-9 * size + 1e-13 * np.abs(c.direction) @ np.abs(p.values).max(axis=0)
    assert abs(c.asked - asks) <= rounding
    assert abs(c.reach - reach) <= rounding
    assert abs(c.gap - (asks - reach)) <= rounding
    assert c.gap > 0


def restricted(p: Problem, found: Optimum) -> tuple[Problem, np.ndarray]:
    """The palette and the candidates left after the rounds of a BOUNDARY answer, each round checked."""
    lower, upper = p.lower.copy(), p.upper.copy()
    keep = np.ones(len(p.values), dtype=bool)
    for d in found.faces:
        now = replace(p, lower=lower, upper=upper)
        assert sign_valid(now, d), f"{p.note}: a face leans on a bound that is not there"
        size = np.abs(d) @ spread(p)
        short = abs(asked(now, d) - support(now, d, keep))
        assert short <= 1e-7 * size, f"{p.note}: a face is not at the edge, off by {short / size}"
        further = face(p, d, keep)
        assert further.sum() < keep.sum(), f"{p.note}: a face keeps every candidate"
        keep = further
        bound = np.where(d > 0, lower, upper)
        lower, upper = np.where(d != 0, bound, lower), np.where(d != 0, bound, upper)
    return replace(p, lower=lower, upper=upper), keep


def _boundary(p: Problem, found: Optimum, tolerance: float) -> None:
    reduced, keep = restricted(p, found)
    loose = ~constant(p)
    short = np.maximum(p.lower - found.levels, found.levels - p.upper)[loose] / spread(p)[loose]
    assert short.max() <= 1e-7, f"{p.note}: on the boundary the levels are still those asked for"
    assert violation(reduced, found.weights, keep) <= max(tolerance, 1e-7)
    _forward(p, found, keep)


def _forward(p: Problem, found: Optimum, keep: np.ndarray) -> None:
    """Levels, log-partition, KL, covariance and prompt levels are those of the weights."""
    at = tilt(p, found.weights, keep)
    unit = np.where(constant(p), 1.0, spread(p))
    rounding = 1e-14 * np.abs(p.values).max(axis=0)
    assert np.all(np.abs(found.levels - at.levels) <= 1e-9 * unit + rounding)
    base = tilt(p, np.zeros(p.features)).levels
    assert np.all(np.abs(found.base - base) <= 1e-12 * unit + rounding)
    size = 1 + float(np.abs(found.weights) @ unit)
    assert abs(found.kl - at.kl) <= 1e-10 * size
    scale = np.abs(found.weights) @ np.abs(p.values).max(axis=0)
    assert abs(found.log_partition - at.log_partition) <= 1e-10 * size + 1e-13 * scale
    square = np.outer(unit, unit)
    assert np.all(np.abs(found.covariance - at.covariance) <= 1e-8 * square)
    if not p.joint:
        assert np.all(np.abs(found.prompt_levels - at.group_levels) <= 1e-8 * unit + rounding)
    groups = np.zeros(len(p.share))
    np.add.at(groups, p.group, (at.probabilities**2).astype(float))
    assert abs(found.kish - float(p.share @ (1 / groups))) <= 1e-6 * found.kish


def _error(p: Problem, found: Optimum) -> None:
    """The proved bound on the error of the weights contains the error."""
    proved = np.isfinite(found.error)
    assert np.all(found.error[proved] >= 0)
    active = found.weights != 0
    if not np.any(active & proved):
        return
    unit = spread(p)[active]
    within = tilt(p, found.weights).covariance[np.ix_(active, active)].astype(float) / np.outer(unit, unit)
    if np.linalg.cond(within) > 1e12:
        return  # collinear: there is no one optimum to measure from
    exact = polish(p, found.weights)
    # The reference itself is good to a few units of extended precision, amplified by the conditioning.
    own = 1e-13 * np.abs(exact)
    assert np.all((np.abs(found.weights - exact) <= found.error + own)[proved & active])
