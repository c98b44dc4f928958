# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Scored candidates by prompt, and what they are before anything is tilted: means, spreads, the base level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS", "Array", "Groups", "Index"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

CELLS = 300_000
"""Numbers in a chunk of rows: few enough for the caches and for BLAS to keep its own threads out, enough for two
threads of ours to get past each other. No power of two, or the columns of a plane would contend for cache lines."""


@dataclass(frozen=True, eq=False)
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
    def columns(self) -> tuple[Groups, ...]:
        """Each feature alone, as one column."""
        each = range(self.values.shape[1])
        return tuple(Groups(self.values[:, i : i + 1], self.starts, self.weights) for i in each)

    @property
    def _single(self) -> bool:
        """Whether each prompt has one candidate."""
        return len(self.sizes) == len(self.values)

    def _pieces(self) -> Iterator[tuple[slice, slice, Array]]:
        """Prompts, their rows, and the values of these as (m, rows), about as many at a time as make a chunk.

        A row per feature: numpy takes sums along such a row several times as fast as sums of short rows.
        """
        step = max(1, CELLS // max(1, self.values.shape[1]))
        cuts = np.append(np.searchsorted(self.starts, np.arange(0, len(self.values), step)), len(self.sizes))
        for a, b in pairwise(cuts):
            if a < b:
                rows = slice(int(self.starts[a]), int(self.starts[b]))
                yield slice(int(a), int(b)), rows, np.array(self.values[rows].T, order="C")

    def _by_row(self, figures: Array, prompts: slice) -> Array:
        """Figures of prompts, (N, m), once for each row of some prompts, (m, rows)."""
        columns = figures[prompts].T
        return columns if self._single else np.repeat(columns, self.sizes[prompts], axis=1)

    def sums(self, centre: Array, shares: Array | None = None) -> Array:
        """Σ_j share_j (r_gj − centre_g) of each prompt, (N, m); centre (N, m), shares (n,) or all one."""
        out = np.empty((len(self.sizes), self.values.shape[1]))
        for prompts, rows, columns in self._pieces():
            columns -= self._by_row(centre, prompts)
            if shares is not None:
                columns *= shares[rows]
            if not self._single:
                columns = np.add.reduceat(columns, self.starts[prompts] - rows.start, axis=1)
            out[prompts] = columns.T
        return out

    @cached_property
    def means(self) -> Array:
        """The mean of each prompt's candidates, shape (N, m)."""
        if self._single:
            return self.values
        first = self.values[self.starts[:-1]]
        return first + self.sums(first) / self.sizes[:, None]

    @cached_property
    def spreads(self) -> tuple[Array, Array]:
        """Standard deviation of each feature within prompts and over all, zero below rounding: shape (m,) each."""
        m = self.values.shape[1]
        largest, within, over = np.zeros(m), np.zeros(m), np.zeros(m)
        for prompts, rows, columns in self._pieces():
            largest = np.maximum(largest, np.maximum(columns.max(axis=1), -columns.min(axis=1)))
            weights = self.row_weights[rows]
            away = columns - self.base[:, None]
            over += np.einsum("mj,mj,j->m", away, away, weights)
            columns -= self._by_row(self.means, prompts)
            within += np.einsum("mj,mj,j->m", columns, columns, weights)
        noise = 64 * np.finfo(float).eps * largest
        within, over = (np.where(np.sqrt(x) > noise, np.sqrt(x), 0.0) for x in (within, over))
        return within, over

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
