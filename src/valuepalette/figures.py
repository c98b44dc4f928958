"""What a solution says, as a user reads it: numbers by feature with their errors, a slack, a proof in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valuepalette.grouping import Array

__all__ = ["Figures", "Proof", "Slack"]


class Figures(Mapping[str, float]):
    """One number per feature, by name, with its standard error.

    array  (m,) the numbers
    se     (m,) standard errors over prompts; nan where none is to be had
    error  (m,) of weights alone: the proved bound on the numerical error, nan where nothing is proved

    >>> levels = Figures(("humor", "tone"), np.array([2.5, 0.1]), np.array([0.02, 0.01]))
    >>> levels["humor"], levels
    (2.5, humor 2.5 ± 0.02, tone 0.1 ± 0.01)
    """

    def __init__(
        self, names: Sequence[str], array: Array, se: Array | None = None, error: Array | None = None
    ) -> None:
        self.names = tuple(names)
        self.array = array
        self.se = np.full(len(array), np.nan) if se is None else se
        self.error = np.full(len(array), np.nan) if error is None else error

    def __getitem__(self, name: str) -> float:
        if name not in self.names:
            raise KeyError(f"{name!r} is none of {', '.join(self.names)}")
        return float(self.array[self.names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        def one(name: str, value: float, se: float) -> str:
            return f"{name} {value:z.4g}" + ("" if np.isnan(se) else f" ± {se:.2g}")

        return ", ".join(one(*row) for row in zip(self.names, self.array, self.se, strict=True))


@dataclass(frozen=True)
class Proof:
    """Why a palette cannot be had; `str()` is the sentence.

    directions  d, Σ|d_i| = 1, by feature
    asked       what the palette asks of dᵀlevel
    reach       the most that any choice among the candidates makes it, on this pilot
    gap         asked − reach > 0
    se          standard error of the gap over prompts; nan in joint mode
    margin      s*: the common slack the bounds lack, in within-group standard deviations; negative
    sentence    all of it in words, with the cause
    """

    directions: Figures
    asked: float
    reach: float
    gap: float
    se: float
    margin: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Slack:
    """A bound that does not bind, so that its weight is zero; what that means is one-sided.

    slack   by how much the level lies inside the bound, as a user reads it
    errors  the same in standard errors of level − bound on new prompts
    limit   how far from zero the weight could be, with 95 % confidence; 0 where the bound would not bind even then
    """

    slack: float
    errors: float
    limit: float

    def __str__(self) -> str:
        ends = sorted([0.0, self.limit])
        could = "stays 0" if self.limit == 0 else f"could be {ends[0]:.2g} to {ends[1]:.2g}"
        return f"slack of {self.slack:.3g}, {self.errors:.1f} standard errors; its weight {could} (95 %)"
