"""One pass over scored candidates for one weight vector: log-partition, levels, centred Hessian, support."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Groups"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """Scored candidates by prompt: prompt g owns rows `starts[g]` to `starts[g + 1]`.

    values   (n, m)   a row per candidate, a column per feature
    starts   (N + 1,) row offsets of the N prompts; every prompt has at least one candidate
    weights  (N,)     a_g > 0, summing to one
    """

    values: Array
    starts: NDArray[np.intp]
    weights: Array

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
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
