# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Resolving: from a palette and a pilot to features, intervals, and the influence of each prompt on their ends.

The solver knows only what comes of it. A new kind of entry is a new quantity, or a new kind of feature; nothing above
these modules has to hear of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from valuepalette import laying
from valuepalette.features import Columns, Feature, Resolved, features_of, member
from valuepalette.grouping import Array, Groups
from valuepalette.palette import Ask, Palette, Relation, Subject
from valuepalette.quantities import Level, Scored, Side, quantile

__all__ = [
    "GRID",
    "featured",
    "resolve",
    "sides",
    "subjects_of",
]

GRID = np.arange(101) / 100


def resolve(
    palette: Palette,
    groups: Groups,
    names: Sequence[str],
    *,
    candidates: int,
    joint: bool,
    scales: Mapping[str, str],
    columns: Columns | None = None,
) -> Resolved:
    """What `palette` asks on a pilot, in the units of its features.

    `groups.values` has a column for each of `names`; `candidates` is the decoder's k; `scales` says which
    values are probabilities or log-probabilities ("real" where it is silent); `columns` holds an entry for each of
    the N prompts. Of several entries on one feature the tightest bound on either side counts; bounds that cross are
    for the solver to refuse. A ValueError of one line names an entry that makes no sense on this pilot.

    A threshold that is a quantile is taken as given: its own uncertainty is in no standard error.

    >>> groups = Groups(np.arange(8.0)[:, None], np.array([0, 4, 8]), np.array([0.5, 0.5]))
    >>> on = resolve(Palette({"humor": "reach 50%"}), groups, ["humor"], candidates=4, joint=False, scales={})
    >>> on.base, on.lower, on.upper
    (array([3.5]), array([4.25]), array([inf]))
    """
    subjects, columns = subjects_of(palette, names, joint=joint), columns or {}
    placed = [_place(subject, groups, names, columns) for subject in subjects]
    specs = tuple(spec for spec, _, _ in placed)
    base = featured(specs, groups, names, {name: columns[name] for name in palette.columns}).base
    m, prompts = len(subjects), len(groups.sizes)
    ends: dict[Side, Array] = {1: np.full(m, -np.inf), -1: np.full(m, np.inf)}
    influence: dict[Side, Array] = {1: np.zeros((prompts, m)), -1: np.zeros((prompts, m))}
    sources: dict[Side, list[str]] = {1: [""] * m, -1: [""] * m}
    asked = ["free"] * m
    for i, (subject, (spec, inside, own)) in enumerate(zip(subjects, placed, strict=True)):
        asks = palette.asks.get(subject, ())
        scale = scales.get(subject.value, "real") if subject.tail is None else "probability"
        level = float(base[i]) if subject.cohort is None else spec.anchor
        scored = Scored(own, level, candidates, joint, scale)
        if asks:
            asked[i] = ", ".join(ask.wanted for ask in asks)
        for ask, side in sides(asks):
            try:
                bound, psi = ask.quantity.bound(scored, side)
            except ValueError as error:
                raise ValueError(f"palette[{str(subject)!r}]: {error}") from None
            if subject.cohort is not None:
                mean = float(own.weights @ psi)
                inner, psi = psi - mean + bound - spec.anchor, np.zeros(prompts)
                psi[inside] = inner
                bound = float(base[i]) + (bound - spec.anchor) * spec.share
            if side * bound > side * ends[side][i]:
                ends[side][i], influence[side][:, i], sources[side][i] = bound, psi, ask.wanted
    return Resolved(
        features=tuple(str(subject) for subject in subjects),
        lower=ends[1],
        upper=ends[-1],
        base=base,
        asked=tuple(asked),
        quantiles=np.array([_grid(own) for _, _, own in placed]),
        influence_lower=influence[1],
        influence_upper=influence[-1],
        specs=specs,
        sources=tuple(zip(sources[1], sources[-1], strict=True)),
        inside=np.column_stack([inside for _, inside, _ in placed]) if palette.columns else None,
    )


_FEATURED: WeakKeyDictionary[Groups, tuple[tuple[object, ...], Groups]] = WeakKeyDictionary()
"""Of groups that are still there, their last features: a palette that is moved asks of the same ones again."""


def featured(specs: tuple[Feature, ...], groups: Groups, names: Sequence[str], columns: Columns) -> Groups:
    """The features of scored candidates; `columns` holds an entry for each of the N prompts."""
    asked, known = (specs, tuple(names)), _FEATURED.get(groups)
    if known is not None and known[0] == asked and not columns:
        return known[1]
    by_row = {name: np.repeat(np.asarray(entries), groups.sizes) for name, entries in columns.items()}
    found = Groups(features_of(specs, groups.values, names, by_row), groups.starts, groups.weights)
    if not columns and found.values.size <= laying.KEPT:
        _FEATURED[groups] = asked, found
    return found


_GRIDS: WeakKeyDictionary[Groups, Array] = WeakKeyDictionary()
"""Of columns that are still there: a value's quantiles are the same whatever is asked, and sorting takes a while."""


def _grid(own: Groups) -> Array:
    """The quantile grid of one column, (101,)."""
    if own not in _GRIDS:
        _GRIDS[own] = quantile(own.values[:, 0], own.row_weights, GRID)
    return _GRIDS[own]


def sides(asks: Sequence[Ask]) -> Iterator[tuple[Ask, Side]]:
    """Each entry with each side on which it asks; an equality asks on both."""
    return ((ask, side) for ask in asks for side in _SIDES[ask.relation])


def _place(
    subject: Subject, groups: Groups, names: Sequence[str], columns: Columns
) -> tuple[Feature, NDArray[np.bool_], Groups]:
    """A subject on a pilot: its feature, its prompts (N,), and its numbers on those alone."""
    cohort = subject.cohort and (subject.cohort.column, subject.cohort.member)
    spec = Feature(subject.value, cohort=cohort)
    at = list(names).index(subject.value)
    inside = np.ones(len(groups.sizes), bool)
    if subject.cohort is not None:
        inside = spec.inside(columns, len(groups.sizes))
        if not inside.any():
            have = sorted({entry for one in columns[subject.cohort.column] if (entry := member(one))})
            shown = ", ".join(have[:5]) + (", …" if len(have) > 5 else "")
            raise ValueError(
                f"the cohort {subject.cohort} must have prompts in the pilot, whose {subject.cohort.column} is "
                f"{shown or 'empty'}"
            )
    own = _only(groups, at, inside)
    if subject.tail is not None:
        cut = subject.tail.threshold
        threshold = cut.at if isinstance(cut, Level) else cut.of(own)
        spec = replace(spec, tail=(subject.tail.inside, threshold))
        own = Groups(spec.number(own.values), own.starts, own.weights)
    if subject.cohort is not None:
        spec = replace(spec, anchor=float(own.base[0]), share=float(groups.weights[inside].sum()))
    return spec, inside, own


def _only(groups: Groups, column: int, inside: NDArray[np.bool_]) -> Groups:
    """One column of some prompts, whose weights sum to one again."""
    if inside.all():
        return groups.columns[column]
    rows, weights = np.repeat(inside, groups.sizes), groups.weights[inside]
    starts = np.concatenate([[0], np.cumsum(groups.sizes[inside])])
    return Groups(groups.values[rows, column : column + 1], starts, weights / weights.sum())


_SIDES: Mapping[Relation, tuple[Side, ...]] = {">=": (1,), "<=": (-1,), "==": (1, -1)}


def subjects_of(palette: Palette, names: Sequence[str], *, joint: bool) -> tuple[Subject, ...]:
    """The features of a palette on a pilot's values: the palette's in its order, then the pilot's others."""
    if joint and palette.columns:
        raise ValueError(
            'cohorts need mode="prompt", got "joint", which re-weights prompts and with them a cohort\'s share; to ask '
            "of a cohort in joint mode solve on its prompts alone, pilot.select(…)"
        )
    for name in palette.values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the palette names {name!r}, the pilot's values are {', '.join(names)}{hint}")
    others = (Subject(name) for name in names)
    subjects = (*palette.asks, *(subject for subject in others if subject not in palette.asks))
    called = [str(subject) for subject in subjects]
    if twice := [name for name in called if called.count(name) > 1]:
        raise ValueError(f"the palette's feature {twice[0]!r} has the name of a value; rename the value")
    return subjects
