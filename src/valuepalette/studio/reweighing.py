"""The chance of each answer of a pilot under a solution, all prompts at once, and the distributions that follow.

What `Solution.probabilities` says of k candidates of one prompt, for every prompt. A prompt with more candidates than
the decoder's k is averaged over random blocks of k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array
from valuepalette.solution import Solution

__all__ = ["Bins", "Draws", "bins_of", "chances", "draw", "share"]

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Draws:
    """Which rows a decoder may see together.

    blocks  of each size, rows (B, k)
    weight  of each block, (B,); those of a prompt add up to one
    rows    of the pilot in all
    """

    blocks: tuple[Index, ...]
    weight: tuple[Array, ...]
    rows: int


def draw(starts: Index, k: int | None, *, partitions: int = 4, seed: int = 0) -> Draws:
    """Blocks of k among the rows of each prompt; all of them together where k is all there are, or None."""
    sizes, rng = np.diff(starts), np.random.default_rng(seed)
    blocks, weights = list[Index](), list[Array]()
    for size in np.unique(sizes):
        which = starts[:-1][sizes == size]
        own = int(size) if k is None else min(k, int(size))
        turns, parts = (1, 1) if own == size else (partitions, int(size) // own)
        order = np.argsort(rng.random((turns, len(which), int(size))), axis=2)[:, :, : parts * own]
        if own == size:
            order = np.broadcast_to(np.arange(size), (1, len(which), int(size)))
        blocks.append((which[None, :, None] + order).reshape(-1, own))
        weights.append(np.full(len(blocks[-1]), 1 / (turns * parts)))
    return Draws(tuple(blocks), tuple(weights), int(starts[-1]))


def chances(solution: Solution, features: Array, draws: Draws) -> Array:
    """How likely each row is to be its prompt's answer, (n,); those of a prompt add up to one.

    In joint mode, where prompts are re-weighted too, `draws` holds one block of all rows, and they are told as if the
    base model had every row alike.
    """
    out = np.zeros(draws.rows)
    for rows, weight in zip(draws.blocks, draws.weight, strict=True):
        scores = (features @ solution.weights.array)[rows]
        if len(solution.faces):
            scores = np.where(_kept(solution, features, rows), scores, -np.inf)
        chance = np.exp(scores - scores.max(axis=1, keepdims=True))
        chance *= (weight / chance.sum(axis=1))[:, None]
        out += np.bincount(rows.ravel(), chance.ravel(), draws.rows)
    return out


def _kept(solution: Solution, features: Array, rows: Index) -> NDArray[np.bool_]:
    """On a BOUNDARY: the candidates that maximise each face in turn, as far as rounding tells."""
    seen = features[rows]
    apart = seen - seen[:, :1]
    rounding = 1e-9 * solution.spread + 8 * np.finfo(float).eps * np.abs(seen).max(axis=1)
    kept = np.ones(rows.shape, bool)
    for face in solution.faces:
        scores = apart @ face
        most = np.where(kept, scores, -np.inf).max(axis=1)
        kept &= scores >= (most - rounding @ np.abs(face))[:, None]
    return kept


@dataclass(frozen=True)
class Bins:
    """Where the rows of one value fall.

    edges   (b + 1,); the first and last bin hold what lies beyond as well
    places  (n,) the bin of each row
    """

    edges: Array
    places: Index


def bins_of(values: Array, count: int = 36) -> Bins:
    """Bins between the outermost half percents, so that a few extremes do not flatten the rest."""
    low, high = np.quantile(values, [0.005, 0.995])
    if not low < high:
        low, high = values.min(), values.max()
    if not low < high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, count + 1)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, count - 1)
    return Bins(edges, places)


def share(bins: Bins, weights: Array) -> Array:
    """The share of the weight in each bin, (b,)."""
    found = np.bincount(bins.places, weights, len(bins.edges) - 1)
    return found / found.sum()
