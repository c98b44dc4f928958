# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One pass over scored candidates for one weight vector: log-partition, levels, centred Hessian, support.

The rest of the mathematics sees the data through `Source.pass_` and `Source.support` alone, so that a source
may hold its rows in memory, in blocks of k, restricted to a face, or elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Groups",
    "Source",
    "Tilt",
    "Tilted",
    "prompt_support",
    "spread",
    "subset_weights",
    "tilted",
]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

ROWS = 8192
"""Rows in a chunk: with six features its working set stays in the second-level cache."""


@dataclass(frozen=True)
class Groups:
    """Scored candidates by prompt: prompt g owns rows `starts[g]` to `starts[g + 1]`.

    values   (n, m)   a row per candidate, a column per feature
    starts   (N + 1,) row offsets of the N prompts; every prompt has at least one candidate
    weights  (N,)     a_g > 0, summing to one
    """

    values: Array
    starts: Index
    weights: Array

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.starts[-1] != len(self.values):
            raise ValueError(
                f"values must have {self.starts[-1]} rows, as starts says, got shape {self.values.shape}"
            )
        if len(self.weights) != len(self.starts) - 1:
            raise ValueError(f"weights must have {len(self.starts) - 1} entries, got {len(self.weights)}")

    @cached_property
    def sizes(self) -> Index:
        """K_g, the number of candidates of each prompt, shape (N,)."""
        return np.diff(self.starts)

    @cached_property
    def means(self) -> Array:
        """The mean of each prompt's candidates, shape (N, m)."""
        first = self.values[self.starts[:-1]]
        offsets = self.values - np.repeat(first, self.sizes, axis=0)
        return first + np.add.reduceat(offsets, self.starts[:-1], axis=0) / self.sizes[:, None]

    @cached_property
    def base(self) -> Array:
        """c0, the level of the base model, shape (m,)."""
        pivot = self.means[0]
        return pivot + self.weights @ (self.means - pivot)

    @cached_property
    def row_weights(self) -> Array:
        """a_g / K_g for each row, shape (n,)."""
        return np.repeat(self.weights / self.sizes, self.sizes)

    def above(self, bounds: Array) -> Array:
        """bounds - c0, formed from differences so that a large common offset costs no digits; shape (m,)."""
        with np.errstate(invalid="ignore"):
            return self.weights @ (bounds - self.means)


@dataclass(frozen=True, slots=True)
class Tilt:
    """What one pass returns for one λ (MATH: F, ∇F, ∇²F, σ).

    log_partition  F(λ) = Σ_g a_g log Σ_j b_gj exp(λᵀr_gj)
    levels         ∇F, shape (m,)
    covariance     ∇²F in the centred form, shape (m, m)
    support        σ(λ) = Σ_g a_g max_j λᵀr_gj
    """

    log_partition: float
    levels: Array
    covariance: Array
    support: float


class Source(Protocol):
    """Features that can be tilted."""

    @property
    def size(self) -> int:
        """m, the number of features."""
        ...

    def pass_(self, weights: Array) -> Tilt:
        """One pass over the data."""
        ...

    def support(self, direction: Array) -> tuple[float, Array]:
        """σ(d) and one of the reachable points that attain it, shape (m,)."""
        ...


def spread(groups: Groups, *, joint: bool) -> Array:
    """Standard deviation of each feature inside the groups that are tilted, shape (m,).

    Zero where a feature has no spread beyond rounding, 64 ε max|r|.
    """
    centre = groups.base[None] if joint else np.repeat(groups.means, groups.sizes, axis=0)
    deviation = groups.values - centre
    scale = np.sqrt(groups.row_weights @ (deviation * deviation))
    noise = 64 * np.finfo(float).eps * np.abs(groups.values).max(axis=0)
    return np.where(scale > noise, scale, 0.0)


@dataclass(frozen=True)
class _Chunk:
    """A few thousand rows laid out for vector arithmetic.

    features  (m, A, B) contiguous; candidates run along `axis` of the (A, B) plane, groups along the other
    rows      (A, B)    the row of `Groups.values` behind each entry
    prompt    (G,)      the prompt that each group belongs to
    weight              a_g, shaped to broadcast over the plane
    base                b_gj where it is not 1/K everywhere; zero where a candidate was removed
    part                this chunk's group goes on in the next chunk
    """

    features: Array
    axis: int
    rows: Index
    prompt: Index
    weight: Array
    base: Array | None = None
    part: bool = False

    def scores(self, weights: Array) -> Array:
        plane = (weights @ self.features.reshape(len(weights), -1)).reshape(self.rows.shape)
        if self.base is not None:
            plane[self.base == 0] = -np.inf
        return plane

    def tilt(self, weights: Array) -> tuple[Array, Array, Array]:
        """Weights inside each group, and each group's maximum and log-partition, for this chunk alone."""
        scores = self.scores(weights)
        top = scores.max(axis=self.axis, keepdims=True)
        tilted = np.exp(scores - top)
        if self.base is not None:
            tilted *= self.base
        total = tilted.sum(axis=self.axis, keepdims=True)
        tilted /= total
        log_total = top + np.log(total)
        if self.base is None:
            log_total -= np.log(self.rows.shape[self.axis])
        return tilted, top, log_total

    def moments(self, weights: Array) -> _Part:
        """Of a chunk that is part of one long group."""
        inside, top, log_total = self.tilt(weights)
        features = self.features.reshape(len(weights), -1)
        mean = features @ inside.reshape(-1)
        deviation = features - mean[:, None]
        scatter = (deviation * inside.reshape(-1)) @ deviation.T
        return _Part(float(log_total.item()), float(top.item()), mean, scatter)


@dataclass(frozen=True)
class _Part:
    """Moments of part of a group: log of its weight, maximum, mean, scatter per unit of weight."""

    log_weight: float
    top: float
    mean: Array
    scatter: Array

    def merge(self, other: _Part) -> _Part:
        log_weight = float(np.logaddexp(self.log_weight, other.log_weight))
        share = np.exp(other.log_weight - log_weight)
        step = other.mean - self.mean
        scatter = (
            (1 - share) * self.scatter + share * other.scatter + share * (1 - share) * np.outer(step, step)
        )
        return _Part(log_weight, max(self.top, other.top), self.mean + share * step, scatter)


@dataclass(frozen=True)
class Tilted:
    """Rows in memory, in standardised units: z = (r − centre of its group) / scale.

    Levels of z are levels of r minus c0, in units of `scale`. A feature without spread has z = 0 and scale 1.
    `block` is the k that the groups were cut to; None where a group is a whole prompt, or everything (joint).
    """

    chunks: tuple[_Chunk, ...]
    scale: Array
    prompts: int
    rows: int
    joint: bool
    block: int | None

    @property
    def size(self) -> int:
        return len(self.scale)

    def _runs(self) -> Iterator[list[_Chunk]]:
        """The chunks, those of one long group together."""
        run: list[_Chunk] = []
        for chunk in self.chunks:
            run.append(chunk)
            if not chunk.part:
                yield run
                run = []

    def pass_(self, weights: Array) -> Tilt:
        m = self.size
        log_partition, support = 0.0, 0.0
        levels, covariance = np.zeros(m), np.zeros((m, m))
        for run in self._runs():
            if len(run) > 1:
                parts = [chunk.moments(weights) for chunk in run]
                whole = parts[0]
                for part in parts[1:]:
                    whole = whole.merge(part)
                share = float(run[0].weight.item())
                log_partition += share * whole.log_weight
                support += share * whole.top
                levels += share * whole.mean
                covariance += share * whole.scatter
                continue
            chunk = run[0]
            inside, top, log_total = chunk.tilt(weights)
            mean = (chunk.features * inside).sum(axis=chunk.axis + 1, keepdims=True)
            deviation = (chunk.features - mean).reshape(m, -1)
            inside *= chunk.weight
            covariance += (deviation * inside.reshape(-1)) @ deviation.T
            log_partition += float((chunk.weight * log_total).sum())
            support += float((chunk.weight * top).sum())
            levels += mean.reshape(m, -1) @ chunk.weight.reshape(-1)
        return Tilt(log_partition, levels, covariance, support)

    def support(self, direction: Array) -> tuple[float, Array]:
        """σ(d) over the whole groups of this source, and the mean of the candidates that attain it."""
        point = np.zeros(self.size)
        for run in self._runs():
            best = (
                max(run, key=lambda chunk: float(chunk.scores(direction).max())) if len(run) > 1 else run[0]
            )
            at = np.expand_dims(best.scores(direction).argmax(axis=best.axis), best.axis)
            picked = np.take_along_axis(best.features, at[None], axis=best.axis + 1)
            point += picked.reshape(self.size, -1) @ best.weight.reshape(-1)
        return float(direction @ point), point

    def subset_support(self, direction: Array, k: int) -> tuple[float, Array]:
        """σ_k(d), k candidates drawn from each prompt's without replacement, and a point that attains it."""
        point = np.zeros(self.size)
        for run in self._runs():
            axis = run[0].axis
            scores = np.concatenate([chunk.scores(direction) for chunk in run], axis=axis)
            features = np.concatenate([chunk.features for chunk in run], axis=axis + 1)
            rank = np.expand_dims(subset_weights(scores.shape[axis], k), 1 - axis)
            share = np.empty(scores.shape)
            np.put_along_axis(
                share, scores.argsort(axis=axis), np.broadcast_to(rank, scores.shape), axis=axis
            )
            point += features.reshape(self.size, -1) @ (share * run[0].weight).reshape(-1)
        return float(direction @ point), point

    def _inside(self, weights: Array) -> Iterator[list[tuple[_Chunk, Array]]]:
        """The runs, each chunk with the weights of its candidates inside their whole group."""
        for run in self._runs():
            tilts = [chunk.tilt(weights) for chunk in run]
            if len(run) == 1:
                yield [(run[0], tilts[0][0])]
                continue
            logs = np.array([log_total.item() for _, _, log_total in tilts])
            shares = np.exp(logs - np.logaddexp.reduce(logs))
            yield [(chunk, tilt[0] * share) for chunk, tilt, share in zip(run, tilts, shares, strict=True)]

    def row_weights(self, weights: Array) -> Array:
        """The probability of each row under p_λ, prompts included; sums to one; shape (n,)."""
        out = np.zeros(self.rows)
        for run in self._inside(weights):
            for chunk, inside in run:
                # A row stands once in a partition but in several partitions.
                share = (inside * chunk.weight).reshape(-1)
                out += np.bincount(chunk.rows.reshape(-1), share, minlength=self.rows)
        return out

    def row_deviations(self, weights: Array) -> Array:
        """For each row the sum, over the groups it stands in, of its probability times z − level, shape (n, m).

        How fast the levels rise with λᵀz of that row alone. Times the features and summed over rows it is ∇²F.
        """
        out = np.zeros((self.rows, self.size))
        for run in self._inside(weights):
            axis = run[0][0].axis
            level = sum((chunk.features * inside).sum(axis + 1, keepdims=True) for chunk, inside in run)
            for chunk, inside in run:
                pull = ((chunk.features - level) * (inside * chunk.weight)).reshape(self.size, -1)
                rows = chunk.rows.reshape(-1)
                for i in range(self.size):
                    out[:, i] += np.bincount(rows, pull[i], minlength=self.rows)
        return out

    def kish(self, weights: Array) -> float:
        """Kish's effective number of candidates in a group, 1 / Σ_j w_gj², averaged over groups by weight."""
        total = 0.0
        for run in self._inside(weights):
            square = sum((inside**2).sum(axis=chunk.axis, keepdims=True) for chunk, inside in run)
            total += float((run[0][0].weight / square).sum())
        return total

    def diameters(self) -> Array:
        """max_j z_gj − min_j z_gj, the largest over the groups, shape (m,)."""
        widest = np.zeros(self.size)
        for run in self._runs():
            low, high = np.full(1, np.inf), np.full(1, -np.inf)
            for chunk in run:
                kept = True if chunk.base is None else chunk.base > 0
                axis = chunk.axis + 1
                low = np.minimum(low, np.where(kept, chunk.features, np.inf).min(axis=axis))
                high = np.maximum(high, np.where(kept, chunk.features, -np.inf).max(axis=axis))
            widest = np.maximum(widest, (high - low).max(axis=1))
        return widest

    def face(self, direction: Array, tolerance: float) -> Tilted:
        """Only the candidates with dᵀz within `tolerance` of their group's largest; the rest weigh zero."""
        chunks: list[_Chunk] = []
        for run in self._runs():
            scores = [chunk.scores(direction) for chunk in run]
            top = np.max([plane.max(axis=run[0].axis, keepdims=True) for plane in scores], axis=0)
            size = sum(plane.shape[run[0].axis] for plane in scores)
            kept: list[_Chunk] = []
            for chunk, plane in zip(run, scores, strict=True):
                base = np.full(plane.shape, 1 / size) if chunk.base is None else chunk.base
                base = np.where(plane >= top - tolerance, base, 0.0)
                if base.any():
                    kept.append(replace(chunk, base=base))
            chunks += [*kept[:-1], replace(kept[-1], part=False)]
        return replace(self, chunks=tuple(chunks))


def subset_weights(size: int, k: int) -> Array:
    """C(j−1, k−1) / C(K, k) for j = 1…K: the chance that the j-th smallest of K is the largest of a random k.

    >>> subset_weights(4, 2) * 6
    array([0., 1., 2., 3.])
    """
    if not 1 <= k <= size:
        raise ValueError(f"k must lie between 1 and the {size} candidates of a prompt, got {k}")
    # From the top down each weight is the one above it times (j − k + 1) / j: products of numbers below one.
    below = np.arange(size - 1, 0, -1.0)
    ratios = np.concatenate([[1.0], np.maximum(below - k + 1, 0) / below])
    return np.asarray(np.cumprod(ratios)[::-1] * (k / size), dtype=np.float64)


def prompt_support(groups: Groups, direction: Array, block: int | None = None) -> Array:
    """σ_g(d) of each prompt, shape (N,): the expected largest dᵀr among k of its K_g candidates.

    `block` is k; None takes all candidates, so the plain maximum.
    """
    scores = groups.values @ direction
    if block is None:
        return np.maximum.reduceat(scores, groups.starts[:-1])
    out = np.empty(len(groups.sizes))
    for size in np.unique(groups.sizes):
        which = np.flatnonzero(groups.sizes == size)
        plane = scores[groups.starts[which][:, None] + np.arange(size)]
        out[which] = np.sort(plane, axis=1) @ subset_weights(int(size), block)
    return out


def tilted(
    groups: Groups,
    scale: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    partitions: int = 4,
) -> Tilted:
    """Standardise `groups` by `scale` and lay them out for passes.

    `joint` makes one group of everything, b = a_g / K_g. Otherwise `block=k` cuts each prompt's candidates
    into random disjoint blocks of k, `partitions` times with seeds that follow from `seed`; a prompt's weight
    is split over its blocks, and what leftovers would move of its mean is given back to every block.
    """
    inverse = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0.0)
    chunks: list[_Chunk] = []
    if joint:
        rows = np.arange(len(groups.values))[None]
        z = (groups.values - groups.base) * inverse
        chunks += _chunks(
            z.T[:, None, :], 1, rows, np.zeros(1, np.intp), np.ones(1), groups.row_weights[None]
        )
    else:
        rng = np.random.default_rng(seed)
        for size in np.unique(groups.sizes):
            which = np.flatnonzero(groups.sizes == size)
            rows = groups.starts[which][:, None] + np.arange(size)
            prompt, weight = which, groups.weights[which]
            z = (groups.values[rows] - groups.means[which][:, None]) * inverse
            if block is not None and block < size:
                rows, z = _blocks(rows, z, block, partitions, rng)
                each = len(rows) // len(which)
                prompt, weight = np.repeat(which, each), np.repeat(weight / each, each)
            # The longer of the two axes lies innermost, so that every reduction runs over long vectors.
            wide = len(prompt) >= z.shape[1]
            features, plane = (z.transpose(2, 1, 0), rows.T) if wide else (z.transpose(2, 0, 1), rows)
            chunks += _chunks(features, 0 if wide else 1, plane, prompt, weight, None)
    return Tilted(
        tuple(chunks),
        np.where(scale > 0, scale, 1.0),
        len(groups.sizes),
        len(groups.values),
        joint,
        None if joint else block,
    )


def _blocks(rows: Index, z: Array, k: int, partitions: int, rng: np.random.Generator) -> tuple[Index, Array]:
    """Blocks of k inside each prompt, (blocks of all prompts, k): random and disjoint, or all where these are fewer."""
    prompts, size, features = z.shape
    used = size // k * k
    if comb(size, k) <= partitions * (size // k):
        every = np.array(list(combinations(range(size), k)), dtype=np.intp)
        picked = np.broadcast_to(every.reshape(-1), (prompts, every.size))
    else:
        order = np.broadcast_to(np.arange(size), (prompts, partitions, size))
        picked = rng.permuted(order, axis=2)[:, :, :used].reshape(prompts, -1)
    inside = np.take_along_axis(z, picked[:, :, None], axis=1)
    inside = inside - inside.mean(axis=1, keepdims=True)
    return np.take_along_axis(rows, picked, axis=1).reshape(-1, k), inside.reshape(-1, k, features)


def _chunks(
    features: Array, axis: int, rows: Index, prompt: Index, weight: Array, base: Array | None
) -> Iterator[_Chunk]:
    """Cut a plane of equal groups into contiguous chunks: by groups, or inside one that is too long."""
    size = rows.shape[axis]
    along = axis if size > ROWS else 1 - axis
    step = ROWS if size > ROWS else max(1, ROWS // size)
    if size > ROWS and len(prompt) > 1:
        for g in range(len(prompt)):
            one = (slice(g, g + 1), slice(None)) if axis == 1 else (slice(None), slice(g, g + 1))
            inner = None if base is None else base[one]
            yield from _chunks(
                features[:, *one], axis, rows[one], prompt[g : g + 1], weight[g : g + 1], inner
            )
        return
    length = rows.shape[along]
    for start in range(0, length, step):
        part = slice(start, start + step)
        cut = (part, slice(None)) if along == 0 else (slice(None), part)
        whole = along == axis
        groups = slice(None) if whole else part
        share = np.ascontiguousarray(weight[groups])
        yield _Chunk(
            np.ascontiguousarray(features[:, *cut]),
            axis,
            np.ascontiguousarray(rows[cut]),
            prompt[groups],
            share[:, None] if axis == 1 else share[None],
            _part_base(size, base, cut, rows[cut].shape, whole and length > step),
            whole and start + step < length,
        )


def _part_base(
    size: int, base: Array | None, cut: tuple[slice, slice], shape: tuple[int, ...], partial: bool
) -> Array | None:
    """Base weights of a chunk; a part of a uniform group has to be told the size of the whole."""
    if base is not None:
        return np.ascontiguousarray(base[cut])
    return np.full(shape, 1 / size) if partial else None
