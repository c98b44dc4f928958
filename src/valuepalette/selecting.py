"""Exact quantiles of numbers in pieces, by counting and then collecting.

First every piece says how many of its numbers fall between marks, which a sample has set close together. That tells
between which marks each quantile lies, and these few numbers are collected. Two passes, and the answer is that of
`palette.quantile` on all numbers at once. A mark stands for a cell of its own, so that a number of which there are many
is counted and never collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array, Groups
from valuepalette.pools import Features
from valuepalette.shards import Piece, Shards

__all__ = ["MARKS", "Wanted", "quantiles"]

MARKS = 8192
"""Marks for each feature: at each quantile that is asked for about one number in so many is collected."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """Quantiles of one feature's numbers.

    feature  its number
    shares   (q,) in [0, 1]
    marks    (e,) ascending: where it is counted
    """

    feature: int
    shares: Array
    marks: Array


@dataclass(frozen=True, eq=False)
class _Tally:
    """Of one feature: numbers and weight in each of 2e + 1 cells, on a mark at odd places, and the ends of weights."""

    counts: NDArray[np.int64]
    weights: Array
    least: float
    most: float


def _sorted(own: Groups) -> tuple[Array, Array | float]:
    """The numbers in order, with their weights, one where all are alike."""
    column, weights = own.values[:, 0], own.row_weights
    if (weights == weights[0]).all():
        return np.sort(column), float(weights[0])
    order = np.argsort(column, kind="stable")
    return column[order], weights[order]


def _cells(numbers: Array, marks: Array) -> NDArray[np.intp]:
    """Where each cell begins among sorted numbers, and the last ends, (2e + 2,)."""
    edges = np.empty(2 * len(marks) + 2, np.intp)
    edges[0], edges[-1] = 0, len(numbers)
    edges[1:-1:2] = np.searchsorted(numbers, marks, "left")
    edges[2:-1:2] = np.searchsorted(numbers, marks, "right")
    return edges


@dataclass(frozen=True, eq=False)
class _Count:
    features: Features
    wanted: tuple[Wanted, ...]

    def __call__(self, piece: Piece) -> list[_Tally | None]:
        out: list[_Tally | None] = []
        for want in self.wanted:
            own = self.features.own(piece, want.feature)
            if own is None:
                out.append(None)
                continue
            numbers, weights = _sorted(own)
            edges = _cells(numbers, want.marks)
            counts = np.diff(edges)
            if not isinstance(weights, np.ndarray):
                out.append(_Tally(counts, counts * weights, weights, weights))
            else:
                below = np.concatenate([[0.0], np.cumsum(weights)])
                out.append(_Tally(counts, np.diff(below[edges]), float(weights.min()), float(weights.max())))
        return out


@dataclass(frozen=True, eq=False)
class _Collect:
    """The distinct numbers in the cells that are needed, how many of each there are, and their weight."""

    features: Features
    wanted: tuple[Wanted, ...]
    needed: tuple[NDArray[np.bool_], ...]

    def __call__(self, piece: Piece) -> list[Array]:
        out: list[Array] = []
        for want, needed in zip(self.wanted, self.needed, strict=True):
            own = self.features.own(piece, want.feature)
            if own is None:
                out.append(np.empty((3, 0)))
                continue
            numbers, weights = _sorted(own)
            edges = _cells(numbers, want.marks)
            inside = np.repeat(needed, np.diff(edges))
            picked = numbers[inside]
            own_weights = (
                weights[inside] if isinstance(weights, np.ndarray) else np.full(len(picked), weights)
            )
            out.append(_distinct(picked, np.ones(len(picked)), own_weights))
        return out


def _distinct(numbers: Array, counts: Array, weights: Array) -> Array:
    """Distinct numbers, their counts and weights, (3, d)."""
    distinct, place = np.unique(numbers, return_inverse=True)
    size = len(distinct)
    sums = (np.bincount(place, column, size).astype(np.float64) for column in (counts, weights))
    return np.stack([distinct, *sums])


def quantiles(
    shards: Shards, features: Features, columns: tuple[str, ...], wanted: Sequence[Wanted]
) -> list[Array]:
    """The weighted quantiles of each, as `palette.quantile` has them on all numbers at once."""
    given = tuple(wanted)
    tallies = _added(list(shards.map(_Count(features, given), columns)))
    chosen: list[tuple[Array, NDArray[np.bool_], bool]] = []
    for want, tally in zip(given, tallies, strict=True):
        alike = tally.most - tally.least <= 8 * np.finfo(float).eps * tally.most
        sizes = tally.counts.astype(float) if alike else tally.weights
        chosen.append((sizes, _needed(want, sizes, 1.0 if alike else tally.most), alike))
    # On a mark all numbers are alike: counted, they need no collecting.
    needed = tuple(need & (np.arange(len(need)) % 2 == 0) for _, need, _ in chosen)
    found = list(shards.map(_Collect(features, given, needed), columns))
    out: list[Array] = []
    for i, (want, tally, (sizes, need, alike)) in enumerate(zip(given, tallies, chosen, strict=True)):
        on = np.flatnonzero(need[1::2] & (tally.counts[1::2] > 0))
        marks = np.stack([want.marks[on], tally.counts[1::2][on], tally.weights[1::2][on]])
        parts = np.concatenate([marks, *(piece[i] for piece in found)], axis=1)
        table = _distinct(*parts)
        below = np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
        out.append(_read(want, table, below, need, alike, float(tally.counts.sum())))
    return out


def _added(pieces: Sequence[list[_Tally | None]]) -> list[_Tally]:
    out: list[_Tally] = []
    for column in zip(*pieces, strict=True):
        there = [tally for tally in column if tally is not None]
        counts, weights = np.zeros_like(there[0].counts), np.zeros_like(there[0].weights)
        for tally in there:
            counts = counts + tally.counts
            weights = weights + tally.weights
        out.append(_Tally(counts, weights, min(t.least for t in there), max(t.most for t in there)))
    return out


def _needed(want: Wanted, sizes: Array, most: float) -> NDArray[np.bool_]:
    """The cells that may hold the two neighbours of a quantile, or the ends, shape (2e + 1,)."""
    above = np.cumsum(sizes)
    whole, below = above[-1], above - sizes
    need = np.zeros(len(sizes), bool)
    full = np.flatnonzero(sizes > 0)
    need[full[[0, -1]]] = True
    # Of a share q the neighbours' cumulated weights lie within two rows of q of the whole.
    room = 3 * most + 1e-9 * whole
    for share in want.shares:
        need |= (above >= share * whole - room) & (below <= share * whole + room) & (sizes > 0)
    return need


def _read(
    want: Wanted, table: Array, below: Array, need: NDArray[np.bool_], alike: bool, rows: float
) -> Array:
    """The quantiles, from the distinct numbers of the needed cells and the weight below each cell."""
    numbers, counts, weights = table
    sizes = counts if alike else weights
    cell = 2 * np.searchsorted(want.marks, numbers, "left")
    at = np.minimum(cell // 2, len(want.marks) - 1)
    cell = cell + ((cell // 2 < len(want.marks)) & (want.marks[at] == numbers) if len(want.marks) else 0)
    # Weight before each number: below its cell, and within.
    first = np.searchsorted(cell, cell, "left")
    cumulated = np.concatenate([[0.0], np.cumsum(sizes)])
    before = below[cell] + cumulated[:-1] - cumulated[first]
    if alike:
        virtual = want.shares * (rows - 1)
        low = np.floor(virtual)
        share = virtual - low
        left = numbers[np.searchsorted(before, low, "right") - 1]
        right = numbers[np.searchsorted(before, np.minimum(low + 1, rows - 1), "right") - 1]
        # As numpy has it, to the last bit.
        apart = right - left
        return np.where(share >= 0.5, right - apart * (1 - share), left + apart * share)
    even = sizes / counts
    first_at = before + even - (even[0] + even) / 2
    last_at = before + sizes - (even[0] + even) / 2
    at = np.column_stack([first_at, last_at]).ravel()
    return np.interp(want.shares, at / at[-1], np.repeat(numbers, 2))
