"""Heads: a direction in the space of the packaged sentence embedding, the numbers that it was judged by beside it.

Each ships as `<name>.npz` (the numbers) and `<name>.json` (its card), both written by `train_<name>.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Head", "card_of", "load_head"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Head:
    """log-odds = weights · embedding + intercept."""

    weights: NDArray[np.float64]
    intercept: float

    @property
    def checksum(self) -> str:
        """What its numbers depend on, in 12 hexadecimal digits."""
        return hashlib.sha256(self.weights.tobytes() + np.float64(self.intercept).tobytes()).hexdigest()[:12]

    def log_odds(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """The log-odds of each unit vector, shape (texts,)."""
        return vectors @ self.weights + self.intercept


def load_head(name: str) -> Head:
    with np.load(_FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        return Head(stored["weights"].astype(np.float64), float(stored["intercept"]))


@cache
def card_of(name: str) -> dict[str, Any]:
    """What a head was trained on and how well it does: see `training.write_head`."""
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
