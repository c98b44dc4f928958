"""Heads on sentence embeddings, from texts with labels or ratings, several aspects at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.folders import replace_file, write_json
from valuepalette.naming import short
from valuepalette.progress import Progress
from valuepalette.rewards.embedded import sentence_encoder
from valuepalette.rewards.embedding import Encoder
from valuepalette.rewards.exchange import read, reads_or_raise
from valuepalette.rewards.learned import CARD, FORMAT, HEAD, Learned, pinned
from valuepalette.rewards.learning.measuring import class_quality, rating_quality
from valuepalette.rewards.learning.reading import Examples, held_out_rows, read_examples
from valuepalette.rewards.models import Checkpoint

__all__ = ["train_head"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_FOLDS = 5
_AT_ONCE = 512


@dataclass(frozen=True)
class _Aspect:
    """A column to learn: classes, true where better, or ratings, larger where better; `known` rows have an entry."""

    name: str
    kind: str
    definition: str
    entries: Array
    known: NDArray[np.bool_]


def train_head(
    data: object,
    folder: str | Path,
    *,
    aspects: Sequence[str] | None = None,
    better: Mapping[str, object] | None = None,
    reads: str = "answer",
    encoder: str | Encoder | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    quiet: bool = False,
) -> Learned:
    """Learns a head on sentence embeddings for each aspect of a table, and judges it on what was held out.

    data      a file (Parquet, CSV, JSON, JSONL) or table with `text`, or `prompt` and `response`, and a column for each
              aspect. Two different entries make it a class, learned by logistic regression; more, which must be
              numbers, a rating, learned by ridge regression. Rows without an entry are left out of that aspect.
    folder    where the heads and their card go: `reward = "head"`, `model = "<folder>"` scores by them
    aspects   the columns to learn; by default every column that is not text or prompt
    better    by aspect, the class that scores up (by default true, or the larger of two numbers), or "lower" for a
              rating that is better when it is lower
    reads     of a prompt and response, what is embedded: "answer", "last turn and answer" or "conversation"
    encoder   a Hugging Face id or folder, or an `Encoder`; by default the packaged all-MiniLM-L6-v2
    held_out  the share of prompts (or of texts, where there are none) that are not learned from
    quiet     without it, how far the embedding is goes to standard error

    The penalty is chosen by cross-validation over the rest, in which, as in what is held out, no prompt is torn apart.
    The head that was judged is the one that is saved. Raises ValueError, in one line that names the column, for what
    cannot be learned from.
    """
    _need_sklearn()
    examples = read_examples(data)
    if reads_or_raise(reads) != "answer" and not examples.prompted:
        raise ValueError(f"reads must be 'answer' where there are texts without prompts; got {reads!r}")
    chosen = _aspects(examples, aspects, better or {})
    used = sentence_encoder() if encoder is None else _encoder(encoder)
    texts = read(reads_or_raise(reads), examples.prompts, examples.responses)
    rng = np.random.default_rng(seed)
    out = held_out_rows(examples.groups, held_out, rng)
    _check_both_parts(chosen, examples.groups, out)
    vectors = _encoded(used, texts, quiet)
    fitted = [_fit(aspect, vectors, examples.groups, ~out, seed) for aspect in chosen]
    told: list[dict[str, Any]] = []
    for aspect, (weights, intercept, penalty) in zip(chosen, fitted, strict=True):
        rows = np.flatnonzero(out & aspect.known)
        scores, entries, groups = (
            vectors[rows] @ weights + intercept,
            aspect.entries[rows],
            examples.groups[rows],
        )
        judged = [texts[row] for row in rows]
        told.append(
            {
                "name": aspect.name,
                "kind": aspect.kind,
                "definition": aspect.definition,
                "penalty": penalty,
                "learned from": int((~out & aspect.known).sum()),
                "quality": class_quality(scores, entries > 0, judged, groups)
                if aspect.kind == "classes"
                else rating_quality(scores, entries, judged, groups),
            }
        )
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    stacked = {
        "weights": np.array([weights for weights, _, _ in fitted]),
        "intercepts": np.array([intercept for _, intercept, _ in fitted]),
    }
    replace_file(path / HEAD, lambda to: _save(to, stacked))
    card = {
        "format": FORMAT,
        "reward": "head",
        "reads": reads,
        "encoder": _about(used),
        "data": {"source": examples.name, "texts": len(texts), "held out": int(out.sum()), "seed": seed},
        "aspects": told,
    }
    write_json(path / CARD, card)
    return Learned.load(path)


def _aspects(examples: Examples, names: Sequence[str] | None, better: Mapping[str, object]) -> list[_Aspect]:
    columns = examples.columns
    asked = list(columns) if names is None else list(names)
    if isinstance(names, str) or not asked or (absent := [name for name in asked if name not in columns]):
        raise ValueError(
            f"aspects must be a list of columns of {examples.name} ({', '.join(columns) or 'it has none'}); "
            f"got {names if isinstance(names, str) or not asked else absent[0]!r}"
        )
    if unknown := [name for name in better if name not in asked]:
        raise ValueError(f"better must name aspects ({', '.join(asked)}); got {unknown[0]!r}")
    return [_aspect(name, columns[name], better.get(name)) for name in asked]


def _aspect(name: str, column: list[Any], better: object) -> _Aspect:
    known = np.array([entry is not None and entry == entry for entry in column])  # nan differs from itself
    entries = [entry for entry, there in zip(column, known, strict=True) if there]
    distinct = list(dict.fromkeys(entries))
    numeric = all(isinstance(entry, int | float) for entry in distinct)
    numbers = np.zeros(len(column))
    if len(distinct) == 2:
        up = _better_class(name, distinct, numeric, better)
        numbers[known] = [1.0 if entry == up else -1.0 for entry in entries]
        (other,) = (entry for entry in distinct if entry != up)
        return _Aspect(name, "classes", f"that {name} is {up} rather than {other}", numbers, known)
    if not numeric or len(distinct) < 2:
        raise ValueError(
            f"column {name} must hold two classes, or ratings in numbers; got {len(distinct)} different entries, "
            f"such as {', '.join(short(entry) for entry in distinct[:3]) or 'none'}"
        )
    if better not in (None, "lower", "higher"):
        raise ValueError(f"better must be 'higher' or 'lower' for the ratings {name}; got {better!r}")
    sign = -1.0 if better == "lower" else 1.0
    numbers[known] = sign * np.array(entries, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {name} must hold finite ratings; got an infinite one")
    return _Aspect(name, "ratings", f"{'minus ' if sign < 0 else ''}the rating {name}", numbers, known)


def _better_class(name: str, distinct: Sequence[Any], numeric: bool, better: object) -> Any:
    if better is None and numeric:
        return max(distinct)
    if better not in distinct:
        named = " or ".join(short(entry) for entry in distinct)
        raise ValueError(f"better must name the class of {name} that scores up, {named}; got {better!r}")
    return better


def _check_both_parts(aspects: Sequence[_Aspect], groups: Rows, out: NDArray[np.bool_]) -> None:
    """Enough prompts with each class to be learned from, and to be judged by."""
    for aspect in aspects:
        ratings = aspect.kind == "ratings"
        sides = [aspect.known] if ratings else [aspect.known & (aspect.entries * s > 0) for s in (1, -1)]
        for part, rows, least in (("learn from", ~out, _FOLDS), ("judge by", out, 2)):
            found = min(len(np.unique(groups[rows & side])) for side in sides)
            if found < least:
                raise ValueError(
                    f"column {aspect.name} must have entries{'' if ratings else ' of each class'} at {least} prompts "
                    f"(or texts, where there are none) or more to {part}; got {found}"
                )


def _fit(
    aspect: _Aspect, vectors: Array, groups: Rows, learned: NDArray[np.bool_], seed: int
) -> tuple[Array, float, float]:
    """Weights, intercept, and the penalty that did best in cross-validation: λ of loss + λ/2·‖weights‖²."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold

    rows = learned & aspect.known
    x, y, own = vectors[rows], aspect.entries[rows], groups[rows]
    folds = min(_FOLDS, len(np.unique(own)))
    grid = 10.0 ** np.arange(-4, 4)
    if aspect.kind == "classes":
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        search = GridSearchCV(
            LogisticRegression(max_iter=10_000),
            {"C": (1 / grid).tolist()},
            scoring=_log_chance,
            cv=parts,
            error_score="raise",  # pyright: ignore[reportArgumentType]
        )
    else:
        parts = GroupKFold(folds, shuffle=True, random_state=seed)
        search = GridSearchCV(Ridge(), {"alpha": grid.tolist()}, scoring="neg_mean_squared_error", cv=parts)
    best: Any = search.fit(x, y, groups=own).best_estimator_
    penalty = 1 / best.C if aspect.kind == "classes" else best.alpha
    return np.ravel(best.coef_).astype(np.float64), float(np.ravel(best.intercept_)[0]), float(penalty)


def _log_chance(model: Any, x: Array, y: Array) -> float:
    """The mean log-probability of the right class; also where a fold holds one class only."""
    return float(-np.logaddexp(0, -y * model.decision_function(x)).mean())


def _encoded(encoder: Encoder, texts: Sequence[str], quiet: bool) -> Array:
    """The vectors of the texts; each distinct text is encoded once."""
    distinct = list(dict.fromkeys(texts))
    parts: list[Array] = []
    with Progress("embedding", len(distinct), unit="texts", quiet=quiet) as progress:
        for start in range(0, len(distinct), _AT_ONCE):
            part = distinct[start : start + _AT_ONCE]
            parts.append(encoder.encode(part))
            progress.advance(len(part))
    place = {text: row for row, text in enumerate(distinct)}
    return np.concatenate(parts)[[place[text] for text in texts]]


def _encoder(encoder: str | Encoder) -> Encoder:
    return encoder if isinstance(encoder, Encoder) else Encoder(Checkpoint(encoder))


def _about(encoder: Encoder) -> dict[str, Any]:
    """What it takes to open the encoder again, and to know it."""
    packaged = encoder.packaged is not None
    return {
        "model": None if packaged else encoder.checkpoint.id,
        "revision": None if packaged else encoder.checkpoint.revision,
        "dtype": None if packaged else encoder.checkpoint.dtype,
        "pooling": encoder.pooling,
        "max_tokens": encoder.max_tokens,
        "pinned": pinned(encoder),
    }


def _save(to: Path, arrays: Mapping[str, Array]) -> None:
    with to.open("wb") as file:  # a path would get another suffix
        np.savez(file, allow_pickle=False, **arrays)


def _need_sklearn() -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            'training a head needs scikit-learn: pip install "valuepalette[train]"', name="sklearn"
        )
