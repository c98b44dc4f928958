"""What the scripts that train heads share: the fit, the measures, what they write.

Quality is the area under the ROC curve: the chance that a text of the class scores above one outside it. A head
must beat length, so each measure stands beside two others: what length alone gives, and the chance among pairs of
texts with the same number of words, where length can say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from valuepalette.rewards.heads import Head

__all__ = ["area", "area_at_equal_length", "cross_validated", "fit", "quality", "word_counts", "write_head"]

Array = NDArray[np.float64]
_FOLDER = Path(__file__).parent


def fit(vectors: Array, labels: NDArray[np.bool_], *, penalty: float = 1.0) -> Head:
    """Logistic regression, both classes weighing the same, with `penalty`/2 times the weights' square."""
    share = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    signs = np.where(labels, 1.0, -1.0)

    def loss(point: Array) -> tuple[float, Array]:
        margins = signs * (vectors @ point[:-1] + point[-1])
        slope = -share * signs / (1 + np.exp(margins))
        value = share @ np.logaddexp(0, -margins) + penalty / 2 * point[:-1] @ point[:-1]
        return value, np.append(vectors.T @ slope + penalty * point[:-1], slope.sum())

    found = minimize(
        loss, np.zeros(vectors.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 5000}
    )
    return Head(found.x[:-1], float(found.x[-1]))


def area(scores: Array, labels: NDArray[np.bool_]) -> float:
    """The area under the ROC curve, ties half.

    >>> area(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))
    0.875
    """
    from scipy.stats import rankdata

    members = int(labels.sum())
    others = len(labels) - members
    return float((rankdata(scores)[labels].sum() - members * (members + 1) / 2) / (members * others))


def area_at_equal_length(scores: Array, labels: NDArray[np.bool_], lengths: NDArray[np.intp]) -> float:
    """The same among pairs of texts of equal length, every pair weighing the same.

    >>> scores, labels = np.array([1.0, 2.0, 5.0, 3.0]), np.array([False, True, False, True])
    >>> area_at_equal_length(scores, labels, np.array([4, 4, 9, 7]))
    1.0
    """
    won = pairs = 0.0
    for length in np.unique(lengths):
        here = lengths == length
        count = labels[here].sum() * (~labels[here]).sum()
        if count:
            won += count * area(scores[here], labels[here])
            pairs += count
    return float(won / pairs) if pairs else float("nan")


def word_counts(texts: Sequence[str]) -> NDArray[np.intp]:
    return np.array([len(text.split()) for text in texts], dtype=np.intp)


def quality(scores: Array, labels: NDArray[np.bool_], texts: Sequence[str]) -> dict[str, float | int]:
    """The three measures of one comparison, rounded to three decimals, and the number of texts."""
    lengths = word_counts(texts)
    return {
        "area": round(area(scores, labels), 3),
        "area at equal length": round(area_at_equal_length(scores, labels, lengths), 3),
        "area of length alone": round(area(lengths.astype(float), labels), 3),
        "texts": len(texts),
    }


def cross_validated(
    vectors: Array,
    labels: NDArray[np.bool_],
    folds: NDArray[np.intp],
    *,
    fitted: Callable[[Array, NDArray[np.bool_]], Head] = fit,
) -> Array:
    """The log-odds of each text by a head fitted without its fold, shape (texts,)."""
    scores = np.empty(len(labels))
    for fold in np.unique(folds):
        out = folds == fold
        scores[out] = fitted(vectors[~out], labels[~out]).log_odds(vectors[out])
    return scores


def write_head(name: str, head: Head, card: Mapping[str, Any], folder: Path = _FOLDER) -> None:
    """Writes `<name>.npz` and `<name>.json`."""
    np.savez(
        folder / f"{name}.npz", weights=head.weights.astype(np.float32), intercept=np.float64(head.intercept)
    )
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
