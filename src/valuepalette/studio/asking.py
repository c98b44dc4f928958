"""What the page may send, and the palette that it means. Anything that is not here is refused."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from valuepalette.palette import Cohort, Palette, parse

__all__ = ["Adjusting", "Asked", "Faults", "Reaching", "Solving", "faults_of", "read_palette", "split"]

Text = Annotated[str, Field(max_length=300)]
Name = Annotated[str, Field(max_length=300)]
Entries = Annotated[dict[Name, Text], Field(max_length=64)]

_MOST = 48
"""Entries in all: each tail and each cohort is a feature of its own, which takes time and memory."""


class Faults(ValueError):  # noqa: N818 - what is wrong with a palette, entry by entry
    """Entries that cannot be read: (cohort, value, message) of each, where the page shows it."""

    def __init__(self, found: list[dict[str, str | None]]) -> None:
        super().__init__(found[0]["message"])
        self.found = found

    def __reduce__(self) -> tuple[type[Faults], tuple[list[dict[str, str | None]]]]:
        return type(self), (self.found,)


class Asked(BaseModel):
    """A palette as the page has it: a text for each value, several entries parted by commas; and k.

    kl  the budget of "max", in nats; it waits where nothing is asked to be as high as it can
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    entries: Entries = Field(default_factory=dict)
    cohorts: Annotated[dict[Name, Entries], Field(max_length=16)] = Field(default_factory=dict)
    kl: Annotated[float, Field(gt=0, le=100)] | None = None
    candidates: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Solving(Asked):
    """`prompt` is the number of the one whose answers are re-weighted too."""

    prompt: Annotated[int, Field(ge=0)] | None = None


class Reaching(Asked):
    """How far `feature` goes while the others hold, to within `gap` within-prompt standard deviations."""

    feature: Name
    gap: Annotated[float, Field(ge=1e-6, le=1)] = 1e-6


class Adjusting(Asked):
    method: Literal["interpolate", "greedy", "nearest"]


def split(text: str) -> list[str]:
    """The entries of a text: no entry has a comma in it.

    >>> split("keep, P(< -2) <= 0.02, ")
    ['keep', 'P(< -2) <= 0.02']
    """
    return [entry for part in text.split(",") if (entry := part.strip())]


def read_palette(asked: Asked, values: tuple[str, ...]) -> Palette:
    """The palette that is meant; every value of the pilot is named, so that features keep their order.

    Raises `Faults` with every entry that cannot be read.
    """
    read: dict[str | None, dict[str, list[str]]] = {None: {value: ["free"] for value in values}}
    found: list[dict[str, str | None]] = []
    count = 0
    for cohort, value, text in _texts(asked):
        entries = split(text) or ["free"]
        count += len(entries)
        try:
            if value not in values:
                raise ValueError(f"the pilot has no value of this name; it has {', '.join(values)}")
            parse(value, entries, None if cohort is None else Cohort.parse(cohort))
        except (ValueError, TypeError) as error:
            message = str(error).partition("]: ")[2] or str(error)
            found.append({"cohort": cohort, "value": value, "message": message})
        read.setdefault(cohort, {})[value] = entries
    if count > _MOST:
        found.append({"cohort": None, "value": None, "message": f"at most {_MOST} entries, got {count}"})
    if found:
        raise Faults(found)
    plain, cohorts = _plain(read.pop(None)), {str(name): _plain(entries) for name, entries in read.items()}
    palette = Palette(plain, cohorts=cohorts)
    return Palette(plain, cohorts=cohorts, kl=asked.kl) if asked.kl and palette.maximised else palette


def faults_of(error: Exception) -> list[dict[str, str | None]]:
    """The entries that an error is about: its own, or the one whose feature it begins with."""
    if isinstance(error, Faults):
        return error.found
    about = re.match(r"palette\[('.*?'|\".*?\")\]: (.*)", str(error))
    if about is None:
        return []
    try:
        named = str(literal_eval(about[1]))
    except (SyntaxError, ValueError):  # a name that itself looks like the end of one
        return []
    feature, _, cohort = named.partition(" @ ")
    tail = re.fullmatch(r"P\((.+) [<>]=? \S+\)", feature)
    return [{"cohort": cohort or None, "value": tail[1] if tail else feature, "message": about[2]}]


def _texts(asked: Asked) -> Iterator[tuple[str | None, str, str]]:
    for value, text in asked.entries.items():
        yield None, value, text
    for cohort, entries in asked.cohorts.items():
        for value, text in entries.items():
            yield cohort, value, text


def _plain(entries: Mapping[str, list[str]]) -> dict[str, str | list[str]]:
    return {value: texts[0] if len(texts) == 1 else texts for value, texts in entries.items()}
