"""What a report says, as numbers and texts: `to_dict` is what `--json` prints, and the page is written from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from valuepalette.attainment import Evaluation
from valuepalette.grouping import Array
from valuepalette.solution import Solution

__all__ = [
    "Answer",
    "Answers",
    "Candidate",
    "Cost",
    "File",
    "Got",
    "Method",
    "Missing",
    "PaletteReport",
    "Promise",
    "Report",
    "Spread",
    "Value",
]

FORMAT = 1
DRAWN = {"drawn": True}
"""Of a field that figures are drawn from. Its numbers are in other fields; JSON leaves it out."""


@dataclass(frozen=True)
class Missing:
    """What is not there yet, in a sentence, and the command that makes it; "" where none does."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Value:
    """A value as it was measured, and what the model does with it as it is. A number not to be had is nan.

    definition, version  of the reward; scale is "real", "probability" or "log-probability"
    check                a second opinion: measured, never optimised
    base, sd             over all candidates of the pilot
    low, high            the lowest and the highest mean that the best of `k` candidates to each prompt have
    """

    name: str
    definition: str
    version: str
    scale: str
    check: bool
    base: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Promise:
    """One feature of a solution: what was asked of it, the weight found and the level promised.

    lower, upper  bounds of the level; infinite where nothing is asked
    error         the proved bound on the numerical error of the weight
    slack         of a bound that does not bind: what that means, in words
    """

    name: str
    asked: str
    lower: float
    upper: float
    base: float
    level: float
    level_se: float
    gain: float
    gain_se: float
    weight: float
    weight_se: float
    error: float
    slack: str


@dataclass(frozen=True)
class Cost:
    """The price of a step in one feature: nats of KL, and what moves with it by name.

    until  the step up to which that holds; infinite where it always does
    """

    name: str
    step: float
    kl: float
    until: float
    levels: Mapping[str, float]


@dataclass(frozen=True)
class Got:
    """One value on prompts of an evaluation, with intervals at its confidence.

    kind           "asked", "check" or "free"
    judged_by      "gain" or "level", which `lower` and `upper` bound; "" where nothing is asked
    lower, upper   infinite where that side is open
    needed         how many prompts would decide; inf where only a larger pilot would; nan unless undecided
    """

    name: str
    kind: str
    asked: str
    judged_by: str
    lower: float
    upper: float
    base: float
    level: float
    level_low: float
    level_high: float
    gain: float
    gain_low: float
    gain_high: float
    quantile: float
    win_rate: float
    win_low: float
    win_high: float
    verdict: str | None
    needed: float


@dataclass(frozen=True)
class Spread:
    """How a value is spread over answers, before and after.

    mean        (before, after)
    quantiles   at 5, 25, 50, 75 and 95 %, (before, after)
    asked       the level that was asked, nan where none
    values, weights  (n,) of the answers before, and after
    """

    name: str
    asked: float
    mean: tuple[float, float]
    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    values: tuple[Array, Array] = field(repr=False, metadata=DRAWN)
    weights: tuple[Array, Array] = field(repr=False, metadata=DRAWN)


@dataclass(frozen=True)
class Candidate:
    """One of the answers among which one was chosen.

    chance     to be the answer; nan where nothing is chosen among them
    values     in the order of `Answers.names`
    cut        it ended at the token limit
    first      what the model says first; `drawn` what the palette drew
    """

    number: int
    text: str
    cut: bool
    chance: float
    values: tuple[float, ...]
    first: bool = False
    drawn: bool = False


@dataclass(frozen=True)
class Answer:
    """One prompt before and after; `moved` is by how much λᵀr rose, and decides what is better.

    candidates  those behind it, likeliest first
    """

    prompt: str
    before: Candidate
    after: Candidate
    moved: float
    better: bool
    changes: tuple[float, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Answers:
    """Some prompts side by side, out of all.

    names  of the values shown with each
    shown  drawn by `seed` from the prompts whose answer changed, losses in their share
    prompts, better, worse, same  how many of all
    """

    names: tuple[str, ...]
    shown: tuple[Answer, ...]
    seed: int
    prompts: int
    better: int
    worse: int
    same: int


@dataclass(frozen=True)
class Method:
    """What a palette got by one way to have it: "decoding", "finetuning" or "distilling".

    prompts, own_prompts  on which it was tried, and how many of these were the pilot's
    sure       what there is to say on how sure that is
    """

    name: str
    prompts: int = 0
    own_prompts: int = 0
    candidates: int | None = None
    kl: float = math.nan
    kl_low: float = math.nan
    kl_high: float = math.nan
    promised_kl: float = math.nan
    effective: float = math.nan
    confidence: float = math.nan
    tolerance: float = math.nan
    got: tuple[Got, ...] = ()
    spreads: tuple[Spread, ...] = ()
    answers: Answers | None = None
    sure: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    evaluation: Evaluation | None = field(default=None, repr=False, metadata=DRAWN)

    def count(self, verdict: str) -> int:
        """Of what was asked, how much is so."""
        return sum(row.verdict == verdict for row in self.got)


@dataclass(frozen=True)
class PaletteReport:
    """One palette: what was asked, whether it can be had and why, and what was got.

    asked    entries by feature
    status   of the solution, None where there is none; `text` says what it means
    proof    the verdict in sentences
    gap      of a palette that cannot be had: by how much, with its standard error
    prices   none where the solution has none; `no_prices` says why
    """

    name: str
    asked: Mapping[str, str]
    status: str | None = None
    text: str = ""
    proof: tuple[str, ...] = ()
    gap: float = math.nan
    gap_se: float = math.nan
    mode: str = ""
    candidates: int | str | None = None
    prompts: int = 0
    kl: float = math.nan
    effective: float = math.nan
    promises: tuple[Promise, ...] = ()
    prices: tuple[Cost, ...] = ()
    held: tuple[str, ...] = ()
    no_prices: str = ""
    sure: tuple[str, ...] = ()
    methods: tuple[Method, ...] = ()
    missing: tuple[Missing, ...] = ()
    solution: Solution | None = field(default=None, repr=False, metadata=DRAWN)


@dataclass(frozen=True)
class File:
    """A file of the run, or a folder of parts, as it was when the report was written.

    sha256  of a folder: of its parts' digests, in order; "" of trained models, which are large
    """

    name: str
    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Report:
    """A run, told.

    study     the study's text, passwords of addresses left out; "" where it is not at hand
    facts     of the model, the sampling and the seed, by what they are called
    k         of the reach in `values`
    commands  that repeat the run
    """

    title: str
    version: str
    folder: str
    model: str
    prompts: int
    held_out: int | None
    candidates: str
    palettes: tuple[PaletteReport, ...]
    values: tuple[Value, ...]
    k: int | None
    facts: Mapping[str, str]
    files: tuple[File, ...]
    commands: tuple[str, ...]
    study_path: str
    study: str
    missing: tuple[Missing, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: nan is null, an infinite number is "inf" or "-inf"."""
        return {"valuepalette": "report", "format": FORMAT, **_plain(self)}

    @property
    def all_missing(self) -> tuple[Missing, ...]:
        """Everything that is not there yet, what a palette lacks under its name."""
        found = list(self.missing)
        for palette in self.palettes:
            lacking = [*palette.missing, *(one for method in palette.methods for one in method.missing)]
            found += [Missing(f"{palette.name}: {one.what}", one.command) for one in lacking]
        return tuple(found)


def _plain(entry: Any) -> Any:
    if is_dataclass(entry):
        told = (one for one in fields(entry) if not one.metadata.get("drawn"))
        return {one.name: _plain(getattr(entry, one.name)) for one in told}
    if isinstance(entry, Mapping):
        return {key: _plain(item) for key, item in entry.items()}
    if isinstance(entry, list | tuple):
        return [_plain(item) for item in entry]
    if isinstance(entry, float | np.floating):
        number = float(entry)
        return None if math.isnan(number) else number if math.isfinite(number) else str(number)
    return entry
