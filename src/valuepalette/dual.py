# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""The weights of a palette, with a verdict: the one place that says whether the levels asked for can be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from valuepalette.feasibility import Support, distance, gauge, margin
from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.newton import Iterate, asked, maximise, maximise_in_box, residuals, separation
from valuepalette.tilting import Pool, Tilt, Tilted, prompt_support, spread

__all__ = [
    "Certificate",
    "Optimum",
    "Status",
    "Verdict",
    "certify",
    "crossing",
    "decide",
    "evaluate_at",
    "levels_by_prompt",
    "optimise",
    "report",
    "standardised",
    "verdict_at",
]

COLLINEAR = 1e-13
"""An eigenvalue of the standardised ∇²F(0) below this is a combination of features that no prompt can move."""


class Status(Enum):
    """The verdict on a palette; the text says what to do."""

    OPTIMAL = "The palette can be had, and these are its weights."
    BOUNDARY = (
        "The palette can just be had: no finite weights reach it, a lexicographic choice does. Use it as it is, "
        "or ask a little less."
    )
    INFEASIBLE = (
        "The palette cannot be had on this pilot; the certificate says why. Ask for less, or raise k."
    )
    NUMERICAL = (
        "The palette can be had, but its weights were not found to full accuracy. Please report this case."
    )


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why a palette cannot be had: asked = d⁺ᵀlower − d⁻ᵀupper lies above reach = max over all choices of dᵀlevel.

    direction  d in raw units, Σ|d_i| = 1, shape (m,)
    asked      what the palette asks dᵀlevel to be at least
    reach      the most that choosing among the candidates can make it
    gap        asked − reach > 0, formed without cancellation
    se         standard error of `reach` over prompts; nan in joint mode, where no such error is to be had
    margin     the common slack that the bounds lack, in within-group standard deviations, to 1 %; negative
    """

    direction: Array
    asked: float
    reach: float
    gap: float
    se: float
    margin: float


@dataclass(frozen=True, slots=True)
class Optimum:
    """The answer to a palette, in the units of the features.

    weights         λ, shape (m,); exactly zero where no bound binds
    levels          E_λ r, shape (m,)
    base            c0 = E_0 r, shape (m,)
    prompt_levels   s_g, shape (N, m); in joint mode levels + the prompt's influence on them
    log_partition   F(λ)
    kl              KL(p_λ ‖ p_0) in nats
    kish            Kish's effective number of candidates per group
    covariance      V = ∇²F(λ), shape (m, m)
    error           proved bound on |λ_i − λ*_i|, shape (m,); nan where nothing is proved, 0 where nothing is asked
    kkt_residual    in standardised units
    passes          passes over the data
    faces           directions of the lexicographic choice, first to last; empty unless BOUNDARY
    certificate     of an INFEASIBLE palette
    margin          computes s* of MATH 4 on demand, in within-group standard deviations
    """

    status: Status
    weights: Array
    levels: Array
    base: Array
    prompt_levels: Array
    log_partition: float
    kl: float
    kish: float
    covariance: Array
    error: Array
    kkt_residual: float
    passes: int
    faces: tuple[Array, ...]
    certificate: Certificate | None
    margin: Callable[[], float]


@dataclass(frozen=True)
class _Problem:
    """A palette in standardised units on one source; on a face, or in blocks, another source."""

    source: Pool
    low: Array
    high: Array

    @cached_property
    def origin(self) -> Tilt:
        """The pass at λ = 0: the base, and ∇²F(0), which decides collinearity once."""
        return self.source.pass_(np.zeros(len(self.low)))

    @property
    def constrained(self) -> NDArray[np.bool_]:
        return np.isfinite(self.low) | np.isfinite(self.high)

    def maximise(self, start: Array | None = None, **limits: float) -> Iterate:
        first = self.origin if start is None else None
        return maximise(self.source, self.low, self.high, start, first=first, **limits)


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer in standardised units, and the problem that it settles.

    `excess` is what the levels of a face of random blocks are over their bounds.
    """

    status: Status
    at: Iterate
    problem: _Problem
    error: float = np.nan
    faces: tuple[Array, ...] = ()
    direction: Array | None = None
    excess: Array | float = 0.0


def optimise(
    groups: Groups,
    lower: Array,
    upper: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    tol: float = 1e-9,
) -> Optimum:
    """min KL(p ‖ p0) over p that tilt the candidates, subject to lower ≤ E_p r ≤ upper.

    groups        the scored candidates, m features
    lower, upper  (m,) levels in the features' units; infinite where nothing is asked, equal for an equality
    joint         re-weight prompts too, one group of everything; else only the candidates of each prompt
    block         calibrate to a decoder that draws this many candidates; None takes each prompt's own number
    seed          of the random blocks

    Feasibility at `block` is decided on the exact k-subset support, not on the random blocks.

    >>> groups = Groups(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1))
    >>> best = optimise(groups, np.array([0.75]), np.array([np.inf]))
    >>> best.status.name, float(best.weights[0].round(6))
    ('OPTIMAL', 1.098612)
    """
    _check(groups, lower, upper, joint, block)
    scale = spread(groups, joint=joint)
    full = tilted(groups, scale, joint=joint)
    # Where everything is one group z is measured from the rounded base, and so must the bounds be.
    above = (
        (lower - groups.base, upper - groups.base) if joint else (groups.above(lower), groups.above(upper))
    )
    largest = np.abs(groups.values).max(axis=0) if (scale == 0).any() else scale
    unit, low, high = standardised(groups.base, largest, scale, *above)
    blocked = None if joint or block is None or (groups.sizes == block).all() else block
    support: Support = full.support if blocked is None else partial(full.subset_support, k=blocked)

    def blocks(partitions: int) -> Tilted:
        return tilted(groups, scale, block=blocked, seed=seed, partitions=partitions)

    crossed = bool((lower > upper).any())
    verdict = decide(
        full,
        support,
        low,
        high,
        crossed=crossed,
        blocks=None if blocked is None else blocks,
        cells=groups.values.size,
        tol=tol,
    )
    certificate = None
    if verdict.direction is not None:
        certificate = certify(support, low, high, lower, upper, groups.base, unit, verdict.direction)
        if not joint:
            by_prompt = prompt_support(groups, certificate.direction, blocked)
            se = float(np.sqrt(groups.weights**2 @ (by_prompt - groups.weights @ by_prompt) ** 2))
            certificate = replace(certificate, se=se)
    elif crossed:
        certificate = crossing(lower, upper, low - high)
    return _report(groups, verdict, full.scale, certificate, lambda: margin(support, low, high, gap=1e-8).low)


def standardised(
    base: Array, largest: Array, scale: Array, above: Array, below: Array
) -> tuple[Array, Array, Array]:
    """A unit for each feature, and bounds less the base level in these: the spread; of a constant, what it lacks.

    `above` and `below` (m,) are lower and upper bounds less the base level, `largest` is max |r|.
    Nothing moves a constant, so each is decided alone: a bound that it meets up to rounding, 64 ε max|r|, asks for
    nothing, and any other for one unit more than there is. A bound that is the base level but for its rounding is the
    base level: beside a large offset the difference can be more than any tolerance.
    """
    unit = np.where(scale > 0, scale, 1.0)
    last = 4 * np.finfo(float).eps * np.abs(base)
    low, high = (np.where(np.abs(ends) <= last, 0.0, ends) / unit for ends in (above, below))
    for i in np.flatnonzero(scale == 0):
        eps, tiny = np.finfo(float).eps, np.finfo(float).tiny
        noise = 64 * eps * float(largest[i]) + tiny
        lacks = max(float(above[i]), -float(below[i]))
        unit[i] = lacks if 1e-300 < lacks < np.inf else 1.0
        low[i] = 1.0 if above[i] > noise else -np.inf
        high[i] = -1.0 if below[i] < -noise else np.inf
    return unit, low, high


def decide(
    full: Pool,
    support: Support,
    low: Array,
    high: Array,
    *,
    crossed: bool = False,
    blocks: Callable[[int], Pool] | None = None,
    cells: int = 0,
    start: Array | None = None,
    tol: float = 1e-9,
) -> Verdict:
    """The verdict on standardised bounds: what `optimise` says, of candidates wherever they are.

    full       the candidates in whole groups
    support    σ_k(d) at the decoder's k, which decides what can be had
    low, high  (m,) bounds as levels of `full`
    crossed    some bounds contradict each other
    blocks     the candidates in so many partitions into random blocks of k; None where whole groups are the blocks
    cells      numbers in all, which say how many partitions are affordable
    start      λ to begin with, where one is known; nothing is concluded from it
    """

    def problem(partitions: int) -> _Problem:
        return _Problem(full if blocks is None else blocks(partitions), low, high)

    now = problem(4)
    if crossed:
        return Verdict(Status.INFEASIBLE, now.maximise(max_passes=1), now)
    if (clash := _clash(now)) is not None:
        return Verdict(Status.INFEASIBLE, now.maximise(max_passes=1), now, direction=clash)
    verdict = _settle(now, support, tol, exact=blocks is None, start=start)
    partitions = 4
    while verdict.status is Status.NUMERICAL and blocks is not None and partitions * cells < 5e6:
        # The support says yes and these random blocks say no: more of them come closer to it.
        partitions *= 4
        verdict = _settle(problem(partitions), support, tol, exact=False)
    return _least_norm(verdict) if verdict.status in (Status.OPTIMAL, Status.BOUNDARY) else verdict


def evaluate_at(
    groups: Groups, weights: Array, *, joint: bool = False, block: int | None = None, seed: int = 0
) -> Optimum:
    """The forward map: levels, KL and the rest at given λ (m,), raw units. OPTIMAL, as λ is what was asked."""
    nothing = np.full(groups.values.shape[1], np.inf)
    _check(groups, -nothing, nothing, joint, block)
    scale = spread(groups, joint=joint)
    exact = joint or block is None or bool((groups.sizes == block).all())
    source = tilted(groups, scale, joint=joint, block=None if exact else block, seed=seed)
    verdict = verdict_at(source, weights * source.scale)
    return _report(groups, verdict, source.scale, None, lambda: np.inf)


def verdict_at(source: Pool, weights: Array) -> Verdict:
    """The forward map as a verdict: standardised λ (m,) that was given, not found."""
    nothing = np.full(len(weights), np.inf)
    at = Iterate(weights, source.pass_(weights), np.zeros(len(weights)), 1)
    return Verdict(Status.OPTIMAL, at, _Problem(source, -nothing, nothing), 0.0)


def _check(groups: Groups, lower: Array, upper: Array, joint: bool, block: int | None) -> None:
    m = groups.values.shape[1]
    if lower.shape != (m,) or upper.shape != (m,):
        raise ValueError(f"lower and upper must have shape ({m},), got {lower.shape} and {upper.shape}")
    if not np.isfinite(groups.values).all():
        raise ValueError("values must be finite, got nan or an infinite number")
    if not ((lower < np.inf) & (upper > -np.inf)).all():
        raise ValueError(
            f"lower must be a number or −∞ and upper a number or +∞, got nan or the other infinity: {lower}, {upper}"
        )
    if block is not None and joint:
        raise ValueError(f"block must be None in joint mode, where prompts are not given, got {block}")
    if block is not None and not 1 <= block <= groups.sizes.min():
        raise ValueError(
            f"block must lie between 1 and the {groups.sizes.min()} candidates of the smallest prompt, got {block}"
        )


def _settle(
    now: _Problem, support: Support, tol: float, *, exact: bool, start: Array | None = None
) -> Verdict:
    """Newton, its proof, and where there is none the gauge; then the face if the palette lies on the boundary.

    `exact` says that `support` is that of the problem's own source, not of blocks drawn from it.
    """
    low, high = now.low, now.high
    at = now.maximise(start, tol=tol)
    separated = separation(at.weights, at.tilt.support, low, high) > 1e-8
    if exact and separated:
        return Verdict(Status.INFEASIBLE, at, now, direction=at.weights)
    solved = at.kkt <= tol
    error = _proof(now, at) if solved else np.nan
    base_will_do = solved and not at.weights.any()
    if base_will_do and at.kkt == 0:
        error = 0.0
    if base_will_do or (exact and not np.isnan(error)):
        return Verdict(Status.OPTIMAL, at, now, error)
    # The gauge measures from the base, which on a face is not zero.
    base = now.origin.levels
    reach = gauge(_moved(support, base), low - base, high - base)
    if reach.high < -1e-9:
        return Verdict(Status.INFEASIBLE, at, now, direction=reach.direction)
    if reach.low > 1e-9:
        if not solved and not separated:
            at = now.maximise(at.weights, tol=tol, max_passes=200)
            error = _proof(now, at) if at.kkt <= tol else np.nan
        return Verdict(Status.OPTIMAL if at.kkt <= tol else Status.NUMERICAL, at, now, error)
    direction = reach.direction / np.abs(reach.direction).max()
    direction = np.where(np.abs(direction) > 1e-9, direction, 0.0)
    for tolerance in (1e-9, 1e-7, 1e-5):
        face = _on_face(now, direction, tolerance, tol)
        if face.status in (Status.OPTIMAL, Status.BOUNDARY):
            # The source's own face is exact, and its levels are what they are.
            excess = 0.0 if exact else face.excess
            return replace(face, status=Status.BOUNDARY, faces=(direction, *face.faces), excess=excess)
    return Verdict(Status.NUMERICAL, at, now)


def _on_face(now: _Problem, direction: Array, tolerance: float, tol: float) -> Verdict:
    """Solve on the candidates that maximise dᵀr; every bound that d names has become an equality.

    On the face dᵀL is constant. What the named bounds miss of that constant, rounding or the randomness of blocks,
    is spread over them along d, and taken from the levels in the end.
    """
    face = now.source.face(direction, tolerance)
    named = direction != 0
    bound = np.where(direction > 0, now.low, np.where(direction < 0, now.high, 0.0))
    excess = (face.support(direction)[0] - direction @ bound) / (direction @ direction) * direction
    bound = bound + excess
    reduced = _Problem(face, np.where(named, bound, now.low), np.where(named, bound, now.high))
    settled = _settle(reduced, face.support, tol, exact=True)
    return replace(settled, excess=excess)


def _moved(support: Support, base: Array) -> Support:
    """The support as seen from `base`."""

    def seen(direction: Array) -> tuple[float, Array]:
        value, point = support(direction)
        return value - float(direction @ base), point - base

    return seen if base.any() else support


def _proof(now: _Problem, at: Iterate, lift: float = 1.0) -> float:
    """A radius around λ, in the 2-norm, that holds an exact optimum; nan where none can be proved.

    F is self-concordant-like: |F‴[u,u,u]| ≤ D‖u‖F″[u,u], D the largest diameter of a group. So along any feasible
    direction the dual falls at least like −‖p‖t + μ(e^(−Dt) − 1 + Dt)/D², which has its zero slope within
    −log(1 − q)/D where q = D‖p‖/μ ≤ ½. p holds the residuals over all constrained entries. `lift` is how much longer
    a step in λ may be than its part that moves any level, above one for collinear features alone.
    """
    levels, H, H0 = at.tilt.levels, at.tilt.covariance, now.origin.covariance
    constrained = now.constrained
    slack = np.where(at.weights == 0, np.minimum(levels - now.low, now.high - levels), 0.0)
    width = now.source.diameters()
    eps = np.finfo(float).eps
    # First with every constrained entry, then without those whose bound is too far away to matter.
    for kept in (constrained, constrained & (slack < 1e-4)):
        if not kept.any():
            return 0.0
        inside = np.ix_(kept, kept)
        D = float(np.linalg.norm(width[kept]))
        values, vectors = np.linalg.eigh(H0[inside])
        moving = vectors[:, values > COLLINEAR]
        if moving.shape[1] == 0:
            return 0.0
        curvature = np.linalg.eigvalsh(moving.T @ H[inside] @ moving)
        mu = float(curvature[0]) - 8 * eps * float(curvature[-1])
        if mu <= 0:
            continue
        q = D * lift * (float(np.linalg.norm(at.residuals[kept])) + 8 * eps * D) / mu
        if q > 0.5:
            continue
        radius = -lift * np.log1p(-q) / D
        # Inside the ball curvature at most doubles; so far can the other levels move.
        dropped = constrained & ~kept
        drift = 2 * np.sqrt(np.diag(H)[dropped] * curvature[-1]) * radius
        if (slack[dropped] > drift).all():
            return float(radius)
    return np.nan


def _clash(now: _Problem) -> Array | None:
    """A direction along which nothing can move and the bounds ask for movement, ‖d‖₁ = 1; else None."""
    low, high, constrained = now.low, now.high, now.constrained
    if not constrained.any():
        return None
    values, vectors = np.linalg.eigh(now.origin.covariance[np.ix_(constrained, constrained)])
    still = vectors[:, values <= COLLINEAR]
    if still.shape[1] == 0:
        return None
    # min e : low − e ≤ L ≤ high + e, L without a component along the still directions.
    m = len(values)
    has_low, has_high = np.isfinite(low[constrained]), np.isfinite(high[constrained])
    unit, ones = np.eye(m), np.ones((m, 1))
    A_ub = np.concatenate([np.hstack([-unit, -ones])[has_low], np.hstack([unit, -ones])[has_high]])
    b_ub = np.concatenate([-low[constrained][has_low], high[constrained][has_high]])
    A_eq = np.column_stack([still.T, np.zeros(still.shape[1])])
    bounds = [(None, None)] * m + [(0.0, None)]
    answer = linprog(
        np.append(np.zeros(m), 1.0), A_ub, b_ub, A_eq, np.zeros(len(A_eq)), bounds, method="highs"
    )
    if answer.x[-1] <= 1e-8:
        return None
    marginals = -np.asarray(answer.ineqlin.marginals, dtype=float)
    direction = np.zeros(len(low))
    inner = np.zeros(m)
    inner[has_low] += marginals[: has_low.sum()]
    inner[has_high] -= marginals[has_low.sum() :]
    direction[constrained] = inner
    return direction / np.abs(direction).sum()


def _least_norm(verdict: Verdict) -> Verdict:
    """Of the optimal λ that collinear features leave, the one of least 2-norm in standardised units."""
    at, now = verdict.at, verdict.problem
    low, high = now.low, now.high
    inside = np.flatnonzero(now.constrained)
    values, vectors = np.linalg.eigh(now.origin.covariance[np.ix_(inside, inside)])
    still, moving = vectors[:, values <= COLLINEAR], vectors[:, values > COLLINEAR]
    if still.shape[1] == 0 or not at.weights.any():
        return verdict
    levels, shared = at.tilt.levels[inside], moving.T @ at.weights[inside]
    # A small pull to zero chooses among them, λ_i ≥ 0 unless its upper bound binds, ≤ 0 unless its lower one does.
    start = at.weights[inside]
    floor = np.where(np.abs(levels - high[inside]) <= 1e-8, -np.inf, np.minimum(-start, 0))
    ceiling = np.where(np.abs(levels - low[inside]) <= 1e-8, np.inf, np.maximum(-start, 0))
    pull = 1e-8
    step = maximise_in_box(moving @ moving.T + pull * np.eye(len(start)), -pull * start, floor, ceiling)
    # The least-norm λ on the support so found, to full accuracy.
    support = start + step != 0
    lift = np.linalg.pinv(moving[support].T, rcond=1e-10)
    weights = np.zeros(len(low))
    weights[inside[support]] = lift @ shared
    # Along a face dᵀr is a constant, not zero: F must be taken anew.
    tilt = now.source.pass_(weights)
    at = Iterate(weights, tilt, residuals(weights, tilt.levels, low, high), at.passes + 1)
    return replace(verdict, at=at, error=_proof(now, at, lift=float(np.linalg.norm(lift, 2))))


def crossing(lower: Array, upper: Array, excess: Array) -> Certificate:
    """Bounds on one feature that contradict each other: d⁺ = d⁻ on it, so d = 0, and 0 cannot be lower − upper > 0."""
    i = int(excess.argmax())
    gap = float(lower[i] - upper[i])
    return Certificate(np.zeros(len(lower)), gap, 0.0, gap, 0.0, -float(excess[i]) / 2)


def certify(
    support: Support,
    low: Array,
    high: Array,
    lower: Array,
    upper: Array,
    base: Array,
    scale: Array,
    direction: Array,
) -> Certificate:
    """The sharpest certificate to 1 %: the direction along which the bounds lack the most, standardised.

    `low` and `high` are `lower` and `upper` as levels of z = (r − base) / scale. Its standard error is left to say.
    """
    direction = direction / np.abs(direction).sum()
    value, corner = support(direction)
    gap = asked(direction, low, high) - value
    sharper = distance(support, low, high, corner[None], gap=max(1e-9, 0.01 * gap))
    if -sharper.high > gap:
        direction = sharper.direction
        value = support(direction)[0]
        gap = asked(direction, low, high) - value
    raw = direction / scale
    size = float(np.abs(raw).sum())
    raw = raw / size
    reach = float(raw @ base) + value / size
    return Certificate(raw, asked(raw, lower, upper), reach, gap / size, np.nan, -gap)


def levels_by_prompt(
    groups: Groups, source: Tilted, weights: Array, levels: Array, share: float = 1.0
) -> Array:
    """s_g at standardised λ `weights`, shape (N, m); in joint mode `levels` and each prompt's influence on them.

    `share` is what the candidates of `source` have of the one group that they are a part of, in joint mode.
    """
    rows = source.row_weights(weights)
    if source.joint:
        moved = groups.sums(np.broadcast_to(levels, groups.means.shape), share * rows)
        return levels + moved / groups.weights[:, None]
    # Before any tilt the same sum gives what blocks leave out of a prompt's mean.
    moved = rows if source.block is None else rows - source.base_weights
    return groups.means + groups.sums(groups.means, moved) / groups.weights[:, None]


def _report(
    groups: Groups,
    verdict: Verdict,
    scale: Array,
    certificate: Certificate | None,
    margin_of: Callable[[], float],
) -> Optimum:
    """The verdict in the features' own units."""
    found = report(verdict, groups.base, scale, certificate, margin_of)
    source = cast("Tilted", verdict.problem.source)
    by_prompt = levels_by_prompt(groups, source, verdict.at.weights, found.levels)
    excess = 0.0 if source.joint else scale * verdict.excess
    return replace(found, prompt_levels=by_prompt - excess)


def report(
    verdict: Verdict,
    base: Array,
    scale: Array,
    certificate: Certificate | None,
    margin_of: Callable[[], float],
) -> Optimum:
    """The verdict in the features' own units, less what it says of single prompts: no `prompt_levels`."""
    at, source = verdict.at, verdict.problem.source
    weights, tilt = at.weights, at.tilt
    raw = weights / scale
    return Optimum(
        verdict.status,
        raw,
        base + scale * tilt.levels - scale * verdict.excess,
        base,
        np.zeros((0, len(weights))),
        float(raw @ base) + tilt.log_partition,
        max(0.0, float(weights @ tilt.levels) - tilt.log_partition),
        source.kish(weights),
        tilt.covariance * np.outer(scale, scale),
        np.where(verdict.problem.constrained, verdict.error, 0.0) / scale,
        at.kkt,
        at.passes,
        tuple(face / scale for face in verdict.faces),
        certificate,
        margin_of,
    )
