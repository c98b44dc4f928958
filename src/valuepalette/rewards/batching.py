"""Texts of like length run together: little padding, and the longest first, so that memory fails early or never."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["by_length"]


def by_length(lengths: Sequence[int], size: int) -> Iterator[NDArray[np.intp]]:
    """Index arrays of at most `size` texts each, the longest texts first, every text once.

    >>> [batch.tolist() for batch in by_length([3, 9, 4], 2)]
    [[1, 2], [0]]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.intp), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
