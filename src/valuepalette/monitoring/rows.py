"""Candidates that were served, as arrays, and what one request says of a quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.traffic import Group

__all__ = ["Rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """G groups in the order in which they were served, n candidates in all.

    values    (n, V), a column for each of `names`
    columns   of the prompts by name, (G,)
    chances   (n,) of being the answer; `drawn` (n,) which was
    starts    (G + 1,) where each group begins
    requests  (G,) which request it belongs to; those of a request follow each other
    """

    values: Array
    names: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]
    chances: Array
    drawn: NDArray[np.bool_]
    starts: NDArray[np.intp]
    requests: NDArray[np.intp]

    @classmethod
    def of_groups(cls, groups: Sequence[Group], names: Sequence[str], columns: Sequence[str]) -> Rows:
        """Groups as a gateway records them, at least one."""
        sizes = np.array([len(group.candidates) for group in groups])
        starts = np.concatenate([[0], np.cumsum(sizes)])
        drawn = np.zeros(starts[-1], bool)
        drawn[starts[:-1] + np.array([group.drawn for group in groups])] = True
        order = {request: i for i, request in enumerate(dict.fromkeys(group.request for group in groups))}
        return cls(
            np.concatenate([np.column_stack([group.values[name] for name in names]) for group in groups]),
            tuple(names),
            {name: np.array([group.columns.get(name) for group in groups], object) for name in columns},
            np.concatenate([group.probabilities for group in groups]),
            drawn,
            starts,
            np.array([order[group.request] for group in groups]),
        )

    @classmethod
    def of_pilot(cls, pilot: Pilot, groups: NDArray[np.intp]) -> Rows:
        """Groups of recorded traffic, by their numbers in the pilot, in that order."""
        sizes = pilot.sizes[groups]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        inner = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        rows = pilot.order[np.repeat(pilot.starts[groups], sizes) + inner]
        _, requests = np.unique(pilot.column("request")[groups].astype(str), return_inverse=True)
        return cls(
            pilot.array[rows],
            pilot.values,
            {name: pilot.column(name)[groups] for name in pilot.columns},
            np.asarray(pilot.table["probability"].take(pa.array(rows)), float),
            np.asarray(pilot.table["drawn"].take(pa.array(rows))),
            starts,
            requests,
        )

    @property
    def heads(self) -> NDArray[np.intp]:
        return self.starts[:-1]

    def expected(self, numbers: Array) -> Array:
        """Of each group, what is expected over the choice, (G, m) for numbers (n, m)."""
        return np.add.reduceat(self.chances[:, None] * numbers, self.heads, axis=0)

    def means(self, numbers: Array) -> Array:
        """Of each group, the plain mean over its candidates: what the base model does."""
        return np.add.reduceat(numbers, self.heads, axis=0) / np.diff(self.starts)[:, None]

    def chosen(self, numbers: Array) -> Array:
        """Of each group, those of the answer that was drawn."""
        return numbers[np.flatnonzero(self.drawn)]

    def by_request(self, by_group: Array) -> Array:
        """The mean over the groups of each request, in the order in which requests came: a request counts once."""
        first = np.flatnonzero(np.concatenate([[True], np.diff(self.requests) != 0]))
        sizes = np.diff(np.append(first, len(self.requests)))
        return np.add.reduceat(by_group, first, axis=0) / sizes[:, None]
