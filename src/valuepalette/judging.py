# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Judging answers by prompt: levels, standard errors, win rates, verdicts; arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from valuepalette.grouping import Array
from valuepalette.uncertainty import errors

__all__ = ["Choices", "Verdict", "errors", "judge", "wins"]


class Verdict(Enum):
    """Whether a level that was asked for was had; the text says what that means."""

    MET = "The level is had, to within the tolerance."
    MISSED = "The level is not had."
    UNDECIDED = "The prompts are too few to tell."


@dataclass(frozen=True, eq=False)
class Choices:
    """What may be answered to each of M prompts: `rows[g]` (k_g, m) are the values of its candidates, and
    `chances[g]` (k_g,) with what probability each is the answer.
    """

    rows: Sequence[Array]
    chances: Sequence[Array]

    @cached_property
    def means(self) -> Array:
        """Each prompt's plain mean over candidates, shape (M, m)."""
        return np.array([rows.mean(axis=0) for rows in self.rows])

    @cached_property
    def levels(self) -> Array:
        """Each prompt's expected values, shape (M, m)."""
        each = zip(self.means, self.chances, self.rows, strict=True)
        return np.array([mean + chance @ (rows - mean) for mean, chance, rows in each])

    @cached_property
    def entropy(self) -> Array:
        """Of the choice, in nats, shape (M,)."""
        return np.array([-float(p[p > 0] @ np.log(p[p > 0])) for p in self.chances])

    def even(self) -> Choices:
        """The base model's choice: all candidates of a prompt alike."""
        return Choices(self.rows, [np.full(len(rows), 1 / len(rows)) for rows in self.rows])

    def below(self, levels: Array) -> Array:
        """The chance that the answer to a prompt lies below `levels` (m,), ties half, shape (M, m)."""
        each = zip(self.chances, self.rows, strict=True)
        return np.array([chance @ _beats(levels - rows, 0.5) for chance, rows in each])


def wins(ours: Choices, theirs: Choices | None, tie: float) -> Array:
    """The chance that our answer to a prompt beats theirs, shape (M, m); a tie counts `tie`.

    Without `theirs`, ours are compared with the base's among the same candidates: each in turn is held out as the
    base's answer, and we choose among the others. That is unbiased for k − 1 candidates; to compare with a candidate
    that was chosen from would not be. Where the held-out one has all the chance, the others count alike, which is
    cautious. nan where there is a single candidate.
    """
    out = np.full_like(ours.levels, np.nan)
    for g, (rows, chance) in enumerate(zip(ours.rows, ours.chances, strict=True)):
        if theirs is not None:
            against, pairs = theirs.rows[g], np.outer(chance, theirs.chances[g])
        elif len(rows) > 1:
            against, pairs = rows, _held_out(chance)
        else:
            continue
        out[g] = np.einsum("ij,ijm->m", pairs, _beats(rows[:, None] - against, tie))
    return out


def _held_out(chance: Array) -> Array:
    """The chance that i is our answer and j, held out, is the base's, shape (k, k)."""
    k = len(chance)
    others = 1 - np.eye(k)
    left = others @ chance
    possible = left > np.finfo(float).tiny
    law = np.where(possible, chance[:, None] / np.where(possible, left, 1), 1 / (k - 1))
    return law * others / k


def _beats(ahead: Array, tie: float) -> Array:
    """1 where ahead, 0 where behind; nan stays."""
    return np.where(np.isnan(ahead), np.nan, (ahead > 0) + tie * (ahead == 0))


def judge(
    level: float,
    variance: float,
    lower: float,
    upper: float,
    *,
    tolerance: float,
    deviations: float,
    prompts: float,
    pilot_prompts: float,
) -> tuple[Verdict | None, float]:
    """Whether a level is within its bounds, and how many prompts would decide; of two bounds, the worse.

    level, variance  estimated on `prompts` M; the variance is that of one prompt, so se² = v/M + v/N
    tolerance        by which a bound may be missed, in the level's units
    deviations       standard errors to either side of the interval

    *Met* if the interval ends no further than the tolerance outside the bound; else *missed* if all of it lies
    outside; else *undecided*. The number is nan unless undecided; inf where M → ∞ would not do, and only a larger
    pilot N would. None where there is no bound.

    >>> judge(1.0, 4.0, 1.0, np.inf, tolerance=0.1, deviations=2.0, prompts=100, pilot_prompts=10_000)
    (<Verdict.UNDECIDED: 'The prompts are too few to tell.'>, 1905.0)
    """
    found: list[tuple[Verdict, float]] = []
    half = deviations * math.sqrt(variance / prompts + variance / pilot_prompts)
    for bound, excess in ((lower, level - lower), (upper, upper - level)):
        if math.isinf(bound):
            continue
        allowed = tolerance + 64 * float(np.finfo(float).eps) * max(abs(level), abs(bound))
        if excess - half >= -allowed:
            found.append((Verdict.MET, math.nan))
        elif excess + half < 0:
            found.append((Verdict.MISSED, math.nan))
        elif math.isnan(half):
            found.append((Verdict.UNDECIDED, math.nan))
        else:
            # The error at which this estimate would decide, and the M that has it.
            wanted = max(excess + allowed, -excess) / deviations
            room = wanted**2 - variance / pilot_prompts
            needed = float(math.ceil(variance / room)) if room > 0 else math.inf
            found.append((Verdict.UNDECIDED, needed))
    for verdict in (Verdict.MISSED, Verdict.UNDECIDED):
        if numbers := [needed for was, needed in found if was is verdict]:
            return verdict, max(numbers)
    return (Verdict.MET, math.nan) if found else (None, math.nan)
