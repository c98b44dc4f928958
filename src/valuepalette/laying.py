# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Groups laid out for passes: by prompt, cut into random blocks of k, or as one group of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from valuepalette import grouping
from valuepalette.grouping import Array, Groups, Index
from valuepalette.tilting import Chunk, Tilted

__all__ = ["KEPT", "Draws", "dealt", "tilted"]

Draws = Mapping[int, Mapping[str, Any]]
"""Where the generator of random blocks stands, by the number of candidates of the prompts to be cut next."""

_LAID: WeakKeyDictionary[Groups, dict[Any, Tilted]] = WeakKeyDictionary()
"""Layouts of groups that are still there: many palettes are asked of one pilot, and laying out takes long."""
_LAYOUTS = 6
"""Of one pilot's features at most."""
KEPT = 2_000_000
"""Numbers at most of what is kept so; where there are more, memory is worth more than the time."""


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
    cells = groups.values.size * (1 if joint or block is None else partitions)
    if centre is not None or isinstance(seed, Mapping) or cells > KEPT:
        return _laid(groups, scale, joint, block, seed, partitions, centre)
    known = _LAID.setdefault(groups, {})
    key = scale.tobytes(), joint, block, seed, partitions, grouping.CELLS
    found = known.pop(key, None)
    if found is None:
        found = _laid(groups, scale, joint, block, seed, partitions, None)
    known[key] = found  # last of all: the first are those that nobody has asked for in a while
    for old in list(known)[:-_LAYOUTS]:
        known.pop(old, None)
    return found


def _laid(
    groups: Groups,
    scale: Array,
    joint: bool,
    block: int | None,
    seed: int | Draws,
    partitions: int,
    centre: Array | None,
) -> Tilted:
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
    chunks: list[Chunk] = []
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
    ) -> Chunk:
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
        return Chunk(
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
