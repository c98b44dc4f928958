"""Rewards: prompts and responses in, named columns of numbers out; larger is better in every column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt

__all__ = ["Column", "Reward"]


@dataclass(frozen=True, slots=True)
class Column:
    """One value that a reward measures.

    `scale` decides what `"x1.2"` means in a palette: on a log-probability it adds log 1.2, on a probability it
    multiplies, on a real number it is refused. `range` is the closed interval the numbers lie in.
    """

    name: str
    definition: str
    scale: Literal["real", "probability", "log-probability"] = "real"
    range: tuple[float, float] = (-float("inf"), float("inf"))


@runtime_checkable
class Reward(Protocol):
    """Scores responses. One reward may measure several values in one pass."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    @property
    def reads(self) -> Literal["answer", "last turn and answer", "conversation"]:
        """What of the exchange the number depends on."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the numbers would: model and revision or checksum, and the rule applied."""
        ...

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        """The columns' numbers, shape (responses, columns). Response i answers prompt i."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...
