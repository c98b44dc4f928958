# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One pass over scored candidates for one weight vector: log-partition, levels, centred Hessian, support.

The rest of the mathematics sees the data through `Source.pass_` and `Source.support` alone, so that a source
may hold its rows in memory, in blocks of k, restricted to a face, or elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from valuepalette import grouping
from valuepalette.grouping import Array, Groups, Index

__all__ = [
    "Chunk",
    "Pool",
    "Source",
    "Tilt",
    "Tilted",
    "merged",
    "prompt_support",
    "spread",
    "subset_weights",
]

THREADS = 4
"""At most so many threads share a pass."""


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


class Pool(Source, Protocol):
    """A source of which a verdict can also ask how wide it is, and what is left of it on a face."""

    def face(self, direction: Array, tolerance: float) -> Pool:
        """Only the candidates with dᵀz within `tolerance` of their group's largest."""
        ...

    def diameters(self) -> Array:
        """max_j z_gj − min_j z_gj, the largest over the groups, shape (m,)."""
        ...

    def kish(self, weights: Array) -> float:
        """Kish's effective number of candidates in a group, averaged over groups by weight."""
        ...


def merged(parts: Sequence[Tilt], *, joint: bool) -> Tilt:
    """One pass from the passes over parts of the data, in their order.

    Parts of prompt mode add up, each with its prompts' share of the weight. In joint mode all are parts of one group,
    merged by their log-weights, means and scatters, so that no common offset cancels.
    """
    if joint:
        return Tilt(*_merge([(p.log_partition, p.levels, p.covariance, p.support) for p in parts], 1.0))
    log_partition, support = sum(p.log_partition for p in parts), sum(p.support for p in parts)
    levels, covariance = np.zeros_like(parts[0].levels), np.zeros_like(parts[0].covariance)
    for part in parts:
        levels += part.levels
        covariance += part.covariance
    return Tilt(log_partition, levels, covariance, support)


def spread(groups: Groups, *, joint: bool) -> Array:
    """Standard deviation of each feature inside the groups that are tilted, shape (m,).

    Zero where a feature has no spread beyond rounding, 64 ε max|r|.
    """
    within, over = groups.spreads
    return over if joint else within


@dataclass(frozen=True)
class Chunk:
    """A few thousand rows laid out for vector arithmetic.

    features  (m, A, B) contiguous; candidates run along `axis` of the (A, B) plane, groups along the other
    rows      (A, B)    the row of `Groups.values` behind each entry
    prompt    (G,)      the prompt that each group belongs to
    weight              a_g, shaped to broadcast over the plane
    base                b_gj: one number where all are alike, else (A, B) with zero where a candidate was removed
    part                this chunk's group goes on in the next chunk
    """

    features: Array
    axis: int
    rows: Index
    prompt: Index
    weight: Array
    base: Array | float
    part: bool = False

    def scores(self, weights: Array, out: Array | None = None) -> Array:
        plane = np.empty(self.rows.shape) if out is None else out
        np.matmul(weights, self.features.reshape(len(weights), -1), out=plane.reshape(-1))
        if not isinstance(self.base, float):
            plane[self.base == 0] = -np.inf
        return plane

    def tilt(self, weights: Array, out: Array | None = None) -> tuple[Array, Array, Array]:
        """Weights inside each group, and each group's maximum and log-partition, for this chunk alone."""
        inside = self.scores(weights, out)
        top = np.maximum.reduce(inside, axis=self.axis, keepdims=True)
        inside -= top
        np.exp(inside, out=inside)
        if not isinstance(self.base, float):
            inside *= self.base
        total = np.add.reduce(inside, axis=self.axis, keepdims=True)
        inside /= total
        if isinstance(self.base, float):
            total *= self.base
        return inside, top, top + np.log(total)

    def moments(self, weights: Array, room: _Room) -> tuple[float, Array, Array, float]:
        """What this chunk adds to a pass: log-partition, levels, covariance and support, weighted by its groups."""
        m, axis = len(weights), self.axis
        cube, plane, spare = room[self.features.shape]
        inside, top, log_total = self.tilt(weights, plane)
        if axis == 1 and m > 1:
            mean = np.matmul(self.features.transpose(1, 0, 2), inside[:, :, None]).transpose(1, 0, 2)
        else:
            mean = np.add.reduce(np.multiply(self.features, inside, out=cube), axis + 1, keepdims=True)
        deviation = np.subtract(self.features, mean, out=cube).reshape(m, -1)
        inside *= self.weight
        share = self.weight.reshape(-1)
        return (
            float(log_total.reshape(-1) @ share),
            mean.reshape(m, -1) @ share,
            _scatter(deviation, inside.reshape(-1), spare.reshape(-1)),
            float(top.reshape(-1) @ share),
        )


class _Room(dict[tuple[int, ...], tuple[Array, Array, Array]]):
    """Memory for what a pass computes on the way, by the shape of features; it serves every chunk of that shape.

    Fresh memory costs more than the sums that are put in it.
    """

    def __missing__(self, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
        self[shape] = np.empty(shape), np.empty(shape[1:]), np.empty(shape[1:])
        return self[shape]


def _scatter(deviation: Array, inside: Array, spare: Array) -> Array:
    """Σ_j w_j d_j d_jᵀ for deviations (m, n) and weights (n,), a row of the upper triangle at a time.

    Six features are too few for a matrix product to be worth its packing. Nor is any of these products large enough
    for BLAS to wake threads, for which a busy machine can make it wait longer than the whole pass takes; a lone
    scalar product would be, so the last one goes without BLAS.
    """
    out = np.empty((len(deviation),) * 2)
    for i in range(len(deviation) - 1):
        np.multiply(deviation[i], inside, out=spare)
        out[i, i:] = out[i:, i] = deviation[i:] @ spare
    np.multiply(deviation[-1], inside, out=spare)
    out[-1, -1] = np.einsum("j,j", deviation[-1], spare)
    return out


def _merge(
    parts: Sequence[tuple[float, Array, Array, float]], share: float
) -> tuple[float, Array, Array, float]:
    """The moments of a long group from those of its parts, each of which had its own sum of weights."""
    logs, means, scatters, tops = (np.array(column) / share for column in zip(*parts, strict=True))
    log_total = float(np.logaddexp.reduce(logs))
    inside = np.exp(logs - log_total)
    mean = inside @ means
    away = means - mean
    scatter = np.tensordot(inside, scatters, 1) + (away * inside[:, None]).T @ away
    return share * log_total, share * mean, share * scatter, share * float(tops.max())


@dataclass(frozen=True)
class Tilted:
    """Rows in memory, in standardised units: z = (r − centre of its group) / scale.

    Levels of z are levels of r minus c0, in units of `scale`. A feature without spread has z = 0 and scale 1.
    `block` is the k that the groups were cut to; None where a group is a whole prompt, or everything (joint).
    """

    chunks: tuple[Chunk, ...]
    scale: Array
    prompts: int
    rows: int
    joint: bool
    block: int | None

    @property
    def size(self) -> int:
        return len(self.scale)

    def _runs(self) -> Iterator[list[Chunk]]:
        """The chunks, those of one long group together."""
        run: list[Chunk] = []
        for chunk in self.chunks:
            run.append(chunk)
            if not chunk.part:
                yield run
                run = []

    def pass_(self, weights: Array) -> Tilt:
        return self._pass(weights) if weights.any() else self._untilted

    @cached_property
    def _untilted(self) -> Tilt:
        """The pass at λ = 0, where every search begins."""
        tilt = self._pass(np.zeros(self.size))
        tilt.levels.flags.writeable = tilt.covariance.flags.writeable = False
        return tilt

    def _pass(self, weights: Array) -> Tilt:
        m = self.size
        log_partition, levels, covariance, support = 0.0, np.zeros(m), np.zeros((m, m)), 0.0
        every = iter(self._moments(weights))
        for run in self._runs():
            parts = [next(every) for _ in run]
            whole = parts[0] if len(parts) == 1 else _merge(parts, float(run[0].weight.item()))
            log_partition += whole[0]
            levels += whole[1]
            covariance += whole[2]
            support += whole[3]
        return Tilt(log_partition, levels, covariance, support)

    def _moments(self, weights: Array) -> list[tuple[float, Array, Array, float]]:
        """Of each chunk in turn, by threads where there is enough to do; their number changes no digit."""

        def some(chunks: Sequence[Chunk]) -> list[tuple[float, Array, Array, float]]:
            room = _Room()
            return [chunk.moments(weights, room) for chunk in chunks]

        threads = min(THREADS, sum(chunk.features.size for chunk in self.chunks) // (4 * grouping.CELLS))
        threads = min(threads, os.cpu_count() or 1) if threads > 1 else 1
        if threads == 1:
            return some(self.chunks)
        each = -(-len(self.chunks) // threads)
        shares = [self.chunks[i : i + each] for i in range(0, len(self.chunks), each)]
        with ThreadPoolExecutor(threads) as pool:
            return [part for parts in pool.map(some, shares) for part in parts]

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
        if np.abs(direction).sum() != 1 or np.count_nonzero(direction) != 1:
            return self._subset_support(direction, k)
        key = direction.tobytes(), k
        if key not in self._corners:
            self._corners[key] = self._subset_support(direction, k)
            self._corners[key][1].flags.writeable = False
        return self._corners[key]

    @cached_property
    def _corners(self) -> dict[tuple[bytes, int], tuple[float, Array]]:
        """Along ±1 times one feature alone, where every search of what can be reached begins."""
        return {}

    def _subset_support(self, direction: Array, k: int) -> tuple[float, Array]:
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

    def _inside(self, weights: Array) -> Iterator[list[tuple[Chunk, Array]]]:
        """The runs, each chunk with the weights of its candidates inside their whole group."""
        for run in self._runs():
            tilts = [chunk.tilt(weights) for chunk in run]
            if len(run) == 1:
                yield [(run[0], tilts[0][0])]
                continue
            logs = np.array([log_total.item() for _, _, log_total in tilts])
            shares = np.exp(logs - np.logaddexp.reduce(logs))
            yield [(chunk, tilt[0] * share) for chunk, tilt, share in zip(run, tilts, shares, strict=True)]

    def log_partitions(self, weights: Array) -> Array:
        """log Σ_j b_gj exp(λᵀz_gj) of each prompt, averaged over its groups; in prompt mode; shape (N,)."""
        total, mass = np.zeros(self.prompts), np.zeros(self.prompts)
        for run in self._runs():
            logs = np.logaddexp.reduce([chunk.tilt(weights)[2].reshape(-1) for chunk in run])
            share = run[0].weight.reshape(-1)
            total += np.bincount(run[0].prompt, share * logs, minlength=self.prompts)
            mass += np.bincount(run[0].prompt, share, minlength=self.prompts)
        return total / mass

    def row_weights(self, weights: Array) -> Array:
        """The probability of each row under p_λ, prompts included; sums to one; shape (n,)."""
        # A row stands once in a partition but in several partitions.
        parts = [
            (chunk.rows.reshape(-1), (inside * chunk.weight).reshape(-1))
            for run in self._inside(weights)
            for chunk, inside in run
        ]
        rows, shares = (np.concatenate(part) for part in zip(*parts, strict=True))
        return np.bincount(rows, shares, minlength=self.rows).astype(np.float64, copy=False)

    @cached_property
    def base_weights(self) -> Array:
        """The probability of each row before any tilt, those that a face removed included; prompt mode; shape (n,)."""
        total = np.zeros(self.rows)
        for chunk in self.chunks:
            share = np.broadcast_to(chunk.weight / chunk.rows.shape[chunk.axis], chunk.rows.shape)
            total += np.bincount(chunk.rows.reshape(-1), share.reshape(-1), minlength=self.rows)
        return total

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
        return self._widest

    @cached_property
    def _widest(self) -> Array:
        widest = np.zeros(self.size)
        for low, high in self.ends():
            widest = np.maximum(widest, (high - low).max(axis=1))
        widest.flags.writeable = False
        return widest

    def ends(self) -> Iterator[tuple[Array, Array]]:
        """min_j z_gj and max_j z_gj, shape (m, G) each, for some groups after others."""
        for run in self._runs():
            low, high = np.full(1, np.inf), np.full(1, -np.inf)
            for chunk in run:
                kept = np.greater(chunk.base, 0)
                axis = chunk.axis + 1
                low = np.minimum(low, np.where(kept, chunk.features, np.inf).min(axis=axis))
                high = np.maximum(high, np.where(kept, chunk.features, -np.inf).max(axis=axis))
            yield low, high

    def face(self, direction: Array, tolerance: float, largest: float | None = None) -> Tilted:
        """Only the candidates with dᵀz within `tolerance` of their group's largest; the rest weigh zero.

        `largest` tells it where the one group goes on beyond this source; then there may be no chunk left.
        """
        chunks: list[Chunk] = []
        for run in self._runs():
            scores = [chunk.scores(direction) for chunk in run]
            top = np.max([plane.max(axis=run[0].axis, keepdims=True) for plane in scores], axis=0)
            top = top if largest is None else largest
            kept: list[Chunk] = []
            for chunk, plane in zip(run, scores, strict=True):
                base = np.where(plane >= top - tolerance, chunk.base, 0.0)
                if base.any():
                    kept.append(replace(chunk, base=base))
            if kept:
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
