# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The palette: a small language that says which levels of which values are wanted (docs/palette.md).

    text      parse      Asks: a subject (a value, a tail of it, a cohort's), a relation, a quantity
    Asks      resolve    a feature, an interval, and the influence of each prompt on the interval's ends

The solver knows only the right-hand side. A new kind of entry is a new `Quantity`, or a new kind of feature
(`valuepalette.features`); nothing above these modules has to hear of it.
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from valuepalette.features import Columns, Feature, Resolved, features_of, member
from valuepalette.naming import in_one_line, short
from valuepalette.tilting import Array, Groups, prompt_support

__all__ = [
    "Ask",
    "Cohort",
    "Palette",
    "Quantity",
    "Resolved",
    "Scored",
    "Subject",
    "Tail",
    "bandwidth",
    "parse",
    "positive",
    "quantile",
    "resolve",
    "sides",
    "subjects_of",
]

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

    def of(self, groups: Groups) -> float:
        """The quantile of the one column of `groups`."""
        return float(quantile(groups.values[:, 0], groups.row_weights, np.array([self.percent / 100]))[0])

    def bound(self, scored: Scored, side: Side) -> Bound:
        share, weights = self.percent / 100, scored.groups.row_weights
        reach = bandwidth(share, 1 / float(weights @ weights))
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
class Most:
    """`max`: as high as the other entries and the palette's budget of KL allow. Solving puts a level in its place."""

    def __str__(self) -> str:
        return "max"

    def bound(self, scored: Scored, side: Side) -> Bound:
        return -np.inf, np.zeros_like(scored.means)


@dataclass(frozen=True, slots=True)
class Tail:
    """`< -2`: the answers whose value is below −2; of a quantile, below what the pilot says it is."""

    inside: str
    threshold: Level | Quantile

    def __str__(self) -> str:
        return f"{self.inside} {self.threshold}"


@dataclass(frozen=True, slots=True)
class Cohort:
    """`audience=children`: the prompts with that entry in that column."""

    column: str
    member: str

    @classmethod
    def parse(cls, text: object) -> Cohort:
        if not isinstance(text, str):
            raise TypeError(f"cohorts must name each as COLUMN=ENTRY, got {short(text, 80)}")
        column, sign, entry = (part.strip() for part in text.partition("="))
        if not sign or not in_one_line(column) or not in_one_line(entry):
            raise ValueError(
                f'cohorts must name each as COLUMN=ENTRY, such as "audience=children", got {short(text, 80)}'
            )
        return cls(column, entry)

    def __str__(self) -> str:
        return f"{self.column}={self.member}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an entry speaks of: a value, or the share of answers in its tail; of all prompts or of a cohort.

    >>> print(Subject("humor", Tail("<", Level(-2.0)), Cohort("audience", "children")))
    P(humor < -2) @ audience=children
    """

    value: str
    tail: Tail | None = None
    cohort: Cohort | None = None

    def __str__(self) -> str:
        name = self.value if self.tail is None else f"P({self.value} {self.tail})"
        return name if self.cohort is None else f"{name} @ {self.cohort}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry: the level of the subject shall be at least, at most, or equal to a quantity."""

    subject: Subject
    relation: Relation
    quantity: Quantity

    @property
    def wanted(self) -> str:
        """What is asked of the feature: the entry without the tail."""
        plain = self.relation == ">=" and self.subject.tail is None
        return f"{self.quantity}" if plain else f"{self.relation} {self.quantity}"

    def __str__(self) -> str:
        tail = self.subject.tail
        return self.wanted if tail is None else f"P({tail}) {self.wanted}"


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
_TAIL = re.compile(rf"P\s*\(\s*(<=|>=|<|>)\s*(q?)({_NUMBER})\s*\)\s*(.*)")
_ALLOWED = (
    'a number, "q80", "q80 within", "keep", "+0.3", "base-0.3", "x1.2" or "reach 50%", after an optional '
    '">=", "<=" or "==", or a tail such as "P(< -2) <= 0.02", or "max" or "free"'
)
_TAIL_ALLOWED = (
    'a tail asks "<=" or ">=" of a share from 0 to 1, "keep", "+0.01", "base-0.01", "x0.5" or "reach 50%", as in '
    '"P(< -2) <= 0.02"'
)


def parse(value: str, entry: object, cohort: Cohort | None = None) -> tuple[Ask, ...]:
    """The meaning of an entry, or of a list of entries; none where it asks for nothing ("free").

    A ValueError or TypeError of one line names the value, what is allowed and what was received.

    >>> [str(ask) for ask in parse("humor", ["keep", "q60", "P(< -2) <= 0.02"])], parse("tone", "free")
    (['keep', 'q60', 'P(< -2) <= 0.02'], ())
    """
    try:
        entries = cast("Sequence[object]", entry) if isinstance(entry, list | tuple) else [entry]
        if not entries:
            raise ValueError("a list must hold at least one entry, got none")
        asks = [_parse(value, one, cohort) for one in entries]
    except (TypeError, ValueError) as error:
        where = f"palette[{value!r}]" if cohort is None else f"palette.cohorts[{str(cohort)!r}][{value!r}]"
        raise type(error)(f"{where}: {error}") from None
    return tuple(ask for ask in asks if ask is not None)


def _parse(value: str, entry: object, cohort: Cohort | None) -> Ask | None:
    subject = Subject(value, None, cohort)
    if isinstance(entry, numbers.Real | float | int) and not isinstance(entry, bool):
        try:
            return Ask(subject, ">=", Level(float(entry)))
        except OverflowError:
            raise ValueError("a level must be a finite number, got an integer too large for one") from None
    if not isinstance(entry, str):
        raise TypeError(f"an entry is a number or a text, got {type(entry).__name__}: {short(entry, 80)}")
    text = entry.strip()
    if text == "free":
        return None
    if text == "max":
        return Ask(subject, ">=", Most())
    if tail := _TAIL.fullmatch(text):
        inside, quantile, number, _, text = tail.groups()
        threshold = Quantile(float(number)) if quantile else Level(float(number))
        subject = Subject(value, Tail(inside, threshold), cohort)
    match = re.match(r"(>=|<=|==)\s*", text)
    relation = cast("Relation", match.group(1) if match else ">=")
    rest = text[match.end() :] if match else text
    for pattern, quantity in _FORMS:
        if form := re.fullmatch(pattern, rest):
            ask = Ask(subject, relation, quantity(form.group(1)))
            if subject.tail is not None:
                _check_tail(ask, match is not None, entry)
            if isinstance(ask.quantity, Reach) and relation == "==":
                raise ValueError(f'"reach" has a side, so it takes ">=" or "<=", got {short(entry, 80)}')
            return ask
    if subject.tail is not None or re.match(r"P\s*\(", text):
        raise ValueError(f"{_TAIL_ALLOWED}; got {short(entry, 80)}")
    if "@" in text:
        raise ValueError(
            f'a cohort stands in cohorts, {{"audience=children": {{…}}}}, got {short(entry, 80)}'
        )
    raise ValueError(f"an entry is {_ALLOWED}; got {short(entry, 80)}")


def _check_tail(ask: Ask, told: bool, entry: str) -> None:
    share = ask.quantity
    if not told or ask.relation == "==" or isinstance(share, Quantile | Within):
        raise ValueError(f"{_TAIL_ALLOWED}; got {short(entry, 80)}")
    if isinstance(share, Level) and not 0 <= share.at <= 1:
        raise ValueError(f"a share must be a finite number from 0 to 1, got {short(entry, 80)}")


class Palette:
    """The levels that are wanted, a mapping from the name of a value to an entry, or to a list that asks them all.

    cohorts   the same for prompts with a certain entry in a column: `{"audience=children": {"humor": "q95"}}`
    kl        the budget of "max", in nats: what the whole palette may cost; None for log 4, where a quarter of the
              decoder's k candidates is still in play

    A value that is not named is free. What a quantile or "keep" is in raw units, the pilot says: see
    `resolve`. A ValueError or TypeError of one line names the entry that cannot be read.

    >>> Palette({"humor": "q60", "harmlessness": ["keep", "P(< -2) <= 0.02"], "length": "<= 60", "tone": 0.5})
    Palette({'humor': 'q60', 'harmlessness': ['keep', 'P(< -2) <= 0.02'], 'length': '<= 60', 'tone': '0.5'})
    """

    def __init__(
        self,
        entries: Mapping[str, object],
        *,
        cohorts: Mapping[str, Mapping[str, object]] | None = None,
        kl: float | None = None,
    ) -> None:
        self._asks: dict[Subject, tuple[Ask, ...]] = {}
        self._read(entries, None)
        if cohorts is not None and not isinstance(cohorts, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"cohorts maps cohorts to entries by value, got {type(cohorts).__name__}")
        for text, inner in (cohorts or {}).items():
            cohort = Cohort.parse(text)
            self._read(inner, cohort)
            if not inner:
                raise ValueError(f"the cohort {cohort} needs at least one entry, got none")
        if not self._asks:
            raise ValueError("a palette needs at least one entry, got none")
        self.kl = None if kl is None else positive("kl", kl)
        if kl is not None and not self.maximised:
            raise ValueError(f'kl is the budget of an entry "max", got {short(kl)} and no such entry')

    def _read(self, entries: Mapping[str, object], cohort: Cohort | None) -> None:
        if not isinstance(entries, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            what = "a palette" if cohort is None else f"the cohort {cohort}"
            raise TypeError(f"{what} maps names of values to entries, got {type(entries).__name__}")
        for name, entry in entries.items():
            if not in_one_line(name):
                raise TypeError(f"a palette names values by a text of one line, got {short(name)}")
            asks = parse(name, entry, cohort)
            if cohort is None or not any(ask.subject.tail for ask in asks):
                self._asks.setdefault(Subject(name, None, cohort), ())
            for ask in sorted(asks, key=lambda ask: ask.subject.tail is not None):
                self._asks[ask.subject] = (*self._asks.get(ask.subject, ()), ask)

    @classmethod
    def from_human(
        cls, pilot: HasLevels, values: Sequence[str] | None = None, *, weighting: str = "prompts"
    ) -> Palette:
        """The levels of answers that people wrote: each asked for exactly (direct metrics optimisation, B.5).

        pilot      human-written answers, scored like the pilot to solve on
        values     which values to match; all of them where None

        >>> from valuepalette.pilot import Pilot
        >>> Palette.from_human(Pilot.from_arrays({"humor": [0.5, 1.0], "length": [40, 60]}, prompt_id=[0, 1]))
        Palette({'humor': '== 0.75', 'length': '== 50'})
        """
        wanted = pilot.values if values is None else tuple(values)
        if isinstance(values, str) or not wanted or any(value not in pilot.values for value in wanted):
            raise ValueError(
                f"values must be a list of names among {', '.join(pilot.values) or 'none'}, got {values!r}"
            )
        levels = dict(zip(pilot.values, pilot.groups(weighting).base, strict=True))
        return cls({value: f"== {_plain(levels[value])}" for value in wanted})

    @property
    def asks(self) -> Mapping[Subject, tuple[Ask, ...]]:
        """What is asked of each subject, in the palette's order; nothing where it is free."""
        return MappingProxyType(self._asks)

    @property
    def values(self) -> tuple[str, ...]:
        """The values that the palette names."""
        return tuple(dict.fromkeys(subject.value for subject in self._asks))

    @property
    def maximised(self) -> tuple[str, ...]:
        """The features asked to be as high as they can, first come first served."""
        return tuple(
            str(subject)
            for subject, asks in self._asks.items()
            if any(isinstance(ask.quantity, Most) for ask in asks)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the prompts that its cohorts are cut by."""
        return tuple(dict.fromkeys(subject.cohort.column for subject in self._asks if subject.cohort))

    @property
    def entries(self) -> dict[str, str | list[str]]:
        """Each entry's text, a list where a value has several; `Palette(palette.entries)` is the same palette,
        but for `cohorts`."""
        return self._texts(None)

    @property
    def cohorts(self) -> dict[str, dict[str, str | list[str]]]:
        """The same of each cohort."""
        found = dict.fromkeys(subject.cohort for subject in self._asks if subject.cohort)
        return {str(cohort): self._texts(cohort) for cohort in found}

    def freed(self, feature: str) -> Palette:
        """The same palette without what it asks of one feature; that one is still named."""
        out = Palette({feature: "free"})
        kept = {subject: () if str(subject) == feature else asks for subject, asks in self._asks.items()}
        out._asks = kept if any(str(subject) == feature for subject in kept) else kept | out._asks
        return out

    def single(self) -> Iterator[Palette]:
        """Palettes that together ask the same: each has at most one entry of every subject.

        >>> [one.entries for one in Palette({"humor": ["q60", 0.5], "tone": "keep"}).single()]
        [{'humor': 'q60', 'tone': 'keep'}, {'humor': '0.5', 'tone': 'free'}]
        """
        for turn in range(max(1, *(len(asks) for asks in self._asks.values()))):
            out = Palette(dict.fromkeys(self.values, "free"))
            out._asks = {subject: asks[turn : turn + 1] for subject, asks in self._asks.items()}
            yield out

    def at(self, bounds: Mapping[str, tuple[float, float]], kl: float | None = None) -> Palette:
        """The same palette with (lower, upper) in numbers for some of its features; "max" stays, within `kl` nats.

        >>> Palette({"humor": "q60", "tone": "keep"}).at({"humor": (0.5, math.inf)})
        Palette({'humor': '0.5', 'tone': 'keep'})
        """
        out = Palette(dict.fromkeys(self.values, "free"))
        out._asks, out.kl = dict(self._asks), self.kl if kl is None else kl
        for subject, asks in self._asks.items():
            if str(subject) in bounds:
                lower, upper = bounds[str(subject)]
                ends: Sequence[tuple[Relation, float]] = [(">=", lower), ("<=", upper)]
                ends = [("==", lower)] if lower == upper else ends
                levels = (Ask(subject, side, Level(end)) for side, end in ends if math.isfinite(end))
                out._asks[subject] = (*levels, *(ask for ask in asks if isinstance(ask.quantity, Most)))
        return out

    def _texts(self, cohort: Cohort | None) -> dict[str, str | list[str]]:
        texts: dict[str, list[str]] = {}
        for subject, asks in self._asks.items():
            if subject.cohort == cohort:
                texts.setdefault(subject.value, []).extend(str(ask) for ask in asks)
        return {
            value: "free" if not asked else asked[0] if len(asked) == 1 else asked
            for value, asked in texts.items()
        }

    def __repr__(self) -> str:
        cohorts = f", cohorts={self.cohorts}" if self.cohorts else ""
        kl = "" if self.kl is None else f", kl={self.kl}"
        return f"Palette({self.entries}{cohorts}{kl})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Palette):
            return NotImplemented
        return self.kl == other.kl and list(self.asks.items()) == list(other.asks.items())

    def __hash__(self) -> int:
        return hash((self.kl, tuple(self.asks.items())))


class HasLevels(Protocol):
    """Scored answers, such as a Pilot."""

    @property
    def values(self) -> tuple[str, ...]: ...

    def groups(self, weighting: str = ...) -> Groups: ...


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
    by_row = {name: np.repeat(np.asarray(columns[name]), groups.sizes) for name in palette.columns}
    table = features_of(specs, groups.values, names, by_row)
    base = Groups(table, groups.starts, groups.weights).base
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
        quantiles=np.array([quantile(own.values[:, 0], own.row_weights, GRID) for _, _, own in placed]),
        influence_lower=influence[1],
        influence_upper=influence[-1],
        specs=specs,
        sources=tuple(zip(sources[1], sources[-1], strict=True)),
        inside=np.column_stack([inside for _, inside, _ in placed]) if palette.columns else None,
    )


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
        return Groups(groups.values[:, column : column + 1], groups.starts, groups.weights)
    rows, weights = np.repeat(inside, groups.sizes), groups.weights[inside]
    starts = np.concatenate([[0], np.cumsum(groups.sizes[inside])])
    return Groups(groups.values[rows, column : column + 1], starts, weights / weights.sum())


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


def bandwidth(share: float, rows: float) -> float:
    """Bofinger's half-width for the slope of a quantile function; at an extreme, one row."""
    if not 0 < share < 1:
        return 1 / rows
    normal = NormalDist()
    z = normal.inv_cdf(share)
    width = (4.5 * normal.pdf(z) ** 4 / (2 * z * z + 1) ** 2 / rows) ** 0.2
    return max(width, 1 / rows)


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


def positive(name: str, number: float) -> float:
    """A budget: finite and above zero, or a ValueError that names it."""
    real = isinstance(number, numbers.Real) and not isinstance(number, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not real or not 0 < number <= sys.float_info.max:
        raise ValueError(f"{name} must be a number of nats above 0, got {short(number)}")
    return float(number)


def _check_percent(what: str, percent: float) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"{what} takes a percentage from 0 to 100, got {_plain(percent)}")


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
