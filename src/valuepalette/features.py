# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Features: the numbers that weights act on, derived from values; and the intervals that a palette asks of them.

    the value itself   r
    a tail             1{r < t}, whose level is a share of answers
    of a cohort C      (r − anchor)·1_C, or the same of a tail: prompts outside C neither count nor move

A feature is all that solver, decoder and evaluation know of an entry, and `Resolved.features_of` is the one way from
values to features. The anchor is the cohort's base level, so that prompts outside count as if they were at it: what is
asked of E[r | C] is asked of the feature at P(C) times the distance, exactly, as prompts are given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array

__all__ = ["COMPARISONS", "Columns", "Feature", "Resolved", "features_of", "member"]

Columns = Mapping[str, Sequence[object] | NDArray[np.generic]]
"""Columns of the prompts by name, an entry per row."""

COMPARISONS: Mapping[str, Callable[[Array, float], NDArray[np.bool_]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Feature:
    """How one feature comes from a value.

    value   the value's name
    tail    `("<", -2.0)`: one where the value lies below −2, else zero; None for the value itself
    cohort  `("audience", "children")`: only prompts with that entry in that column count; None for all
    anchor  the cohort's base level, which the feature is measured from; 0 without a cohort
    share   P(C), the cohort's share of the pilot's weight; 1 without
    """

    value: str
    tail: tuple[str, float] | None = None
    cohort: tuple[str, str] | None = None
    anchor: float = 0.0
    share: float = 1.0

    def number(self, values: Array) -> Array:
        """What a level is the average of: the value, or whether it lies in the tail."""
        if self.tail is None:
            return values
        inside, threshold = self.tail
        return COMPARISONS[inside](values, threshold).astype(float)

    def inside(self, columns: Columns, rows: int) -> NDArray[np.bool_]:
        """Which rows belong to the cohort, shape (rows,); all where there is none."""
        if self.cohort is None:
            return np.ones(rows, bool)
        column, wanted = self.cohort
        if column not in columns:
            raise ValueError(
                f"columns must hold {column!r}, which the cohort {column}={wanted} needs, got "
                f"{', '.join(columns) or 'none'}"
            )
        entries = columns[column]
        if len(entries) != rows:
            raise ValueError(f"column {column!r} must have {rows} entries, one per row, got {len(entries)}")
        return np.fromiter((member(entry) == wanted for entry in entries), bool, rows)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "value": self.value,
            "tail": self.tail and list(self.tail),
            "cohort": self.cohort and list(self.cohort),
            "anchor": self.anchor,
            "share": self.share,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Feature:
        """What `to_dict` wrote."""
        tail = cast("tuple[str, float] | None", data["tail"])
        cohort = cast("tuple[str, str] | None", data["cohort"])
        return cls(
            str(data["value"]),
            None if tail is None else (tail[0], float(tail[1])),
            None if cohort is None else (cohort[0], cohort[1]),
            float(cast("float", data["anchor"])),
            float(cast("float", data["share"])),
        )


def member(entry: object) -> str | None:
    """An entry of a prompt's column as a cohort spells it; None, of no cohort, where nothing is known.

    >>> member("children"), member(3), member(3.0), member(True), member(None)
    ('children', '3', '3', 'true', None)
    """
    if entry is None or entry is np.ma.masked:
        return None
    if isinstance(entry, bool | np.bool_):
        return str(bool(entry)).lower()
    if isinstance(entry, float | np.floating):
        number = float(cast("float", entry))
        return None if math.isnan(number) else repr(number).removesuffix(".0")
    return str(entry)


@dataclass(frozen=True, eq=False)
class Resolved:
    """A palette on a pilot: features, and the interval asked of the level of each.

    Everything is in the units of the features, in which weights act. What a user reads, the level of a cohort among
    its own prompts, is `reported` of it; without a cohort that is the same.

    features         names, m of them: the palette's in its order, then the pilot's others
    lower, upper     (m,) infinite where nothing is asked
    base             (m,) c0
    asked            the text of what is asked of each, "free" where nothing is
    quantiles        (m, 101) quantiles under the base, 0 % to 100 %; of a cohort, among its own prompts
    influence_lower  (N, m) ψ_g of each bound by prompt; zero for a number. Not stored: (0, m) once read back
    influence_upper  (N, m)
    specs            how each feature comes from a value
    sources          of each feature, the entries behind its lower and its upper bound; "" where none is
    inside           (N, m) which prompts count for which feature; None where all do. Not stored
    """

    features: tuple[str, ...]
    lower: Array
    upper: Array
    base: Array
    asked: tuple[str, ...]
    quantiles: Array
    influence_lower: Array
    influence_upper: Array
    specs: tuple[Feature, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    inside: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if not self.specs:
            object.__setattr__(self, "specs", tuple(Feature(name) for name in self.features))
        if not self.sources:
            object.__setattr__(self, "sources", (("", ""),) * len(self.features))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the prompts that features depend on."""
        return tuple(dict.fromkeys(spec.cohort[0] for spec in self.specs if spec.cohort))

    @property
    def factor(self) -> Array:
        """(m,) by how much a reported level moves with the feature's: 1 / P(C); 1 without a cohort."""
        return np.array([1 / spec.share for spec in self.specs])

    def reported(self, levels: Array) -> Array:
        """Levels, or bounds, of the features (m,) as a user reads them: E[r | C] = anchor + L / P(C)."""
        return np.array([spec.anchor for spec in self.specs]) + self.factor * levels

    def measured(self, names: Iterable[str], columns: Iterable[str] = ()) -> NDArray[np.bool_]:
        """Which features values `names` and `columns` of the prompts are enough for, shape (m,)."""
        values, known = set(names), set(columns)
        have = [
            spec.value in values and (spec.cohort is None or spec.cohort[0] in known) for spec in self.specs
        ]
        return np.array(have, bool)

    def features_of(
        self,
        values: Array,
        names: Sequence[str],
        columns: Columns | None = None,
        *,
        partial: bool = False,
    ) -> Array:
        """The features of scored answers, shape (n, m); `values` is (n, V), a column for each of `names`.

        The one way from values to features, so that what was solved is what is served. `columns` holds, an
        entry per row, the columns of the prompts that cohorts are cut by; other features depend on none.

        Raises ValueError where a value or a column is missing; with `partial` such a feature is nan.
        """
        return features_of(self.specs, values, names, columns or {}, partial=partial)

    def numbers_of(self, values: Array, names: Sequence[str]) -> Array:
        """What the reported levels are averages of, shape (n, m): values and tails; nan where not measured."""
        whole = np.full((len(values), len(self.specs)), np.nan)
        for i, spec in enumerate(self.specs):
            if spec.value in names:
                whole[:, i] = spec.number(values[:, list(names).index(spec.value)])
        return whole

    def inside_of(self, columns: Columns, rows: int) -> NDArray[np.bool_]:
        """Which rows, or prompts, count for which feature, shape (rows, m)."""
        return np.column_stack([spec.inside(columns, rows) for spec in self.specs])

    def to_dict(self) -> dict[str, object]:
        """JSON without infinities: an end that is open is null."""
        return {
            "features": list(self.features),
            "specs": [spec.to_dict() for spec in self.specs],
            "asked": list(self.asked),
            "sources": [list(pair) for pair in self.sources],
            "lower": [None if math.isinf(c) else float(c) for c in self.lower],
            "upper": [None if math.isinf(c) else float(c) for c in self.upper],
            "base": self.base.tolist(),
            "quantiles": self.quantiles.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Resolved:
        """What `to_dict` wrote, without the influences."""

        def ends(key: str, open_end: float) -> Array:
            given = cast("Iterable[float | None]", data[key])
            return np.array([open_end if c is None else c for c in given], float)

        features = tuple(cast("Iterable[str]", data["features"]))
        none = np.zeros((0, len(features)))
        return cls(
            features=features,
            lower=ends("lower", -np.inf),
            upper=ends("upper", np.inf),
            base=np.asarray(data["base"], float),
            asked=tuple(cast("Iterable[str]", data["asked"])),
            quantiles=np.asarray(data["quantiles"], float),
            influence_lower=none,
            influence_upper=none,
            specs=tuple(
                Feature.from_dict(spec) for spec in cast("Iterable[Mapping[str, object]]", data["specs"])
            ),
            sources=tuple(
                (lower, upper) for lower, upper in cast("Iterable[tuple[str, str]]", data["sources"])
            ),
        )


def features_of(
    specs: Sequence[Feature],
    values: Array,
    names: Sequence[str],
    columns: Columns,
    *,
    partial: bool = False,
) -> Array:
    """The features of a table of values; see `Resolved.features_of`."""
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"values must have a column for each of {len(names)} names, got {values.shape}")
    place = {name: i for i, name in enumerate(names)}
    needed = dict.fromkeys(spec.value for spec in specs)
    if (missing := [name for name in needed if name not in place]) and not partial:
        raise ValueError(f"values must include {', '.join(needed)}, got none for {', '.join(missing)}")
    # Always laid out row by row, so that the same numbers always add up in the same way, to the last bit.
    out = np.full((len(values), len(specs)), np.nan)
    for i, spec in enumerate(specs):
        if spec.value not in place or (partial and spec.cohort and spec.cohort[0] not in columns):
            continue
        number = spec.number(values[:, place[spec.value]])
        if spec.cohort is not None:
            number = np.where(spec.inside(columns, len(out)), number - spec.anchor, 0.0)
        out[:, i] = number
    return out
