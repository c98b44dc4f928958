# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The palette: a small language that says which levels of which values are wanted (docs/palette.md).

An entry is read into asks: of a subject (a value, a tail of it, a cohort's), by a relation, a quantity. What these are
on a pilot is a matter of `valuepalette.resolving`.
"""

from __future__ import annotations

import math
import numbers
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol, cast

from valuepalette.grouping import Groups
from valuepalette.naming import in_one_line, short
from valuepalette.quantities import Base, Level, Most, Quantile, Quantity, Reach, Times, Within

__all__ = [
    "Ask",
    "Cohort",
    "Palette",
    "Relation",
    "Subject",
    "Tail",
    "parse",
    "positive",
]

Relation = Literal[">=", "<=", "=="]


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
        return cls({value: f"== {Level(levels[value])}" for value in wanted})

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


def positive(name: str, number: float) -> float:
    """A budget: finite and above zero, or a ValueError that names it."""
    real = isinstance(number, numbers.Real) and not isinstance(number, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not real or not 0 < number <= sys.float_info.max:
        raise ValueError(f"{name} must be a number of nats above 0, got {short(number)}")
    return float(number)
