# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The palette: a small language that says which levels of which values are wanted (docs/palette.md).

    text      parse      an Ask: a value, a relation, a quantity
    Ask       resolve    a feature, an interval, and the influence of each prompt on the interval's ends

The solver knows only the right-hand side. A new kind of entry is a new `Quantity`, or a new kind of feature;
nothing above this module has to hear of it.
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal, Protocol, cast

import numpy as np

from valuepalette.tilting import Array, Groups, prompt_support

__all__ = ["Ask", "Palette", "Quantity", "Resolved", "Scored", "parse", "quantile", "resolve"]

Relation = Literal[">=", "<=", "=="]
Side = Literal[1, -1]
Bound = tuple[float, Array]
"""A level in raw units, and the influence ψ_g of each prompt on it, shape (N,)."""

GRID = np.arange(101) / 100


@dataclass(frozen=True, eq=False)
class Scored:
    """One feature of a pilot, and what is needed to say how far it is to go.

    groups      its numbers by prompt, one column
    base        c0, its level under the base model
    candidates  k, of which the decoder chooses one; without effect in joint mode
    joint       whether prompts are re-weighted too, so that the largest of all rows is in reach
    scale       "real", "probability" or "log-probability"
    """

    groups: Groups
    base: float
    candidates: int
    joint: bool
    scale: str

    @property
    def rows(self) -> Array:
        return self.groups.values[:, 0]

    @property
    def means(self) -> Array:
        return self.groups.means[:, 0]


class Quantity(Protocol):
    """What an entry wants, once a pilot says what that is in raw units. `str()` is its text."""

    def bound(self, scored: Scored, side: Side) -> Bound:
        """The level asked for; `side` is +1 for a lower bound and −1 for an upper one."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """`0.5`: a number is a level."""

    at: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.at):
            raise ValueError(f"a level must be a finite number, got {self.at}")

    def __str__(self) -> str:
        return _plain(self.at)

    def bound(self, scored: Scored, side: Side) -> Bound:
        return self.at, np.zeros_like(scored.means)


@dataclass(frozen=True, slots=True)
class Quantile:
    """`q80`: a quantile of all candidates of all prompts."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("q", self.percent)

    def __str__(self) -> str:
        return f"q{_plain(self.percent)}"

    def bound(self, scored: Scored, side: Side) -> Bound:
        share, weights = self.percent / 100, scored.groups.row_weights
        reach = _bandwidth(share, 1 / float(weights @ weights))
        low, high = max(share - reach, 0.0), min(share + reach, 1.0)
        below, level, above = quantile(scored.rows, weights, np.array([low, share, high]))
        # (q − 1{r ≤ Q}) / f(Q). One over the density is the slope of the quantile function.
        excess = share - (scored.rows <= level)
        mean = np.add.reduceat(excess, scored.groups.starts[:-1]) / scored.groups.sizes
        return float(level), mean * (above - below) / (high - low)


@dataclass(frozen=True, slots=True)
class Within:
    """`q80 within`: the mean over prompts of each prompt's own quantile."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("q", self.percent)

    def __str__(self) -> str:
        return f"q{_plain(self.percent)} within"

    def bound(self, scored: Scored, side: Side) -> Bound:
        own = np.empty_like(scored.means)
        sizes = scored.groups.sizes
        for size in np.unique(sizes):
            which = np.flatnonzero(sizes == size)
            plane = scored.rows[scored.groups.starts[which][:, None] + np.arange(size)]
            own[which] = np.quantile(plane, self.percent / 100, axis=1)
        return scored.base + float(scored.groups.weights @ (own - scored.means)), own


@dataclass(frozen=True, slots=True)
class Base:
    """`keep`, `+0.3`, `base-0.3`: the base level, moved by a number."""

    offset: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.offset):
            raise ValueError(f"an offset must be a finite number, got {self.offset}")

    def __str__(self) -> str:
        if not self.offset:
            return "keep"
        return f"+{_plain(self.offset)}" if self.offset > 0 else f"base{_plain(self.offset)}"

    def bound(self, scored: Scored, side: Side) -> Bound:
        return scored.base + self.offset, scored.means


@dataclass(frozen=True, slots=True)
class Times:
    """`x1.2`: a probability times 1.2; the same for a log-probability, whose level moves by log 1.2."""

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"x takes a positive finite factor, got {_plain(self.factor)}")

    def __str__(self) -> str:
        return f"x{_plain(self.factor)}"

    def bound(self, scored: Scored, side: Side) -> Bound:
        if scored.scale == "log-probability":
            return scored.base + math.log(self.factor), scored.means
        if scored.scale == "probability":
            return scored.base * self.factor, scored.means * self.factor
        raise ValueError(
            f'"{self}" needs a value whose scale is "probability" or "log-probability", got "{scored.scale}"'
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """`reach 50%`: half way from the base level to the most, or least, that this value alone can reach."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("reach", self.percent)

    def __str__(self) -> str:
        return f"reach {_plain(self.percent)}%"

    def bound(self, scored: Scored, side: Side) -> Bound:
        share = self.percent / 100
        if scored.joint:
            # The largest row is an extreme of the pilot, not an average over prompts: taken as given.
            largest = float(side * (side * scored.rows).max())
            return scored.base + share * (largest - scored.base), (1 - share) * scored.means
        best = side * prompt_support(scored.groups, np.array([float(side)]), scored.candidates)
        step = share * (best - scored.means)
        return scored.base + float(scored.groups.weights @ step), scored.means + step


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry: the level of `value` shall be at least, at most, or equal to a quantity."""

    value: str
    relation: Relation
    quantity: Quantity

    def __str__(self) -> str:
        return f"{self.quantity}" if self.relation == ">=" else f"{self.relation} {self.quantity}"


_SIZE = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_NUMBER = rf"(-?{_SIZE})"
_FORMS: tuple[tuple[str, Callable[[str], Quantity]], ...] = (
    (_NUMBER, lambda text: Level(float(text))),
    (rf"q{_NUMBER}", lambda text: Quantile(float(text))),
    (rf"q{_NUMBER}\s+within", lambda text: Within(float(text))),
    (r"(keep)", lambda _: Base()),
    (rf"(?:base\s*)?\+\s*({_SIZE})", lambda text: Base(float(text))),
    (rf"base\s*-\s*({_SIZE})", lambda text: Base(-float(text))),
    (rf"x{_NUMBER}", lambda text: Times(float(text))),
    (rf"reach\s+{_NUMBER}\s*%", lambda text: Reach(float(text))),
)
_PLANNED = ((r"max\b.*", '"max"'), (r"P\s*\(.*", "a tail, P(...),"), (r".*@.*", "a cohort, @,"))
_ALLOWED = (
    'a number, "q80", "q80 within", "keep", "+0.3", "base-0.3", "x1.2" or "reach 50%", after an optional '
    '">=", "<=" or "==", or "free"'
)


def parse(value: str, entry: object) -> Ask | None:
    """The meaning of one entry, None where it asks for nothing ("free").

    A ValueError or TypeError of one line names the value, what is allowed and what was received.

    >>> print(parse("length", "<= 60"), "|", parse("humor", "q60"), "|", parse("tone", "free"))
    <= 60 | q60 | None
    """
    try:
        return _parse(value, entry)
    except (TypeError, ValueError) as error:
        raise type(error)(f"palette[{value!r}]: {error}") from None


def _parse(value: str, entry: object) -> Ask | None:
    if isinstance(entry, list | tuple):
        raise ValueError("several entries on one value are not in this release; give one")
    if isinstance(entry, numbers.Real | float | int) and not isinstance(entry, bool):
        try:
            return Ask(value, ">=", Level(float(entry)))
        except OverflowError:
            raise ValueError("a level must be a finite number, got an integer too large for one") from None
    if not isinstance(entry, str):
        raise TypeError(f"an entry is a number or a text, got {type(entry).__name__}: {entry!r}")
    text = entry.strip()
    if text == "free":
        return None
    match = re.match(r"(>=|<=|==)\s*", text)
    relation = cast("Relation", match.group(1) if match else ">=")
    rest = text[match.end() :] if match else text
    for pattern, what in _PLANNED:
        if re.fullmatch(pattern, rest):
            raise ValueError(f"{what} is not in this release, got {entry!r}")
    for pattern, quantity in _FORMS:
        if form := re.fullmatch(pattern, rest):
            ask = Ask(value, relation, quantity(form.group(1)))
            if isinstance(ask.quantity, Reach) and relation == "==":
                raise ValueError(f'"reach" has a side, so it takes ">=" or "<=", got {entry!r}')
            return ask
    raise ValueError(f"an entry is {_ALLOWED}; got {entry!r}")


class Palette:
    """The levels that are wanted, a mapping from the name of a value to an entry.

    A value that is not named is free. What a quantile or "keep" is in raw units, the pilot says: see
    `resolve`. A ValueError or TypeError of one line names the entry that cannot be read.

    >>> Palette({"humor": "q60", "harmlessness": "keep", "length": "<= 60", "tone": 0.5})
    Palette({'humor': 'q60', 'harmlessness': 'keep', 'length': '<= 60', 'tone': '0.5'})
    """

    def __init__(self, entries: Mapping[str, object], *, cohorts: object = None, kl: object = None) -> None:
        for name, given in (("cohorts", cohorts), ("kl", kl)):
            if given is not None:
                raise ValueError(f"{name} is not in this release, got {given!r}")
        if not isinstance(entries, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a palette maps names of values to entries, got {type(entries).__name__}")
        if not entries:
            raise ValueError("a palette needs at least one entry, got none")
        for name in entries:
            if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a palette names values by a text that is not empty, got {name!r}")
        self._asks = {name: parse(name, entry) for name, entry in entries.items()}

    @property
    def asks(self) -> Mapping[str, Ask | None]:
        """What each entry means, by value; None where it is free."""
        return MappingProxyType(self._asks)

    @property
    def entries(self) -> dict[str, str]:
        """Each entry's text; `Palette(palette.entries)` is the same palette."""
        return {name: "free" if ask is None else str(ask) for name, ask in self.asks.items()}

    def __repr__(self) -> str:
        return f"Palette({self.entries})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Palette):
            return NotImplemented
        return list(self.asks.items()) == list(other.asks.items())

    def __hash__(self) -> int:
        return hash(tuple(self.asks.items()))


@dataclass(frozen=True, eq=False)
class Resolved:
    """A palette on a pilot: features, and the interval asked of the level of each.

    features         names, m of them: the palette's in its order, then the pilot's others
    lower, upper     (m,) raw units; infinite where nothing is asked
    base             (m,) c0
    asked            the text of each entry, "free" where none is
    quantiles        (m, 101) each feature's quantiles under the base, 0 % to 100 %
    influence_lower  (N, m) ψ_g of each bound by prompt; zero for a number. Not stored: (0, m) once read back
    influence_upper  (N, m)
    """

    features: tuple[str, ...]
    lower: Array
    upper: Array
    base: Array
    asked: tuple[str, ...]
    quantiles: Array
    influence_lower: Array
    influence_upper: Array

    def features_of(
        self,
        values: Array,
        names: Sequence[str],
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> Array:
        """The features of scored answers, shape (n, m); `values` is (n, V), a column for each of `names`.

        The one way from values to features, so that what was solved is what is served. `columns` holds
        columns of the prompts for the features that depend on them; a plain value depends on none.
        """
        return _features_of(self.features, values, names)

    def to_dict(self) -> dict[str, object]:
        """JSON without infinities: an end that is open is null."""
        return {
            "features": list(self.features),
            "asked": list(self.asked),
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
        )


def resolve(
    palette: Palette,
    groups: Groups,
    names: Sequence[str],
    *,
    candidates: int,
    joint: bool,
    scales: Mapping[str, str],
) -> Resolved:
    """What `palette` asks on a pilot, in raw units.

    `groups.values` has a column for each of `names`; `candidates` is the decoder's k; `scales` says which
    values are probabilities or log-probabilities ("real" where it is silent). A ValueError of one line names
    an entry that makes no sense on this pilot.

    >>> groups = Groups(np.arange(8.0)[:, None], np.array([0, 4, 8]), np.array([0.5, 0.5]))
    >>> on = resolve(Palette({"humor": "reach 50%"}), groups, ["humor"], candidates=4, joint=False, scales={})
    >>> on.base, on.lower, on.upper
    (array([3.5]), array([4.25]), array([inf]))
    """
    features = _order(palette, names)
    groups = Groups(_features_of(features, groups.values, names), groups.starts, groups.weights)
    m, prompts = len(features), len(groups.sizes)
    ends: dict[Side, Array] = {1: np.full(m, -np.inf), -1: np.full(m, np.inf)}
    influence: dict[Side, Array] = {1: np.zeros((prompts, m)), -1: np.zeros((prompts, m))}
    asked = ["free"] * m
    for name, ask in palette.asks.items():
        if ask is None:
            continue
        i = features.index(name)
        column = Groups(groups.values[:, i : i + 1], groups.starts, groups.weights)
        scored = Scored(column, float(groups.base[i]), candidates, joint, scales.get(name, "real"))
        asked[i] = str(ask)
        for side in _SIDES[ask.relation]:
            try:
                ends[side][i], influence[side][:, i] = ask.quantity.bound(scored, side)
            except ValueError as error:
                raise ValueError(f"palette[{name!r}]: {error}") from None
    return Resolved(
        features=features,
        lower=ends[1],
        upper=ends[-1],
        base=groups.base,
        asked=tuple(asked),
        quantiles=np.array([quantile(column, groups.row_weights, GRID) for column in groups.values.T]),
        influence_lower=influence[1],
        influence_upper=influence[-1],
    )


_SIDES: Mapping[Relation, tuple[Side, ...]] = {">=": (1,), "<=": (-1,), "==": (1, -1)}


def quantile(values: Array, weights: Array, shares: Array) -> Array:
    """Weighted quantiles of `values` (n,) at `shares` in [0, 1], with `weights` (n,) of any positive sum.

    Piecewise linear through the sorted values, two neighbours as far apart on the axis of shares as half the
    sum of their weights; share 0 is the smallest and 1 the largest. At equal weights that is numpy's "linear"
    rule, exactly. Equal values share their weight evenly, so that the order of rows means nothing.

    >>> quantile(np.array([0.0, 10.0, 20.0]), np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.5, 1.0]))
    array([ 0. , 12.5, 20. ])
    """
    if np.ptp(weights) <= 8 * np.finfo(float).eps * weights.max():
        return np.quantile(np.sort(values), shares)
    distinct, place, count = np.unique(values, return_inverse=True, return_counts=True)
    even = np.bincount(place, weights) / count
    gaps = np.repeat(even, count)
    at = np.concatenate([[0.0], np.cumsum((gaps[1:] + gaps[:-1]) / 2)])
    return np.interp(shares, at / at[-1], np.repeat(distinct, count))


def _bandwidth(share: float, rows: float) -> float:
    """Bofinger's half-width for the slope of a quantile function; at an extreme, one row."""
    if not 0 < share < 1:
        return 1 / rows
    normal = NormalDist()
    z = normal.inv_cdf(share)
    width = (4.5 * normal.pdf(z) ** 4 / (2 * z * z + 1) ** 2 / rows) ** 0.2
    return max(width, 1 / rows)


def _features_of(features: Sequence[str], values: Array, names: Sequence[str]) -> Array:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"values must have a column for each of {len(names)} names, got {values.shape}")
    if missing := [name for name in features if name not in names]:
        raise ValueError(f"values must include {', '.join(features)}, got none for {', '.join(missing)}")
    # Always laid out row by row, so that the same numbers always add up in the same way, to the last bit.
    return np.take(values, [list(names).index(name) for name in features], axis=1)


def _order(palette: Palette, names: Sequence[str]) -> tuple[str, ...]:
    for name in palette.asks:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the palette names {name!r}, the pilot's values are {', '.join(names)}{hint}")
    return (*palette.asks, *(name for name in names if name not in palette.asks))


def _check_percent(what: str, percent: float) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"{what} takes a percentage from 0 to 100, got {_plain(percent)}")


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
