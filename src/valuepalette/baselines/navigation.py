"""Navigation efficiency: how often a way to align lands where every value is at least as high as before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from valuepalette.attainment import Evaluation, Measured

__all__ = ["Navigation", "navigate"]

Measure = Literal["level", "win rate"]


@dataclass(frozen=True)
class Navigation:
    """The share of runs in the desirable region, where no value is below what the base model has.

    reached  how many of `runs` are there
    low, high  the Wilson interval of the share, runs taken as draws of one way to align
    """

    reached: int
    runs: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.reached / self.runs

    def __str__(self) -> str:
        ends = f"{100 * self.low:.0f} to {100 * self.high:.0f}%"
        return f"{100 * self.share:.0f}% ({self.reached} of {self.runs}; {ends})"


def navigate(
    runs: Sequence[Evaluation],
    values: Sequence[str],
    *,
    by: Measure = "level",
    bands: Mapping[str, float] | None = None,
    confidence: float = 0.95,
) -> Navigation:
    """How many of `runs` have every one of `values` at the base's level, or win half the time, or better.

    bands       by how much each value may fall short; None takes the half-width of its interval in that run, so that
                a run that only chance put below counts. The paper's figures have fixed bands, 0.06 in level and
                0.03 in win rate
    confidence  of these intervals and of the interval of the share

    A level's error is that of the gain, paired by prompt (paper, Table 3 and Figure 7).
    """
    if not runs:
        raise ValueError("runs must hold at least one evaluation, got none")
    if by not in ("level", "win rate"):
        raise ValueError(f'by must be "level" or "win rate", got {by!r}')
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    reached = sum(
        all(_holds(run[value], by, z, (bands or {}).get(value)) for value in values) for run in runs
    )
    low, high = _wilson(reached, len(runs), z)
    return Navigation(reached, len(runs), low, high)


def _holds(row: Measured, by: Measure, z: float, band: float | None) -> bool:
    ahead, error = (row.gain, row.gain_se) if by == "level" else (row.win_rate - 0.5, row.win_rate_se)
    if math.isnan(ahead):
        raise ValueError(
            f"runs must compare {row.name} with the base model's answers, got none to compare with"
        )
    return ahead >= -(z * error if band is None else band)


def _wilson(reached: int, runs: int, z: float) -> tuple[float, float]:
    share, width = reached / runs, z * z / runs
    middle = (share + width / 2) / (1 + width)
    half = math.sqrt(share * (1 - share) * width + width * width / 4) / (1 + width)
    return max(0.0, middle - half), min(1.0, middle + half)
