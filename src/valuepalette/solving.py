"""From a pilot and a palette to weights: solve, the forward map, and how far one value can go."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from valuepalette.adjustment import ROOM, highest
from valuepalette.distributing import is_dataset, on_ray
from valuepalette.dual import Optimum, Status
from valuepalette.feasibility import farthest
from valuepalette.grouping import Array
from valuepalette.laying import tilted
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import Candidates, Posed, extrapolated, pose
from valuepalette.shards import Shards, open_shards
from valuepalette.solution import Infeasible, Solution, solution_of
from valuepalette.streaming import Streaming, pose_shards
from valuepalette.tilting import prompt_support, spread
from valuepalette.uncertainty import bound_covariance, level_influence, most_influence

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["Reach", "levels", "reach", "solve"]


def solve(
    pilot: Pilot | Shards | str | PathLike[str] | Dataset,
    palette: Palette | Mapping[str, object],
    candidates: Candidates = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
    confidence: float | None = None,
    on_infeasible: Literal["raise", "return"] = "raise",
) -> Solution:
    """The weights λ with which the levels of `palette` are had at the least KL from the base model.

    min KL(p ‖ p0) subject to lower ≤ E_p r ≤ upper, over p(y given x) ∝ p0(y given x) exp(λᵀr(x, y)); in joint
    mode over p(x, y). The answer is proved: either λ, with a bound on its numerical error, or a certificate that no
    choice among the pilot's candidates has the levels (paper, Section 2; docs/mathematics.md).

    pilot       in memory; or, of any size, the path of its Parquet file or folder, or a Ray dataset
                (`open_shards` and `on_ray` for another budget or more workers, docs/any-size.md)
    candidates  k of the decoder that will use λ; None for the pilot's K; "limit" for k → ∞, which fine-tuning needs
    mode        None takes "prompt" where prompts with two candidates or more carry at least half of the weight
    weighting   "prompts" (all alike), "rows" (by their number of candidates), or a column of the pilot
    seed        of the random blocks that calibrate a k below K
    confidence  None aims at the bounds, so that on new prompts the level of a value that binds lies below what was
                asked half of the time. 0.95 aims at each bound and z = 1.64 standard errors of level − bound, so that
                each is met on new prompts for 95 % of pilots (docs/uncertainty.md); an equality has no safe side and
                stays, and so does "max"

    Raises `Infeasible` with the certificate unless on_infeasible="return", and ValueError for a palette that makes
    no sense on this pilot.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 0.0, 1.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> solution = solve(pilot, {"humor": "reach 50%"})
    >>> solution.status.name, solution.levels, round(solution.weights["humor"], 4)
    ('OPTIMAL', humor 0.75 ± 0, 1.0986)
    """
    if on_infeasible not in ("raise", "return"):
        raise ValueError(f'on_infeasible must be "raise" or "return", got {on_infeasible!r}')
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    if not isinstance(pilot, Pilot):
        return _solve_shards(pilot, palette, candidates, mode, weighting, seed, confidence, on_infeasible)
    posed = pose(pilot, palette, candidates, mode, weighting, seed)
    _warn_of_lost_spread(posed)
    aimed = _raised(posed) if confidence is None else _with_confidence(posed, confidence)
    optimum = aimed.optimise(aimed.block)
    if posed.candidates == "limit" and optimum.status in (Status.OPTIMAL, Status.BOUNDARY):
        optimum = _to_the_limit(aimed, optimum)
    solution = solution_of(aimed, optimum)
    if confidence is not None:
        solution = _asked_with(confidence, posed, solution)
    if solution.status is Status.INFEASIBLE and on_infeasible == "raise":
        raise Infeasible(solution)
    return solution


def _solve_shards(
    source: Shards | str | PathLike[str] | Dataset,
    palette: Palette,
    candidates: Candidates,
    mode: Literal["prompt", "joint"] | None,
    weighting: str,
    seed: int,
    confidence: float | None,
    on_infeasible: Literal["raise", "return"],
) -> Solution:
    """The same of a pilot in pieces."""
    if confidence is not None:
        raise ValueError(
            f"confidence needs a pilot in memory: read it with Pilot.read, or leave it out, got {confidence!r}"
        )
    if isinstance(source, str | PathLike):
        shards = open_shards(source)
    else:
        shards = on_ray(cast("Dataset", source)) if is_dataset(source) else cast("Shards", source)
    posed = pose_shards(shards, palette, candidates, mode, weighting, seed)
    for i in np.flatnonzero(posed.lost):
        _warn_of_rounding(posed.resolved.features[i], posed.survey.largest[i], 4)
    optimum = posed.optimise(posed.block)
    if posed.candidates == "limit" and optimum.status in (Status.OPTIMAL, Status.BOUNDARY):
        optimum = _to_the_limit(posed, optimum)
    solution = posed.solution(optimum)
    if solution.status is Status.INFEASIBLE and on_infeasible == "raise":
        raise Infeasible(solution)
    return solution


def _raised(posed: Posed) -> Posed:
    """A level in place of each "max": what the other entries and the palette's budget leave it."""
    palette, resolved = posed.palette, posed.resolved
    if not palette.maximised:
        return posed
    if posed.joint and palette.kl is None:
        raise ValueError(
            '"max" needs a budget in joint mode, which has no k to take one from: Palette(…, kl=0.5), got kl=None'
        )
    turns = [resolved.features.index(name) for name in palette.maximised]
    kl = float(np.log(4)) if palette.kl is None else palette.kl
    bounds = resolved.lower, resolved.upper
    lower = highest(posed.groups, *bounds, turns, kl, joint=posed.joint, block=posed.block, seed=posed.seed)
    influence = _influence_of_most(posed, lower, turns)
    return replace(posed, resolved=replace(resolved, lower=lower, influence_lower=influence))


def _influence_of_most(posed: Posed, lower: Array, turns: Sequence[int]) -> Array:
    """ψ of the lower bounds, (N, m), where `lower` is what `highest` made of those of `turns`."""
    resolved, groups = posed.resolved, posed.groups
    reached, influence = resolved.lower.copy(), resolved.influence_lower.copy()

    def at(bounds: Array) -> tuple[Optimum, Array]:
        """The optimum of other lower bounds, and ψ of the bounds that bind there."""
        there = replace(posed, resolved=replace(resolved, lower=bounds))
        found = there.optimise(there.block)
        return found, np.where(found.weights > 0, influence, resolved.influence_upper)

    for i in turns:
        if lower[i] == resolved.lower[i]:
            continue
        if resolved.upper[i] - lower[i] <= 1e-5 * spread(groups, joint=posed.joint)[i]:
            influence[:, i] = resolved.influence_upper[:, i]
        else:
            part = 1.0 if i == turns[-1] else ROOM
            before, others = at(reached)
            start = before.levels[i]
            bought = np.where(np.arange(len(lower)) == i, start + (lower[i] - start) / part, reached)
            found, binds = at(bought)
            if found.status is Status.OPTIMAL and found.weights[i] > 0:
                where = {"joint": posed.joint, "block": posed.block, "seed": posed.seed}
                most = most_influence(groups, found, i, binds, **where)
                influence[:, i] = part * most + (1 - part) * level_influence(before, others)[:, i]
        reached[i] = lower[i]
    return influence


def _with_confidence(posed: Posed, confidence: float) -> Posed:
    """Each bound moved to its safe side by z standard errors of level − bound, which depend on λ: three rounds."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.5 < confidence < 1:
        raise ValueError(f"confidence must lie between 0.5 and 1, got {confidence!r}")
    asked, aimed = posed.resolved, _raised(posed)
    if len(posed.groups.sizes) < 2:
        raise ValueError("confidence needs a pilot of two prompts or more, got one")
    z = NormalDist().inv_cdf(confidence)
    for _ in range(3):
        optimum = aimed.optimise(aimed.block)
        if optimum.status not in (Status.OPTIMAL, Status.BOUNDARY):
            break
        low, high = (
            z * np.sqrt(np.diag(bound_covariance(posed.groups, optimum, influence)))
            for influence in (asked.influence_lower, asked.influence_upper)
        )
        equal = asked.lower == asked.upper
        lower, upper = np.where(equal, 0, low) + asked.lower, asked.upper - np.where(equal, 0, high)
        for i in np.flatnonzero((lower > upper) & (asked.lower <= asked.upper)):
            raise ValueError(
                f"confidence must leave room between the bounds of {asked.features[i]}, {asked.lower[i]:.4g} and "
                f"{asked.upper[i]:.4g}, got {confidence}, which takes {low[i]:.2g} from below and {high[i]:.2g} from "
                "above"
            )
        aimed = _raised(replace(posed, resolved=replace(asked, lower=lower, upper=upper)))
    return aimed


def _asked_with(confidence: float, posed: Posed, solution: Solution) -> Solution:
    """The solution of bounds that were moved, said of those that were asked."""
    there, asked = solution.resolved, posed.resolved
    most = np.array([name in posed.palette.maximised for name in there.features])
    lower = np.where(most, there.lower, asked.lower)
    proof = solution.certificate
    if proof is not None and not (
        np.array_equal(there.lower, lower) and np.array_equal(there.upper, asked.upper)
    ):
        moved = f"With {confidence:.3g} confidence each bound is aimed at from {NormalDist().inv_cdf(confidence):.2f} "
        proof = replace(proof, sentence=f"{proof.sentence} {moved}standard errors inside.")
    return replace(
        solution,
        resolved=replace(there, lower=lower, upper=asked.upper),
        certificate=proof,
        confidence=float(confidence),
        aimed=(there.lower, there.upper),
    )


def _to_the_limit(posed: Posed | Streaming, whole: Optimum) -> Optimum:
    """2λ_K − λ_{K/2}, clipped to the signs that the bounds allow, and what it gives as k → ∞."""
    half = posed.optimise(posed.half)
    for optimum, k in ((whole, 2 * posed.half), (half, posed.half)):
        if optimum.status in (Status.BOUNDARY, Status.INFEASIBLE):
            raise ValueError(
                f'candidates="limit" needs a palette that k = {posed.half}, half of the pilot\'s candidates, reach '
                f"with room to spare, got one that is {optimum.status.name} at k = {k}; ask a little less or draw more"
            )
    if half.status is not Status.OPTIMAL:
        return half
    weights = 2 * whole.weights - half.weights
    lower, upper = posed.resolved.lower, posed.resolved.upper
    weights = np.where(np.isinf(lower), np.minimum(weights, 0), weights)
    weights = np.where(np.isinf(upper), np.maximum(weights, 0), weights)
    # Both ends meet the palette, so their levels extrapolate far better than those of one λ at two k. The error of
    # the extrapolation itself is not bounded by theirs.
    return replace(extrapolated(whole, half), weights=weights, error=np.full(len(weights), np.nan))


def _warn_of_lost_spread(posed: Posed) -> None:
    groups, resolved = posed.groups, posed.resolved
    asked = np.isfinite(resolved.lower) | np.isfinite(resolved.upper)
    for i in np.flatnonzero((spread(groups, joint=posed.joint) == 0) & asked):
        column = groups.values[:, i]
        centre = groups.base[i] if posed.joint else np.repeat(groups.means[:, i], groups.sizes)
        if (column == centre).all():
            continue
        _warn_of_rounding(resolved.features[i], np.abs(column).max(), 4)


def _warn_of_rounding(feature: str, largest: float, stacklevel: int) -> None:
    warnings.warn(
        f"{feature}: its spread is lost in rounding beside numbers as large as {largest:.3g}; it is treated as "
        "constant",
        stacklevel=stacklevel,
    )


def levels(
    pilot: Pilot,
    weights: Mapping[str, float],
    candidates: Candidates = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
) -> Solution:
    """The forward map λ → levels, KL, effective candidates: `Solution.from_weights`.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0])}, prompt_id=np.array([0, 0]))
    >>> round(levels(pilot, {"humor": np.log(3)}).levels["humor"], 6)
    0.75
    """
    return Solution.from_weights(pilot, weights, candidates, mode=mode, weighting=weighting, seed=seed)


@dataclass(frozen=True)
class Reach:
    """How far one value can go: every level between `low` and `high` can be had.

    base        its level under the base model
    candidates  the k it holds for; None in joint mode
    """

    value: str
    base: float
    low: float
    high: float
    candidates: int | None

    def __str__(self) -> str:
        k = "" if self.candidates is None else f" with k = {self.candidates}"
        return f"{self.value}: {self.low:z.4g} to {self.high:z.4g}{k}, base {self.base:z.4g}"


def reach(
    pilot: Pilot,
    palette: Palette | Mapping[str, object] | None,
    value: str,
    candidates: int | None = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    gap: float = 1e-6,
) -> Reach:
    """How far one value can go, alone (`palette=None`, in closed form) or while the others hold.

    `value` may also name a tail or a cohort's feature of the palette, such as "P(humor < -2)". With a palette, its
    bounds on the other features are held and what it asks of `value` is left out; each end is found
    to within `gap` within-prompt standard deviations, on the safe side. Raises Infeasible if the others alone cannot
    be had.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 2.0, 5.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> print(reach(pilot, None, "humor"))
    humor: 1 to 3 with k = 2, base 2
    """
    given = None if palette is None else palette if isinstance(palette, Palette) else Palette(palette)
    named = () if given is None else map(str, given.asks)
    known = tuple(dict.fromkeys((*pilot.values, *named)))
    if value not in known:
        raise ValueError(f"value must be one of {', '.join(known)}, got {value!r}")
    if candidates == "limit":
        raise ValueError('candidates must be a number here: what k → ∞ reaches no pilot tells, got "limit"')
    free = Palette({value: "free"}) if given is None else given.freed(value)
    posed = pose(pilot, free, candidates, mode, weighting, 0)
    groups, resolved = posed.groups, posed.resolved
    i = resolved.features.index(value)
    start, unit = resolved.base[i], np.zeros(len(resolved.features))
    unit[i] = 1.0

    def told(level: float) -> float:
        return float(resolved.reported(np.full(len(unit), level))[i])

    if not (np.isfinite(resolved.lower) | np.isfinite(resolved.upper)).any():
        if posed.joint:
            low, high = float(groups.values[:, i].min()), float(groups.values[:, i].max())
        else:
            high = float(groups.weights @ prompt_support(groups, unit, posed.block))
            low = -float(groups.weights @ prompt_support(groups, -unit, posed.block))
        return Reach(value, told(start), told(low), told(high), posed.block)
    scale = spread(groups, joint=posed.joint)
    source = tilted(groups, scale, joint=posed.joint)
    exact = posed.joint or bool((groups.sizes == posed.block).all())

    def support(direction: Array) -> tuple[float, Array]:
        return source.support(direction) if exact else source.subset_support(direction, int(posed.block or 0))

    lower, upper = groups.above(resolved.lower) / source.scale, groups.above(resolved.upper) / source.scale
    ends: list[float] = []
    for side in (-1.0, 1.0):
        far = farthest(support, lower, upper, np.zeros(len(unit)), side * unit, gap=gap)
        if far.low == -np.inf:
            others = posed.optimise(posed.block)
            if others.certificate is None:
                raise ValueError(
                    f"palette must leave {value!r} room to move, got others on the very edge of reach"
                )
            raise Infeasible(solution_of(posed, others))
        ends.append(told(start + side * far.low * source.scale[i]))
    return Reach(value, told(start), ends[0], ends[1], posed.block)
