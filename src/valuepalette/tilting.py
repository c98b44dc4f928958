# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One pass over scored candidates for one weight vector: log-partition, levels, centred Hessian, support.

The rest of the mathematics sees the data through `Source.pass_` and `Source.support` alone, so that a source
may hold its rows in memory, in blocks of k, restricted to a face, or elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any, Protocol

import numpy as np

from valuepalette import grouping
from valuepalette.grouping import Array, Groups, Index

__all__ = [
    "Draws",
    "Pool",
    "Source",
    "Tilt",
    "Tilted",
    "dealt",
    "merged",
    "prompt_support",
    "spread",
    "subset_weights",
    "tilted",
]

Draws = Mapping[int, Mapping[str, Any]]
"""Where the generator of random blocks stands, by the number of candidates of the prompts to be cut next."""

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
class _Chunk:
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

        def some(chunks: Sequence[_Chunk]) -> list[tuple[float, Array, Array, float]]:
            room = _Room()
            return [chunk.moments(weights, room) for chunk in chunks]

        threads = min(THREADS, sum(chunk.features.size for chunk in self.chunks) // grouping.CELLS)
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
        widest = np.zeros(self.size)
        for low, high in self.ends():
            widest = np.maximum(widest, (high - low).max(axis=1))
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
        chunks: list[_Chunk] = []
        for run in self._runs():
            scores = [chunk.scores(direction) for chunk in run]
            top = np.max([plane.max(axis=run[0].axis, keepdims=True) for plane in scores], axis=0)
            top = top if largest is None else largest
            kept: list[_Chunk] = []
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


def tilted(
    groups: Groups,
    scale: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int | Draws = 0,
    partitions: int = 4,
    centre: Array | None = None,
) -> Tilted:
    """Standardise `groups` by `scale` and lay them out for passes.

    `joint` makes one group of everything, b = a_g / K_g. Otherwise `block=k` cuts each prompt's candidates
    into random disjoint blocks of k, `partitions` times with seeds that follow from `seed`; a prompt's weight
    is split over its blocks, and what leftovers would move of its mean is given back to every block.

    Where `groups` are a part of more, their weights are their shares of the whole, `centre` (m,) is the base level of
    the whole, which joint mode measures from, and `seed` says where `dealt` has left the generator for this part.
    """
    if joint:
        base = groups.row_weights
        alike = bool((base == base[0]).all())
        rows, one = np.arange(len(groups.values))[None], np.zeros(1, np.intp)
        middle = (groups.base if centre is None else centre)[None]
        planes = [_Plane(rows, middle, one, np.ones(1), float(base[0]) if alike else base[None])]
    else:
        rng = _generator(seed)
        sizes = [int(size) for size in np.unique(groups.sizes)]
        planes = [_plane(groups, size, block, partitions, rng(size)) for size in sizes]
    inverse = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 0)
    # One piece of memory for all chunks: the system hands out a large one several times as fast.
    room = np.empty(len(scale) * sum(plane.rows.size for plane in planes))
    chunks: list[_Chunk] = []
    for plane in planes:
        for cut in plane.cuts(len(scale)):
            chunks.append(plane.chunk(groups.values, inverse, *cut, room))
            room = room[chunks[-1].features.size :]
    return Tilted(
        tuple(chunks),
        np.where(scale > 0, scale, 1.0),
        len(groups.sizes),
        len(groups.values),
        joint,
        None if joint else block,
    )


def dealt(
    counts: Sequence[Mapping[int, int]], block: int, seed: int, partitions: int = 4
) -> list[dict[int, dict[str, Any]]]:
    """For each part of the data where the generator of blocks stands when its turn comes: what `tilted` takes for seed.

    `counts` tells of each part, in order, how many prompts it has of each number of candidates. Prompts are dealt by
    that number first and by part second, so that the blocks are those that all parts in one would have.
    """
    rng = np.random.default_rng(seed)
    out: list[dict[int, dict[str, Any]]] = [{} for _ in counts]
    for size in sorted({size for count in counts for size in count}):
        for states, count in zip(out, counts, strict=True):
            states[size] = dict(rng.bit_generator.state)
            if not _drawn(size, block, partitions):
                continue
            for start in range(0, count.get(size, 0), 8192):
                _deal(rng, min(8192, count[size] - start), size, partitions)
    return out


def _generator(seed: int | Draws) -> Callable[[int], np.random.Generator]:
    """The generator for prompts of some number of candidates."""
    if not isinstance(seed, Mapping):
        rng = np.random.default_rng(seed)
        return lambda size: rng

    def at(size: int) -> np.random.Generator:
        rng = np.random.default_rng(0)
        rng.bit_generator.state = dict(seed[size])
        return rng

    return at


def _drawn(size: int, block: int, partitions: int) -> bool:
    """Whether blocks are drawn at random: neither the whole prompt nor every subset, where these are no more."""
    return block < size and comb(size, block) > partitions * (size // block)


def _deal(rng: np.random.Generator, count: int, size: int, partitions: int) -> Index:
    """Orders of `size` candidates, (count, partitions, size)."""
    return rng.permuted(np.broadcast_to(np.arange(size), (count, partitions, size)), axis=2)


@dataclass(frozen=True)
class _Plane:
    """Groups of equal size, before they are laid out.

    rows    (G, K)  the row of `Groups.values` behind each candidate
    centre  (G, m)  what is subtracted from the features of each group
    prompt  (G,)    the prompt that each group belongs to
    weight  (G,)    a_g
    base            b_gj: one number where all are alike, else (G, K)
    """

    rows: Index
    centre: Array
    prompt: Index
    weight: Array
    base: Array | float

    def cuts(self, features: int) -> Iterator[tuple[slice, slice, bool]]:
        """Groups, candidates, and whether the group goes on: by groups, or inside one that is too long for a chunk."""
        groups, size = self.rows.shape
        most = max(1, grouping.CELLS // max(1, features))
        if size <= most:
            for start in range(0, groups, most // size):
                yield slice(start, start + most // size), slice(None), False
            return
        for g in range(groups):
            for start in range(0, size, most):
                yield slice(g, g + 1), slice(start, start + most), start + most < size

    def chunk(
        self, values: Array, inverse: Array, groups: slice, inside: slice, part: bool, room: Array
    ) -> _Chunk:
        """Standardised, in the first part of `room`.

        The longer of the two axes comes innermost, so that every reduction runs over long vectors.
        """
        wide = len(self.rows) >= self.rows.shape[1]
        rows, centre, weight = self.rows[groups, inside], self.centre[groups].T, self.weight[groups]
        first, consecutive = rows[0, 0], bool((np.diff(rows.reshape(-1)) == 1).all())
        cube = values[first : first + rows.size].reshape(*rows.shape, -1) if consecutive else values[rows]
        cube = cube.transpose((2, 1, 0) if wide else (2, 0, 1))
        features = room[: cube.size].reshape(cube.shape)
        features[...] = cube
        features -= centre[:, None] if wide else centre[:, :, None]
        features *= inverse[:, None, None]
        base = self.base
        if isinstance(base, np.ndarray):
            base = np.ascontiguousarray(base[groups, inside].T if wide else base[groups, inside])
        return _Chunk(
            features,
            0 if wide else 1,
            np.ascontiguousarray(rows.T if wide else rows),
            self.prompt[groups],
            weight[None] if wide else weight[:, None],
            base,
            part,
        )


def _plane(groups: Groups, size: int, block: int | None, partitions: int, rng: np.random.Generator) -> _Plane:
    """The prompts of `size` candidates, or their blocks of k: random and disjoint, or all where these are fewer."""
    which = np.flatnonzero(groups.sizes == size)
    rows = groups.starts[which][:, None] + np.arange(size)
    centre, weight = groups.means[which], groups.weights[which]
    if block is None or block >= size:
        return _Plane(rows, centre, which, weight, 1 / size)
    used = size // block * block
    if not _drawn(size, block, partitions):
        every = np.array(list(combinations(range(size), block)), dtype=np.intp)
        picked = np.broadcast_to(every.reshape(-1), (len(which), every.size))
    else:
        picked = _deal(rng, len(which), size, partitions)[:, :, :used].reshape(len(which), -1)
        if used < size:
            # What is left over would move the mean of a prompt.
            away = groups.values[np.take_along_axis(rows, picked, axis=1)] - centre[:, None]
            centre = centre + away.mean(axis=1)
    rows = np.take_along_axis(rows, picked, axis=1).reshape(-1, block)
    each = len(rows) // len(which)
    weight = np.repeat(weight / each, each)
    return _Plane(rows, np.repeat(centre, each, axis=0), np.repeat(which, each), weight, 1 / block)
