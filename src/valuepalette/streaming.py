"""`solve` on candidates in pieces: Parquet larger than memory, or workers that hold their shards.

The same verdict, on the same figures, as in memory. Newton begins on a sample of the prompts, from which nothing else
is concluded. What a solution says of prompts, its standard errors, comes from one last pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.certificates import Choice
from valuepalette.dual import (
    Certificate,
    Optimum,
    Status,
    Verdict,
    certify,
    crossing,
    decide,
    levels_by_prompt,
    report,
    standardised,
)
from valuepalette.feasibility import margin
from valuepalette.features import Resolved
from valuepalette.figures import Figures, Proof
from valuepalette.grouping import Array
from valuepalette.laying import dealt, tilted
from valuepalette.newton import maximise
from valuepalette.palette import Palette
from valuepalette.pools import Features, Laid, Streamed, support_of
from valuepalette.posing import Candidates, calibrated, check, check_units, reweighs_prompts
from valuepalette.shards import Piece, Shards
from valuepalette.solution import Solution, proof_of
from valuepalette.surveying import Census, End, Survey, census, survey
from valuepalette.tilting import prompt_support
from valuepalette.uncertainty import inverse

__all__ = ["Streaming", "pose_shards"]

WORTH = 20_000
"""Rows of a sample below which beginning on it saves nothing."""


@dataclass(frozen=True, eq=False)
class Streaming:
    """A palette posed on pieces: what `posing.Posed` is in memory."""

    shards: Shards
    palette: Palette
    census: Census
    survey: Survey
    columns: tuple[str, ...]
    candidates: Candidates
    joint: bool
    weighting: str
    seed: int
    _verdicts: dict[int | None, Verdict] = field(default_factory=dict, repr=False)

    @property
    def resolved(self) -> Resolved:
        return self.survey.resolved

    @property
    def block(self) -> int | None:
        """k for the mathematics; None where all of a prompt's candidates, or all rows, are one group."""
        return self.candidates if isinstance(self.candidates, int) else None

    @property
    def half(self) -> int:
        return int(self.census.distinct[0]) // 2

    @cached_property
    def full(self) -> Streamed:
        """The candidates in whole groups."""
        at = self.survey
        laid = Laid(at.features, at.scale, self.joint, at.resolved.base if self.joint else None)
        return Streamed(self.shards, laid, self.columns)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """(m,) features of which something is asked and whose spread is lost in rounding."""
        asked = np.isfinite(self.resolved.lower) | np.isfinite(self.resolved.upper)
        return (self.survey.scale == 0) & asked & self.survey.lost

    def cut(self, block: int | None) -> int | None:
        """k where groups have to be cut for it."""
        sizes = self.census.distinct
        return None if self.joint or block is None or (sizes == block).all() else block

    def blocks(self, block: int, partitions: int) -> Streamed:
        """The candidates in random blocks of k, which are those that they would have in memory."""
        states = dealt(self.census.sizes, block, self.seed, partitions)
        draws = dict(zip(self.census.places, states, strict=True))
        laid = replace(self.full.laid, block=block, partitions=partitions, draws=draws)
        return replace(self.full, laid=laid, _widths={})

    def optimise(self, block: int | None) -> Optimum:
        """The answer to the palette at k, without the levels of single prompts."""
        at, full, cut = self.survey, self.full, self.cut(block)
        lower, upper, base = at.resolved.lower, at.resolved.upper, at.resolved.base
        above = (lower - base, upper - base) if self.joint else (at.above(lower), at.above(upper))
        unit, low, high = standardised(base, at.largest, at.scale, *above)
        support = full.support if cut is None else partial(full.subset_support, k=cut)
        crossed = bool((lower > upper).any())
        verdict = decide(
            full,
            support,
            low,
            high,
            crossed=crossed,
            blocks=None if cut is None else partial(self.blocks, cut),
            cells=self.shards.rows * len(low),
            start=None if crossed else self._begin(low, high, cut),
        )
        certificate = None
        if verdict.direction is not None:
            certificate = certify(support, low, high, lower, upper, base, unit, verdict.direction)
        elif crossed:
            certificate = crossing(lower, upper, low - high)

        def slack() -> float:
            return margin(support, low, high, gap=1e-8).low

        self._verdicts[block] = verdict
        return report(verdict, base, full.scale, certificate, slack)

    def _begin(self, low: Array, high: Array, block: int | None) -> Array | None:
        """λ on 1 %, then 10 % of the prompts, to begin with; None where these are too few or had none."""
        start, sample = None, self.survey.sample
        for part in (10, 1):
            groups = _first_of(sample, part)
            if groups is None or len(groups.values) < WORTH:
                continue
            source = tilted(
                groups,
                self.survey.scale,
                joint=self.joint,
                block=block,
                partitions=1,
                centre=self.survey.resolved.base,
            )
            found = maximise(source, low, high, start, tol=1e-6, max_passes=30)
            start = found.weights if found.kkt <= 1e-6 else start
        return start

    def solution(self, optimum: Optimum) -> Solution:
        """What `optimise` found, or its limit for k → ∞, with its standard errors and its proof."""
        at, resolved = self.survey, self.survey.resolved
        m = len(resolved.features)
        moments = self._moments(optimum)
        unit, none = np.eye(m), np.zeros((m, m))
        of_levels, of_gains = moments.errors(resolved.features)
        nearer = optimum.levels - resolved.lower <= resolved.upper - optimum.levels
        binds = np.where(optimum.weights == 0, nearer, optimum.weights > 0)
        # Level − bound as a combination of level, base, ψ of the lower and ψ of the upper bound.
        apart = np.hstack([unit, none, -unit * binds[:, None], -unit * ~binds[:, None]])
        bound_covariance = apart @ moments.covariance @ apart.T
        weight_covariance = np.zeros((m, m))
        if optimum.status in (Status.BOUNDARY, Status.INFEASIBLE):
            weight_covariance = np.full((m, m), np.nan)
        elif len(free := np.flatnonzero(optimum.weights)):
            inside = np.ix_(free, free)
            bread = inverse(optimum.covariance[inside])
            weight_covariance[inside] = bread @ bound_covariance[inside] @ bread
        proof = None if optimum.certificate is None else self._proof(optimum.certificate)
        return Solution(
            status=optimum.status,
            resolved=resolved,
            weights=Figures(
                resolved.features,
                optimum.weights,
                # Rounding may take a product of covariances below nothing.
                np.sqrt(np.maximum(np.diag(weight_covariance), 0)),
                optimum.error,
            ),
            levels=Figures(resolved.features, resolved.reported(optimum.levels), of_levels),
            gains=Figures(resolved.features, resolved.factor * (optimum.levels - optimum.base), of_gains),
            mode="joint" if self.joint else "prompt",
            weighting=self.weighting,
            candidates=self.candidates,
            seed=self.seed,
            kl=optimum.kl,
            ess=optimum.kish,
            prompts=self.census.prompts,
            covariance=optimum.covariance,
            weight_covariance=weight_covariance,
            spread=at.scale,
            faces=np.array(optimum.faces).reshape(-1, m),
            kkt_residual=optimum.kkt_residual,
            passes=optimum.passes,
            certificate=proof,
            fingerprint=self.shards.head.metadata.to_dict(),
            margin_of=optimum.margin,
            bound_covariance=bound_covariance,
        )

    def _moments(self, optimum: Optimum) -> _Moments:
        # Verdicts whose levels by prompt, times a factor each, add up to those of the optimum.
        terms = [(1.0, self._verdicts[self.block])]
        if self.candidates == "limit" and self.half in self._verdicts:
            half = self._verdicts[self.half]
            solved = half.status is Status.OPTIMAL
            terms = [(2.0, self._verdicts[None]), (-1.0, half)] if solved else [(1.0, half)]
        laid: list[tuple[float, Laid, Array, float]] = []
        for factor, verdict in terms:
            source = verdict.problem.source
            assert isinstance(source, Streamed)
            laid.append((factor, source.laid, verdict.at.weights, verdict.at.tilt.log_partition))
        at = self.survey
        # Sums of squares are taken near the means, where they do not cancel.
        influences = [0.0 if end is None else end.mean for end in (*at.lower, *at.upper)]
        shift = np.concatenate([optimum.levels, optimum.base, influences])
        task = _ByPrompt(tuple(laid), optimum.levels, at.lower, at.upper, shift)
        return _Moments.of(list(self.shards.map(task, self.columns)))

    def _proof(self, certificate: Certificate) -> Proof:
        at, features = self.survey, self.survey.features
        joint, block = self.joint, self.block
        if not joint:
            task = _Reached(features, certificate.direction, certificate.reach, block, at.lower, at.upper)
            certificate = replace(certificate, se=_reach_error(list(self.shards.map(task, self.columns))))

        def alone(direction: Array, k: int | None) -> float:
            every = support_of(self.shards, features, self.columns, direction, [k], joint=joint)
            return float(every[0])

        def best(direction: Array) -> float:
            every = support_of(self.shards, features, self.columns, direction, [None], joint=True)
            return float(every[0])

        sizes = self.census.distinct
        choice = Choice(
            self.census.prompts,
            self.shards.rows,
            int(sizes[0]),
            int(sizes[-1]),
            joint,
            block,
            np.where(at.scale > 0, at.scale, at.largest),
            alone,
            best,
            lambda: self.optimise(None).status,
        )
        return proof_of(choice, at.resolved, certificate)


def _first_of(sample: Any, part: int) -> Any:
    """The first of so many equal parts of some prompts; None where there is none."""
    count = len(sample.sizes) // part
    if count == 0:
        return None
    weights = sample.weights[:count]
    rows = int(sample.starts[count])
    return type(sample)(sample.values[:rows], sample.starts[: count + 1], weights / weights.sum())


@dataclass(frozen=True, eq=False)
class _ByPrompt:
    """A task: what errors need of (s_g, base_g, ψ_g of the lower bounds, ψ_g of the upper ones), measured from `shift`.

    Σa, Σa², Σ a x, Σ a² x, Σ a² x xᵀ over prompts; and of level and gain of each feature the same over its own
    prompts, without cross terms.
    """

    terms: tuple[tuple[float, Laid, Array, float], ...]
    levels: Array
    lower: tuple[End | None, ...]
    upper: tuple[End | None, ...]
    shift: Array

    def __call__(self, piece: Piece) -> tuple[Array, ...]:
        features = self.terms[0][1].features
        groups = features.groups(piece)
        s = np.zeros_like(groups.means)
        for factor, laid, weights, log_partition in self.terms:
            source = laid.source(piece, groups)
            if source is None:
                s += factor * self.levels
                continue
            share = float(np.exp(source.pass_(weights).log_partition - log_partition)) if laid.joint else 1.0
            s += factor * levels_by_prompt(groups, source, weights, self.levels, share)
        influences = (_influences(features, piece, ends) for ends in (self.lower, self.upper))
        x = np.hstack([s, groups.means, *influences]) - self.shift
        a = groups.weights
        inside = np.column_stack([features.inside(piece, i) for i in range(len(self.levels))])
        own = np.where(np.hstack([inside, inside]), a[:, None], 0.0)
        y = np.hstack([s, s - groups.means]) - np.concatenate([self.levels, np.zeros(len(self.levels))])
        heavy = x * a[:, None] ** 2
        # Not by BLAS, whose threads a busy machine can make one wait for longer than this takes.
        return (
            np.array([a.sum(), np.sum(a**2)]),
            np.einsum("n,ni->i", a, x),
            heavy.sum(axis=0),
            np.einsum("ni,nj->ij", heavy, x),
            np.stack([power.sum(axis=0) for power in (own, own * y, own**2, own**2 * y, own**2 * y**2)]),
        )


def _influences(features: Features, piece: Piece, ends: Sequence[End | None]) -> Array:
    """ψ of each prompt on the bounds, (N, m)."""
    out = np.zeros((len(piece.starts) - 1, len(ends)))
    for i, end in enumerate(ends):
        if end is not None and (own := features.own(piece, i)) is not None:
            out[features.inside(piece, i), i] = end.told(own)[1] + end.shift
    return out


@dataclass(frozen=True, eq=False)
class _Moments:
    """The covariance of the mean over prompts, (4m, 4m), of level, base and both bounds; and the sums by cohort."""

    covariance: Array
    own: Array

    @classmethod
    def of(cls, parts: Sequence[tuple[Array, ...]]) -> _Moments:
        (mass, square), first, second, scatter, own = (
            np.sum(column, axis=0) for column in zip(*parts, strict=True)
        )
        mean, left = first / mass, 1 - square
        centred = scatter - np.outer(mean, second) - np.outer(second, mean) + square * np.outer(mean, mean)
        return cls(centred / left if left > 1e-12 else np.full_like(centred, np.nan), own)

    def errors(self, features: Sequence[str]) -> tuple[Array, Array]:
        """Standard errors of levels and of gains, (m,) each."""
        mass, first, square, second, third = self.own
        mean, left = first / mass, 1 - square / mass**2
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = (third - 2 * mean * second + mean**2 * square) / mass**2 / left
        found = np.sqrt(np.maximum(np.where(left > 1e-12, variance, np.nan), 0))
        return found[: len(features)], found[len(features) :]


@dataclass(frozen=True, eq=False)
class _Reached:
    """A task: sums of σ_g(d) − dᵀψ_g over prompts, less their mean, by which cohorts they belong to.

    `reach` is the mean of σ_g(d): so near to zero sums of squares do not cancel.
    """

    features: Features
    direction: Array
    reach: float
    block: int | None
    lower: tuple[End | None, ...]
    upper: tuple[End | None, ...]

    def __call__(self, piece: Piece) -> dict[bytes, Array]:
        groups = self.features.groups(piece)
        ends = [
            low if d > 0 else high
            for d, low, high in zip(self.direction, self.lower, self.upper, strict=True)
        ]
        influence = _influences(self.features, piece, ends)
        mean = [0.0 if end is None else end.mean for end in ends]
        x = prompt_support(groups, self.direction, self.block) - self.reach
        x -= (influence - mean) @ self.direction
        everyone = np.ones(len(x), bool)
        acting = [self.features.inside(piece, int(i)) for i in np.flatnonzero(self.direction)]
        inside = np.column_stack([everyone, *acting])
        kinds, kind = np.unique(inside, axis=0, return_inverse=True)
        a = groups.weights
        sums = [np.bincount(kind.ravel(), w, len(kinds)) for w in (a, a * x, a**2, a**2 * x, a**2 * x**2)]
        return {
            k.tobytes(): np.array(column) for k, column in zip(kinds, zip(*sums, strict=True), strict=True)
        }


def _reach_error(parts: Sequence[dict[bytes, Array]]) -> float:
    """What `uncertainty.reach_error` says of all prompts at once."""
    kinds: dict[bytes, Array] = {}
    for part in parts:
        for kind, sums in part.items():
            kinds[kind] = kinds.get(kind, np.zeros(5)) + sums
    table = np.array(list(kinds.values()))
    mass, first, square, second, third = table.T
    mean, left = first / mass, 1 - float(square.sum())
    scatter = float(np.sum(third - 2 * mean * second + mean**2 * square))
    return float(np.sqrt(max(scatter, 0.0) / left)) if left > 1e-12 else np.nan


def pose_shards(
    shards: Shards,
    palette: Palette,
    candidates: Candidates,
    mode: Literal["prompt", "joint"] | None,
    weighting: str,
    seed: int,
) -> Streaming:
    """Resolves `palette` on pieces; ValueError of one line for what makes no sense there."""
    check(mode, seed)
    if palette.maximised:
        raise ValueError(
            '"max" needs a pilot in memory: read it with Pilot.read, or ask for a level, got "max"'
        )
    own = () if weighting in ("prompts", "rows") else (weighting,)
    shards.head.check(own, "weighting")
    shards.head.check(palette.columns, "cohorts")
    columns = tuple(dict.fromkeys((*palette.columns, *own)))
    counted = census(shards, columns, weighting)
    choice = sum(share for size, share in counted.shares.items() if size > 1)
    joint = reweighs_prompts(mode, choice, 5)
    _check_smallest(counted, candidates)
    k = calibrated(counted.distinct, candidates, joint)
    within = k if isinstance(k, int) else int(counted.distinct[-1])
    surveyed = survey(shards, columns, counted, palette, candidates=within, joint=joint)
    ends = np.array([surveyed.above(surveyed.resolved.lower), surveyed.above(surveyed.resolved.upper)])
    check_units(surveyed.resolved, surveyed.scale, ends)
    return Streaming(shards, palette, counted, surveyed, columns, k, joint, weighting, int(seed))


def _check_smallest(counted: Census, candidates: Candidates) -> None:
    if isinstance(candidates, int) and candidates > (smallest := int(counted.distinct[0])):
        many = sum(n for sizes in counted.sizes for size, n in sizes.items() if size < candidates)
        raise ValueError(
            f"candidates must be at most each prompt's own number, got {candidates} where {many:,} prompts have fewer "
            f"(the smallest has {smallest})"
        )
