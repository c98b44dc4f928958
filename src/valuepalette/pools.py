"""Candidates in pieces as the verdict sees them: a pool, whose every figure is merged from those of the pieces.

Tasks are plain data with one method, so that they can be sent to where the pieces are; what comes back is a handful of
numbers for each. A pass sends λ out and gets (F, levels, scatter, σ) back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from valuepalette.features import Feature, features_of
from valuepalette.grouping import Array, Groups
from valuepalette.laying import Draws, tilted
from valuepalette.shards import Piece, Shards
from valuepalette.tilting import Tilt, Tilted, merged, prompt_support

__all__ = ["Features", "Laid", "Streamed", "support_of"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Features:
    """How a piece becomes groups of features.

    names      of the values
    specs      of the features
    weighting  of the prompts: "prompts", "rows" or a column
    total      what the weights of all prompts add up to
    """

    names: tuple[str, ...]
    specs: tuple[Feature, ...]
    weighting: str
    total: float = 1.0

    def weights(self, piece: Piece) -> Array:
        """a_g, the prompts' shares of the whole, shape (N,)."""
        sizes = np.diff(piece.starts)
        if self.weighting == "prompts":
            return np.full(len(sizes), 1 / self.total)
        if self.weighting == "rows":
            return sizes / self.total
        try:
            weights = piece.columns[self.weighting].astype(float)
        except (TypeError, ValueError):
            got = piece.columns[self.weighting][0]
            raise ValueError(f"weighting: column {self.weighting} must hold numbers, got {got!r}") from None
        wrong = ~((weights > 0) & np.isfinite(weights))
        if wrong.any():
            g = int(np.argmax(wrong))
            raise ValueError(
                f"weighting: {self.weighting} must be positive, got {weights[g]} for prompt_id {piece.ids[g]!r}"
            )
        return weights / self.total

    def groups(self, piece: Piece) -> Groups:
        """The features of a piece; its weights add up to its share of the whole."""
        sizes = np.diff(piece.starts)
        cohorts = {spec.cohort[0] for spec in self.specs if spec.cohort}
        by_row = {name: np.repeat(piece.columns[name], sizes) for name in cohorts}
        values = piece.values.astype(np.float64)
        if all(spec.tail is None and spec.cohort is None for spec in self.specs):
            # Column by column as they were read, which saves turning the table round twice.
            places = [self.names.index(spec.value) for spec in self.specs]
            table = values if places == list(range(len(self.names))) else values.T[places].T
        else:
            table = features_of(self.specs, values, self.names, by_row)
        return Groups(table, piece.starts, self.weights(piece))

    def inside(self, piece: Piece, feature: int) -> NDArray[np.bool_]:
        """Which prompts a feature is about, shape (N,)."""
        return self.specs[feature].inside(piece.columns, len(piece.starts) - 1)

    def own(self, piece: Piece, feature: int) -> Groups | None:
        """What the level of a feature is the average of, over its own prompts; None where the piece has none."""
        spec, inside = self.specs[feature], self.inside(piece, feature)
        if not inside.any():
            return None
        column = piece.values[:, self.names.index(spec.value)].astype(np.float64)
        numbers, weights, sizes = spec.number(column)[:, None], self.weights(piece), np.diff(piece.starts)
        if inside.all():
            return Groups(numbers, piece.starts, weights)
        starts = np.concatenate([[0], np.cumsum(sizes[inside])])
        return Groups(numbers[np.repeat(inside, sizes)], starts, weights[inside])


@dataclass(frozen=True, eq=False)
class Laid:
    """How a piece is laid out for passes: as `laying.tilted` would lay it out as a part of the whole.

    scale       (m,) zero where a feature has no spread
    joint       one group of everything, measured from `centre` (m,), the base levels
    block       k, for random blocks, `partitions` of them; None for whole groups
    draws       for each piece, by its place, where the generator of blocks stands
    faces       direction, tolerance, and the largest dᵀz of all (joint mode) of each face it is restricted to
    """

    features: Features
    scale: Array
    joint: bool
    centre: Array | None = None
    block: int | None = None
    partitions: int = 4
    draws: Mapping[tuple[int, int], Draws] = field(default_factory=dict)
    faces: tuple[tuple[Array, float, float | None], ...] = ()

    def source(self, piece: Piece, groups: Groups) -> Tilted | None:
        """None where the faces leave nothing of a piece of the one group."""
        source = tilted(
            groups,
            self.scale,
            joint=self.joint,
            block=self.block,
            seed=0 if self.block is None else self.draws[piece.place],
            partitions=self.partitions,
            centre=self.centre,
        )
        for direction, tolerance, largest in self.faces:
            source = source.face(direction, tolerance, largest)
            if not source.chunks:
                return None
        return source


@dataclass(frozen=True, eq=False)
class _On(Generic[T]):
    """A task: some work on the source of each piece; None where there is no source."""

    laid: Laid
    work: Callable[[Tilted], T]

    def __call__(self, piece: Piece) -> T | None:
        source = self.laid.source(piece, self.laid.features.groups(piece))
        return None if source is None else self.work(source)


@dataclass(frozen=True, eq=False)
class Streamed:
    """A `Pool` of candidates in pieces. In memory are the pieces at work and a few numbers for each of the others."""

    shards: Shards
    laid: Laid
    columns: tuple[str, ...] = ()
    _widths: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        return len(self.laid.scale)

    @property
    def scale(self) -> Array:
        return np.where(self.laid.scale > 0, self.laid.scale, 1.0)

    def ask(self, work: Callable[[Tilted], T]) -> list[T]:
        """What `work` returns for each piece's source, in order."""
        every = self.shards.map(_On(self.laid, work), self.columns)
        return [found for found in every if found is not None]

    def pass_(self, weights: Array) -> Tilt:
        if weights.any():
            return merged(self.ask(partial(_pass, weights)), joint=self.laid.joint)
        # The pass at zero comes first: what the proof will ask for is read on the way.
        tilts, ends = zip(*self.ask(partial(_first, weights, self.laid.joint)), strict=True)
        if self.laid.joint:
            low, high = (np.array(end) for end in zip(*ends, strict=True))
            self._widths["widest"] = high.max(axis=0) - low.min(axis=0)
        else:
            self._widths["widest"] = np.max(ends, axis=0)
        return merged(tilts, joint=self.laid.joint)

    def diameters(self) -> Array:
        if "widest" not in self._widths:
            self.pass_(np.zeros(self.size))
        return self._widths["widest"]

    def support(self, direction: Array) -> tuple[float, Array]:
        """σ(d) and a reachable point that attains it."""
        found = self.ask(partial(_support, direction))
        if self.laid.joint:
            return max(found, key=lambda one: one[0])
        point = np.sum([point for _, point in found], axis=0)
        return float(direction @ point), point

    def subset_support(self, direction: Array, k: int) -> tuple[float, Array]:
        """σ_k(d) and a point that attains it."""
        point = np.sum(self.ask(partial(_subset_support, direction, k)), axis=0)
        return float(direction @ point), point

    def face(self, direction: Array, tolerance: float) -> Streamed:
        largest = self.support(direction)[0] if self.laid.joint else None
        faces = (*self.laid.faces, (direction, tolerance, largest))
        return replace(self, laid=replace(self.laid, faces=faces), _widths={})

    def kish(self, weights: Array) -> float:
        found = self.ask(partial(_kish, weights))
        if not self.laid.joint:
            return float(sum(kish for kish, _ in found))
        kish, logs = np.array(found).T
        return float(1 / np.sum(np.exp(2 * (logs - np.logaddexp.reduce(logs))) / kish))


def _pass(weights: Array, source: Tilted) -> Tilt:
    return source.pass_(weights)


def _first(weights: Array, joint: bool, source: Tilted) -> tuple[Tilt, Any]:
    tilt = source.pass_(weights)
    if not joint:
        return tilt, source.diameters()
    low, high = next(source.ends())
    return tilt, (low[:, 0], high[:, 0])


def _support(direction: Array, source: Tilted) -> tuple[float, Array]:
    return source.support(direction)


def _subset_support(direction: Array, k: int, source: Tilted) -> Array:
    return source.subset_support(direction, k)[1]


def _kish(weights: Array, source: Tilted) -> tuple[float, float]:
    return source.kish(weights), source.pass_(weights).log_partition


@dataclass(frozen=True, eq=False)
class _Alone:
    """A task: Σ_g a_g σ_g(d) in the units of the features for each k, None for all candidates; joint, the largest."""

    features: Features
    direction: Array
    blocks: tuple[int | None, ...]
    joint: bool

    def __call__(self, piece: Piece) -> Array:
        groups = self.features.groups(piece)
        if self.joint:
            return np.array([(groups.values @ self.direction).max()])
        every = (prompt_support(groups, self.direction, block) for block in self.blocks)
        return np.array([groups.weights @ best for best in every])


def support_of(
    shards: Shards,
    features: Features,
    columns: tuple[str, ...],
    direction: Array,
    blocks: Sequence[int | None],
    *,
    joint: bool,
) -> Array:
    """How far dᵀlevel goes alone, in the units of the features, for each of some k, None for all candidates."""
    found = list(shards.map(_Alone(features, direction, tuple(blocks), joint), columns))
    return np.max(found, axis=0) if joint else np.sum(found, axis=0)
