"""A palette resolved on pieces: what `posing.pose` does in memory, in a few passes.

count      how many prompts there are, of how many candidates, with what weight; no prompt in two places
thresholds of tails that are quantiles, and base levels of cohorts, where there are any
quantiles  of every feature
survey     base levels, spreads, and the bounds that are means over prompts; and a sample to begin Newton on
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.features import Feature, Resolved, features_of
from valuepalette.grouping import Array, Groups
from valuepalette.palette import Ask, Palette, Subject
from valuepalette.pools import Features
from valuepalette.quantities import Level, Most, Quantile, Reach, Scored, Side, bandwidth
from valuepalette.resolving import GRID, sides, subjects_of
from valuepalette.selecting import MARKS, Wanted, quantiles
from valuepalette.shards import Piece, Shards

__all__ = ["Census", "End", "Survey", "census", "survey"]

SAMPLE = 1 << 17
"""Rows, about, from which marks for quantiles are set."""
WARM = 0.1
"""The part of the prompts that Newton begins on, where memory allows."""


@dataclass(frozen=True, eq=False)
class Census:
    """What there is, in all pieces.

    weighting  of the prompts
    total      what the weights of all prompts add up to
    places     of the pieces, in order
    sizes      for each piece, how many prompts it has of each number of candidates
    shares     of the weight, by number of candidates
    squares    Σ_g a_g² / K_g, one over the effective number of rows
    first      values (1, V) and columns of the first row: a point to measure from
    sample     (s, V) values of some rows
    """

    weighting: str
    total: float
    places: tuple[tuple[int, int], ...]
    sizes: tuple[Mapping[int, int], ...]
    shares: Mapping[int, float]
    squares: float
    first: tuple[Array, Mapping[str, Any]]
    sample: Array

    @cached_property
    def prompts(self) -> int:
        return sum(sum(sizes.values()) for sizes in self.sizes)

    @property
    def distinct(self) -> NDArray[np.intp]:
        """The different numbers of candidates, ascending."""
        return np.array(sorted(self.shares), dtype=np.intp)


@dataclass(frozen=True, eq=False)
class _Counted:
    place: tuple[int, int]
    sizes: dict[int, int]
    weights: dict[int, float]
    squares: float
    ids: NDArray[Any]
    ascending: bool
    first: tuple[Array, dict[str, Any]]
    sample: Array


@dataclass(frozen=True, eq=False)
class _Count:
    features: Features
    rate: float

    def __call__(self, piece: Piece) -> _Counted:
        weights, sizes = self.features.weights(piece), np.diff(piece.starts)
        counts, shares = np.bincount(sizes), np.bincount(sizes, weights)
        rng = np.random.default_rng(piece.place)
        picked = rng.random(len(piece.values)) < self.rate
        numbers = piece.ids if piece.ids.dtype.kind in "iu" else np.array([_digest(x) for x in piece.ids])
        return _Counted(
            piece.place,
            {int(size): int(counts[size]) for size in np.flatnonzero(counts)},
            {int(size): float(shares[size]) for size in np.flatnonzero(counts)},
            float(np.sum(weights**2 / sizes)),
            numbers,
            bool((numbers[1:] > numbers[:-1]).all()),
            (
                piece.values[:1].astype(np.float64),
                {name: entries[:1] for name, entries in piece.columns.items()},
            ),
            piece.values[picked].astype(np.float64),
        )


def _digest(text: object) -> np.uint64:
    """64 bits that tell a text from others, the same in every process."""
    return np.uint64(int.from_bytes(blake2b(str(text).encode(), digest_size=8).digest(), "big"))


def census(shards: Shards, columns: tuple[str, ...], weighting: str) -> Census:
    """Counts what there is; a ValueError of one line where the rows of a prompt do not stand together."""
    features = Features(shards.head.values, (), weighting)
    found: list[_Counted] = []
    ids = _Ids(shards.memory // 8)
    for one in shards.map(_Count(features, min(1.0, SAMPLE / shards.rows)), columns):
        ids.add(one)
        found.append(replace(one, ids=one.ids[:0]))
    if repeated := ids.repeated():
        raise ValueError(
            f"{shards.head.key} {repeated}: the rows of a prompt must stand together, in one file, and do not"
        )
    shares: dict[int, float] = {}
    for one in found:
        for size, weight in one.weights.items():
            shares[size] = shares.get(size, 0.0) + weight
    total = sum(shares.values())
    return Census(
        weighting,
        total,
        tuple(one.place for one in found),
        tuple(one.sizes for one in found),
        {size: weight / total for size, weight in sorted(shares.items())},
        sum(one.squares for one in found) / total**2,
        found[0].first,
        np.concatenate([one.sample for one in found]),
    )


@dataclass
class _Ids:
    """Whether a prompt stands in two places. Ids that ascend take no memory; others must fit in `room` bytes."""

    room: int
    kept: list[NDArray[Any]] = field(default_factory=list)
    size: int = 0
    ascending: bool = True
    last: Any = None

    def add(self, one: _Counted) -> None:
        self.ascending &= one.ascending and (self.last is None or bool(one.ids[0] > self.last))
        self.last = one.ids[-1]
        self.size += one.ids.nbytes
        if self.size <= self.room:
            self.kept.append(one.ids)
        else:
            self.kept.clear()
            if not self.ascending:
                raise ValueError(
                    "prompt_id must ascend from row to row, or memory be larger: to see that no prompt stands in two "
                    f"places takes {8 * self.size:,} bytes or more"
                )

    def repeated(self) -> str | None:
        if self.ascending or not self.kept:
            return None
        ids = np.sort(np.concatenate(self.kept))
        twice = ids[1:][ids[1:] == ids[:-1]]
        if not len(twice):
            return None
        return str(twice[0]) if twice.dtype != np.uint64 else "(a text)"


@dataclass(frozen=True, eq=False)
class End:
    """One entry's bound on one side of a feature, and the influence of a piece's prompts on it.

    bound  the level asked for, where it is known before the pieces are surveyed; nan where it is their mean
    slope  of the quantile function, for a quantile
    shift  what a cohort's influence is moved by
    mean   of the influence over all prompts
    """

    feature: int
    ask: Ask
    side: Side
    candidates: int
    joint: bool
    scale: str
    bound: float = np.nan
    slope: float = 0.0
    shift: float = 0.0
    mean: float = 0.0

    def told(self, own: Groups) -> tuple[float, Array]:
        """Bound − base on these prompts alone, and ψ of each of them (N,); `own` is one column of numbers."""
        quantity, means = self.ask.quantity, own.means[:, 0]
        if isinstance(quantity, Quantile):
            excess = quantity.percent / 100 - (own.values[:, 0] <= self.bound)
            return 0.0, self.slope * np.add.reduceat(excess, own.starts[:-1]) / own.sizes
        if isinstance(quantity, Reach) and self.joint:
            return 0.0, (1 - quantity.percent / 100) * means
        weighed = Groups(own.values, own.starts, own.weights / own.weights.sum())
        base = float(means[0] + np.sum(weighed.weights * (means - means[0])))
        scored = Scored(weighed, base, self.candidates, self.joint, self.scale)
        try:
            bound, influence = quantity.bound(scored, self.side)
        except ValueError as error:
            raise ValueError(f"palette[{str(self.ask.subject)!r}]: {error}") from None
        return bound - base, influence


@dataclass(frozen=True, eq=False)
class Survey:
    """A palette on pieces: all that a verdict needs to begin.

    resolved   without the influences of prompts, which `lower` and `upper` tell of a piece
    features   how a piece becomes groups of features
    scale      (m,) standard deviation within prompts, or over all in joint mode; zero below rounding
    away       (m,) Σ_g a_g (mean_g − pivot); levels are formed from differences to `pivot` (m,)
    lower      of each feature the entry behind its lower bound; None where it has no influence
    sample     some whole prompts, with weights that add up to one
    lost       features whose spread is lost in rounding
    """

    resolved: Resolved
    features: Features
    scale: Array
    pivot: Array
    away: Array
    lower: tuple[End | None, ...]
    upper: tuple[End | None, ...]
    sample: Groups
    largest: Array
    lost: NDArray[np.bool_]

    def above(self, bounds: Array) -> Array:
        """bounds − c0, formed from differences."""
        return (bounds - self.pivot) - self.away


@dataclass(frozen=True, eq=False)
class _Level:
    """A task: of each feature, the weight of its own prompts, Σ a (mean − pivot) and Σ a² / K over them."""

    features: Features
    pivot: Array

    def __call__(self, piece: Piece) -> Array:
        out = np.zeros((len(self.features.specs), 3))
        for i in range(len(out)):
            if (own := self.features.own(piece, i)) is not None:
                away = float(own.weights @ (own.means[:, 0] - self.pivot[i]))
                out[i] = own.weights.sum(), away, np.sum(own.weights**2 / own.sizes)
        return out


@dataclass(frozen=True, eq=False)
class _Surveyed:
    """Of a piece: weight, Σ a (mean − pivot), its own mean's scatter, and Σ a (delta, ψ, 1) of each end."""

    weight: float
    away: Array
    over: Array
    within: Array
    largest: Array
    varies: NDArray[np.bool_]
    ends: Array
    sample: tuple[Array, NDArray[np.intp], Array]


@dataclass(frozen=True, eq=False)
class _Survey:
    features: Features
    pivot: Array
    ends: tuple[End, ...]
    rate: float

    def __call__(self, piece: Piece) -> _Surveyed:
        groups = self.features.groups(piece)
        weight = float(groups.weights.sum())
        away = np.einsum("g,gm->m", groups.weights, groups.means - self.pivot)
        centre, share = self.pivot + away / weight, groups.row_weights
        deviation = groups.values - centre
        over = np.einsum("nm,nm,n->m", deviation, deviation, share)
        deviation = groups.values - np.repeat(groups.means, groups.sizes, axis=0)
        within = np.einsum("nm,nm,n->m", deviation, deviation, share)
        ends = np.zeros((len(self.ends), 3))
        for row, end in zip(ends, self.ends, strict=True):
            if (own := self.features.own(piece, end.feature)) is not None:
                delta, influence = end.told(own)
                mass = float(own.weights.sum())
                row[:] = mass * delta, float(own.weights @ influence), mass
        rng = np.random.default_rng([*piece.place, 1])
        picked = rng.random(len(groups.sizes)) < self.rate
        rows = np.repeat(picked, groups.sizes)
        return _Surveyed(
            weight,
            away,
            over,
            within,
            np.abs(groups.values).max(axis=0),
            np.ptp(groups.values, axis=0) > 0,
            ends,
            (groups.values[rows], groups.sizes[picked], groups.weights[picked]),
        )


def survey(
    shards: Shards,
    columns: tuple[str, ...],
    counted: Census,
    palette: Palette,
    *,
    candidates: int,
    joint: bool,
) -> Survey:
    """Resolves `palette`: what `palette.resolve` says of all rows at once."""
    names = shards.head.values
    subjects = subjects_of(palette, names, joint=joint)
    plain = Features(names, (), counted.weighting, counted.total)
    features = _placed(shards, columns, counted, plain, subjects)
    specs = features.specs
    pivot = features_of(specs, counted.first[0], names, counted.first[1])[0]
    squares = np.full(len(specs), counted.squares)
    own_pivot = np.where([spec.cohort is None for spec in specs], pivot, 0.0)
    if palette.columns:
        mass, _, square = np.sum(list(shards.map(_Level(features, own_pivot), columns)), axis=0).T
        squares = square / mass**2
    ends: list[End] = []
    for i, subject in enumerate(subjects):
        scale = shards.head.metadata.scale(subject.value) if subject.tail is None else "probability"
        ends += [
            End(i, ask, side, candidates, joint, scale)
            for ask, side in sides(palette.asks.get(subject, ()))
            if not isinstance(ask.quantity, Most)
        ]
    ends, grids = _with_quantiles(shards, columns, counted, features, ends, squares)
    rate = min(WARM, shards.memory / 64 / (8 * shards.rows * len(specs)))
    parts = list(shards.map(_Survey(features, pivot, tuple(ends), rate), columns))
    away = np.sum([part.away for part in parts], axis=0)
    within = np.sum([part.within for part in parts], axis=0)
    over = np.sum([part.over + part.weight * (part.away / part.weight - away) ** 2 for part in parts], axis=0)
    largest = np.max([part.largest for part in parts], axis=0)
    noise = 64 * np.finfo(float).eps * largest
    scale = np.sqrt(over if joint else within)
    scale = np.where(scale > noise, scale, 0.0)
    base = pivot + away
    ends = _bound(ends, np.sum([part.ends for part in parts], axis=0), specs, base, grids, joint)
    lower, upper, asked, sources, chosen = _tightest(ends, subjects, palette, specs, base)
    resolved = Resolved(
        features=tuple(str(subject) for subject in subjects),
        lower=lower,
        upper=upper,
        base=base,
        asked=asked,
        quantiles=grids,
        influence_lower=np.zeros((0, len(specs))),
        influence_upper=np.zeros((0, len(specs))),
        specs=specs,
        sources=sources,
    )
    rows, sizes, weights = (np.concatenate(column) for column in zip(*(p.sample for p in parts), strict=True))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
    share = float(weights.sum()) or 1.0
    lost = (within == 0) & np.any([part.varies for part in parts], axis=0)
    return Survey(
        resolved,
        features,
        scale,
        pivot,
        away,
        chosen[1],
        chosen[-1],
        Groups(rows, starts, weights / share),
        largest,
        lost,
    )


def _placed(
    shards: Shards,
    columns: tuple[str, ...],
    counted: Census,
    plain: Features,
    subjects: Sequence[Subject],
) -> Features:
    """Each subject's feature, once its threshold and its cohort's base level are known."""
    specs = [
        Feature(subject.value, cohort=subject.cohort and (subject.cohort.column, subject.cohort.member))
        for subject in subjects
    ]
    cuts = [
        (i, subject.tail.threshold)
        for i, subject in enumerate(subjects)
        if subject.tail is not None and isinstance(subject.tail.threshold, Quantile)
    ]
    if any(spec.cohort for spec in specs):
        _check_cohorts(shards, columns, replace(plain, specs=tuple(specs)), subjects)
    thresholds: dict[int, float] = {}
    if cuts:
        whole = replace(plain, specs=tuple(specs))
        wanted = [Wanted(i, np.array([cut.percent / 100]), _marks(counted, whole, i)) for i, cut in cuts]
        thresholds = {
            i: float(found[0])
            for (i, _), found in zip(cuts, quantiles(shards, whole, columns, wanted), strict=True)
        }
    for i, subject in enumerate(subjects):
        if subject.tail is not None:
            cut = subject.tail.threshold
            at = cut.at if isinstance(cut, Level) else thresholds[i]
            specs[i] = replace(specs[i], tail=(subject.tail.inside, at))
    features = replace(plain, specs=tuple(specs))
    if not any(spec.cohort for spec in specs):
        return features
    values = counted.first[0]
    pivot = np.array([spec.number(values[:, plain.names.index(spec.value)])[0] for spec in specs])
    mass, away, _ = np.sum(list(shards.map(_Level(features, pivot), columns)), axis=0).T
    for i, spec in enumerate(specs):
        if spec.cohort is not None:
            specs[i] = replace(spec, anchor=float(pivot[i] + away[i] / mass[i]), share=float(mass[i]))
    return replace(plain, specs=tuple(specs))


def _check_cohorts(
    shards: Shards, columns: tuple[str, ...], features: Features, subjects: Sequence[Subject]
) -> None:
    mass = np.sum(list(shards.map(_Level(features, np.zeros(len(subjects))), columns)), axis=0)[:, 0]
    for subject, weight in zip(subjects, mass, strict=True):
        if subject.cohort is not None and weight == 0:
            raise ValueError(f"the cohort {subject.cohort} must have prompts in the pilot, and has none")


def _marks(counted: Census, features: Features, feature: int) -> Array:
    spec = features.specs[feature]
    numbers = spec.number(counted.sample[:, features.names.index(spec.value)])
    return (
        np.unique(np.quantile(numbers, np.linspace(0, 1, MARKS), method="lower")) if len(numbers) else numbers
    )


def _with_quantiles(
    shards: Shards,
    columns: tuple[str, ...],
    counted: Census,
    features: Features,
    ends: Sequence[End],
    squares: Array,
) -> tuple[list[End], Array]:
    """The ends, those that are quantiles with their bound and slope; and the quantile grid of each feature (m, 101)."""
    m = len(features.specs)
    shares: list[list[float]] = [[] for _ in range(m)]
    for end in ends:
        if isinstance(end.ask.quantity, Quantile):
            share = end.ask.quantity.percent / 100
            reach = bandwidth(share, 1 / squares[end.feature])
            shares[end.feature] += [share, max(share - reach, 0.0), min(share + reach, 1.0)]
    wanted = [Wanted(i, np.concatenate([GRID, shares[i]]), _marks(counted, features, i)) for i in range(m)]
    found = quantiles(shards, features, columns, wanted)
    told, turn = list[End](), [len(GRID)] * m
    for end in ends:
        i = end.feature
        if isinstance(end.ask.quantity, Quantile):
            level, below, above = found[i][turn[i] : turn[i] + 3]
            _, low, high = wanted[i].shares[turn[i] : turn[i] + 3]
            turn[i] += 3
            end = replace(end, bound=float(level), slope=float((above - below) / (high - low)))
        told.append(end)
    return told, np.array([every[: len(GRID)] for every in found])


def _bound(
    ends: Sequence[End],
    sums: Array,
    specs: Sequence[Feature],
    base: Array,
    grids: Array,
    joint: bool,
) -> list[End]:
    """The ends with their bounds, in the units of the features, and how far a cohort moves their influence."""
    out: list[End] = []
    for end, (delta, influence, mass) in zip(ends, sums, strict=True):
        spec, quantity = specs[end.feature], end.ask.quantity
        level = float(base[end.feature]) if spec.cohort is None else spec.anchor
        bound, shift = end.bound, 0.0
        if isinstance(quantity, Level):
            bound = quantity.at
        elif isinstance(quantity, Reach) and joint:
            most = grids[end.feature, -1 if end.side > 0 else 0]
            bound = level + quantity.percent / 100 * (float(most) - level)
        elif not isinstance(quantity, Quantile):
            bound = level + delta / mass
        asked = bound
        if spec.cohort is not None:
            shift = bound - spec.anchor - influence / mass
            asked = float(base[end.feature]) + (bound - spec.anchor) * spec.share
        # A quantile's influence is counted from its own level, not from the feature's bound.
        asked = end.bound if isinstance(quantity, Quantile) else asked
        out.append(replace(end, bound=asked, shift=shift, mean=float(influence + shift * mass)))
    return out


def _tightest(
    ends: Sequence[End],
    subjects: Sequence[Subject],
    palette: Palette,
    specs: Sequence[Feature],
    base: Array,
) -> tuple[Array, Array, tuple[str, ...], tuple[tuple[str, str], ...], Mapping[Side, tuple[End | None, ...]]]:
    """Of several entries on one side of a feature the tightest counts."""
    m = len(subjects)
    limit: dict[Side, Array] = {1: np.full(m, -np.inf), -1: np.full(m, np.inf)}
    names: dict[Side, list[str]] = {1: [""] * m, -1: [""] * m}
    chosen: dict[Side, list[End | None]] = {1: [None] * m, -1: [None] * m}
    for end in ends:
        i, side, spec = end.feature, end.side, specs[end.feature]
        bound = end.bound
        if isinstance(end.ask.quantity, Quantile) and spec.cohort is not None:
            bound = float(base[i]) + (bound - spec.anchor) * spec.share
        if side * bound > side * limit[side][i]:
            limit[side][i], names[side][i], chosen[side][i] = bound, end.ask.wanted, end
    asked = tuple(
        ", ".join(ask.wanted for ask in palette.asks.get(subject, ())) or "free" for subject in subjects
    )
    sources = tuple(zip(names[1], names[-1], strict=True))
    return limit[1], limit[-1], asked, sources, {side: tuple(found) for side, found in chosen.items()}
