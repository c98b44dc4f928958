"""How good a learned reward is on data it has not seen: measures with intervals, beside what length alone gives.

Intervals are of 95 %. Those of areas and correlations come from resampling whole groups (a prompt's texts stay
together); a share of pairs won has Wilson's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.rewards.heads.training import area, area_at_equal_length, word_counts

__all__ = [
    "class_quality",
    "pair_quality",
    "rank_correlation",
    "rating_quality",
    "resampled",
    "share_won",
    "wilson",
]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
_RESAMPLES = 500
_DEVIATIONS = NormalDist().inv_cdf(0.975)


def class_quality(
    scores: Array, labels: NDArray[np.bool_], texts: Sequence[str], groups: Rows
) -> dict[str, Any]:
    """Of log-odds: areas under the ROC curve with their intervals, the accuracy, and what it is to be compared with."""
    lengths = word_counts(texts)
    right = ((scores > 0) == labels).astype(float)
    return {
        "area": resampled(lambda rows: _area(scores[rows], labels[rows]), groups),
        "area at equal length": resampled(
            lambda rows: area_at_equal_length(scores[rows], labels[rows], lengths[rows]), groups
        ),
        "area of length alone": _rounded(_area(lengths.astype(float), labels)),
        "accuracy": wilson(right, groups),
        "share of the larger class": _rounded(max(labels.mean(), 1 - labels.mean())),
        "texts": len(texts),
    }


def rating_quality(scores: Array, ratings: Array, texts: Sequence[str], groups: Rows) -> dict[str, Any]:
    """Of predicted ratings: rank correlations with their intervals, as it is and with length held constant."""
    lengths = word_counts(texts).astype(float)
    return {
        "rank correlation": resampled(lambda rows: rank_correlation(scores[rows], ratings[rows]), groups),
        "rank correlation beyond length": resampled(
            lambda rows: rank_correlation(scores[rows], ratings[rows], lengths[rows]), groups
        ),
        "rank correlation of length alone": _rounded(rank_correlation(lengths, ratings)),
        "texts": len(texts),
    }


def pair_quality(
    margins: Array, chosen: Sequence[str], rejected: Sequence[str], groups: Rows, *, longer: bool
) -> dict[str, Any]:
    """Of pairs: how often the chosen answer scores higher, by how much (`margins`); ties count half.

    Length says nothing in the mean of two shares: the one among pairs whose chosen answer is the longer, and the one
    among the others. `longer` is the rule of length alone that did better on the pairs trained on.
    """
    won = share_won(margins)
    gaps = word_counts(chosen) - word_counts(rejected)
    by_length = share_won(gaps.astype(float) * (1 if longer else -1))
    return {
        "accuracy": wilson(won, groups),
        "accuracy at equal odds of being longer": resampled(
            lambda rows: _balanced(won[rows], gaps[rows]), groups
        ),
        f"accuracy of the {'longer' if longer else 'shorter'} answer": wilson(by_length, groups),
        "pairs": len(won),
    }


def share_won(margins: Array) -> Array:
    """1 where a pair is won, 0 where it is lost, ½ where it is tied."""
    return (margins > 0) + 0.5 * (margins == 0)


def rank_correlation(x: Array, y: Array, beside: Array | None = None) -> float:
    """Spearman's; with `beside`, between what is left of both ranks after a straight line in the rank of that.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([3.0, 4.0, 5.0]))
    1.0
    """
    from scipy.stats import rankdata

    ranks = [rankdata(entries) for entries in (x, y)]
    if beside is not None:
        other = np.column_stack([np.ones(len(x)), rankdata(beside)])
        ranks = [rank - other @ np.linalg.lstsq(other, rank, rcond=None)[0] for rank in ranks]
    left, right = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 1e-9 * len(x) ** 3 else math.nan


def wilson(entries: Array, groups: Rows) -> list[float | None]:
    """The mean of entries in [0, 1] with Wilson's interval, for as many trials as the error by group is worth.

    >>> wilson(np.array([1.0, 1.0, 1.0, 0.0]), np.arange(4))
    [0.75, 0.301, 0.954]
    """
    p, sums, sizes = float(entries.mean()), np.bincount(groups, entries), np.bincount(groups)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    shares = sizes / len(entries)
    # The variance of the mean, by group; without N / (N − 1), as Wilson's has none.
    variance = float(shares**2 @ (sums / sizes - p) ** 2)
    informed = variance > 1e-15 and 0 < p < 1
    trials = min(p * (1 - p) / variance, len(entries)) if informed else len(sizes)
    z = _DEVIATIONS**2 / trials
    middle, half = p + z / 2, _DEVIATIONS * math.sqrt(p * (1 - p) / trials + z / (4 * trials))
    return [_rounded(bound) for bound in (p, (middle - half) / (1 + z), (middle + half) / (1 + z))]


def resampled(measure: Callable[[Rows], float], groups: Rows, *, seed: int = 0) -> list[float | None]:
    """`measure` of all rows, and the interval of it over draws of whole groups; None where it has no value."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order], append=groups.max() + 1)) + 1
    members = np.split(order, ends[:-1])
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(members), (_RESAMPLES, len(members)))
    found = np.array([measure(np.concatenate([members[group] for group in draw])) for draw in draws])
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (math.nan, math.nan)
    return [_rounded(number) for number in (measure(np.arange(len(groups))), low, high)]


def _area(scores: Array, labels: NDArray[np.bool_]) -> float:
    return area(scores, labels) if labels.any() and not labels.all() else math.nan


def _balanced(won: Array, gaps: NDArray[np.intp]) -> float:
    sides = [won[gaps > 0], won[gaps < 0]]
    return float(np.mean([side.mean() for side in sides])) if all(map(len, sides)) else math.nan


def _rounded(number: float) -> float | None:
    return None if math.isnan(number) else round(float(number), 3)
