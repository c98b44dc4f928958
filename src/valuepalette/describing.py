"""What a pilot looks like before anything is asked of it: moments, quantiles, reach, correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array, Groups
from valuepalette.quantities import quantile
from valuepalette.tilting import subset_weights

__all__ = ["Description", "describe"]

PROBABILITIES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True, repr=False)
class Description:
    """A pilot in numbers; `str()` is the table. V values, all moments weighted as `weighting` says.

    rows, prompts       how many
    candidates          the fewest and the most candidates of a prompt
    blank, truncated    rows with a blank response, rows that ended at the token limit; None where not recorded
    values              names
    mean, sd            (V,) the base level c0, and the standard deviation over all rows
    minimum, maximum    (V,) over rows: how far joint mode reaches
    quantiles           (Q, V) at `probabilities`
    within              (V,) share of the variance that lies within prompts, the part a decoder can move; NaN where
                        there is none
    ks                  numbers of candidates to choose among; None stands for all that each prompt has
    lowest, highest     (len(ks), V) σ_k(−e_i) and σ_k(e_i): how far one value alone can be pushed
    correlation         (V, V) over all rows
    correlation_within  (V, V) of the deviations from prompt means
    """

    rows: int
    prompts: int
    candidates: tuple[int, int]
    blank: int | None
    truncated: int | None
    weighting: str
    values: tuple[str, ...]
    mean: Array
    sd: Array
    minimum: Array
    maximum: Array
    probabilities: tuple[float, ...]
    quantiles: Array
    within: Array
    ks: tuple[int | None, ...]
    lowest: Array
    highest: Array
    correlation: Array
    correlation_within: Array

    def __str__(self) -> str:
        parts = [self._opening()]
        parts.append(
            self._moments() if self.values else "no values: not scored yet, or no column was named as one"
        )
        if self.values and self.ks:
            parts.append(self._reach())
        if len(self.values) > 1:
            parts.append(self._correlations())
        return "\n\n".join(parts)

    __repr__ = __str__

    def _opening(self) -> str:
        fewest, most = self.candidates
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        lines = [
            f"{_count(self.rows, 'row')}, {_count(self.prompts, 'prompt')}, "
            f"{each} candidate{'s' * (most > 1)} each; weighted by {self.weighting}"
        ]
        kept = [(self.blank, "blank"), (self.truncated, "cut at the token limit")]
        told = [f"{number:,} {what}" for number, what in kept if number is not None]
        if told:
            lines.append(f"responses: {', '.join(told)}")
        return "\n".join(lines)

    def _moments(self) -> str:
        heads = ["mean", "sd", "min", *(f"q{100 * p:.0f}" for p in self.probabilities), "max", "within"]
        columns = [self.mean, self.sd, self.minimum, *self.quantiles, self.maximum]
        lines = [_name("value") + "".join(f"{head:>8}" for head in heads)]
        for i, value in enumerate(self.values):
            share = f"{self.within[i]:8.0%}" if np.isfinite(self.within[i]) else f"{'–':>8}"
            lines.append(_name(value) + "".join(_numbers([column[i] for column in columns])) + share)
        return "\n".join(
            [
                *lines,
                "within: the share of the variance that lies between answers to one prompt; min, max: over all rows",
            ]
        )

    def _reach(self) -> str:
        shown = range(len(self.ks))
        if len(shown) > 5:
            shown = [*shown[:4], shown[-1]]
        heads = ["all" if self.ks[j] is None else f"k = {self.ks[j]}" for j in shown]
        lines = [
            "Reach of one value alone, lowest and highest, choosing among k candidates of a prompt",
            _name("value") + "".join(f"{head:>16}" for head in heads),
        ]
        for i, value in enumerate(self.values):
            pairs = [end[j, i] for j in shown for end in (self.lowest, self.highest)]
            lines.append(_name(value) + "".join(_numbers(pairs)))
        return "\n".join(lines)

    def _correlations(self) -> str:
        """Blocks of columns that fit the page; values stand as numbers in the heads."""
        size, width = len(self.values), 12
        lines = ["Correlation: below the diagonal over all rows, above it within prompts"]
        for start in range(0, size, width):
            block = range(start, min(start + width, size))
            lines.append(_name("value") + "".join(f"{j + 1:>6}" for j in block))
            for i, value in enumerate(self.values):
                cells = (
                    f"{'·':>6}"
                    if i == j
                    else _share((self.correlation if i > j else self.correlation_within)[i, j])
                    for j in block
                )
                lines.append(_name(f"{i + 1} {value}") + "".join(cells))
        return "\n".join(lines)


def describe(
    groups: Groups,
    values: Sequence[str],
    *,
    weighting: str = "prompts",
    blank: int | None = None,
    truncated: int | None = None,
) -> Description:
    """Describe scored candidates; `blank` and `truncated` are counts that the numbers cannot show."""
    weights = groups.row_weights
    offsets = groups.values - groups.base
    inside = groups.values - np.repeat(groups.means, groups.sizes, axis=0)
    total, within = (weights[:, None] * part for part in (offsets, inside))
    covariance, covariance_within = total.T @ offsets, within.T @ inside
    variance, variance_within = np.diag(covariance), np.diag(covariance_within)
    # What rounding leaves of a constant is no spread.
    noise = (64 * np.finfo(float).eps * np.abs(groups.values).max(axis=0, initial=0)) ** 2
    varies = variance > noise
    shares = np.array(PROBABILITIES)
    ks = _candidate_counts(int(groups.sizes.min()), int(groups.sizes.max()))
    lowest, highest = _reaches(groups, ks)
    return Description(
        rows=len(groups.values),
        prompts=len(groups.sizes),
        candidates=(int(groups.sizes.min()), int(groups.sizes.max())),
        blank=blank,
        truncated=truncated,
        weighting=weighting,
        values=tuple(values),
        mean=groups.base,
        sd=np.sqrt(np.where(varies, variance, 0)),
        minimum=groups.values.min(axis=0),
        maximum=groups.values.max(axis=0),
        probabilities=PROBABILITIES,
        quantiles=np.reshape(
            [quantile(column, weights, shares) for column in groups.values.T], (-1, len(shares))
        ).T,
        within=np.where(varies, variance_within / np.where(varies, variance, 1), np.nan),
        ks=ks,
        lowest=lowest,
        highest=highest,
        correlation=_correlation(covariance, varies),
        correlation_within=_correlation(covariance_within, variance_within > noise),
    )


def _candidate_counts(fewest: int, most: int) -> tuple[int | None, ...]:
    """2, 4, 8, … as far as every prompt has candidates, and all."""
    ks = [2**power for power in range(1, fewest.bit_length()) if 2**power <= fewest]
    if fewest == most:
        return tuple(ks if fewest in ks or fewest == 1 else [*ks, fewest])
    return (*ks, None)


def _reaches(groups: Groups, ks: tuple[int | None, ...]) -> tuple[Array, Array]:
    """σ_k(±e_i) for every value and k from one sort: the mean order statistics of each number of candidates."""
    shape = (len(ks), groups.values.shape[1])
    lowest, highest = np.zeros(shape), np.zeros(shape)
    for size in np.unique(groups.sizes) if ks else ():
        which = np.flatnonzero(groups.sizes == size)
        plane = groups.values[groups.starts[which][:, None] + np.arange(size)]
        ranked = np.tensordot(groups.weights[which], np.sort(plane, axis=1), axes=1)
        for row, k in enumerate(ks):
            chance = subset_weights(int(size), int(size) if k is None else k)
            highest[row] += chance @ ranked
            lowest[row] += chance[::-1] @ ranked
    return lowest, highest


def _correlation(covariance: Array, varies: NDArray[np.bool_]) -> Array:
    scale = np.sqrt(np.where(varies, np.diag(covariance), 1))
    return np.where(varies & varies[:, None], covariance / np.outer(scale, scale), np.nan)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _name(name: str, width: int = 18) -> str:
    return f"{name if len(name) < width else name[: width - 2] + '…':<{width}}"


def _numbers(numbers: Sequence[float]) -> list[str]:
    """Eight characters each, a blank first: one number of decimals for all, as many as fit; else powers of ten."""
    largest = max(map(abs, numbers), default=0)
    if largest == 0 or 0.01 <= largest < 999_999:
        decimals = 3 if largest < 100 else 2 if largest < 1000 else 1 if largest < 10_000 else 0
        return [f"{round(float(number), decimals) + 0.0:8.{decimals}f}" for number in numbers]  # no -0
    return [f"{_power(number):>8}" for number in numbers]


def _power(number: float) -> str:
    texts = (
        f"{number:.{digits}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
        for digits in (1, 0)
    )
    return "0" if number == 0 else next((text for text in texts if len(text) <= 7), "…")


def _share(number: float) -> str:
    return f"{number:6.2f}" if np.isfinite(number) else f"{'–':>6}"
