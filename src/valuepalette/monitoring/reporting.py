"""What monitoring found, as numbers, JSON and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Literal

from valuepalette.judging import Verdict
from valuepalette.solution import Solution
from valuepalette.tabulating import bounds, cut, decimals, number, table, with_error

__all__ = ["Bet", "Monitoring", "Move", "Served", "Shift", "Target"]


class Move(Enum):
    """Whether the base distribution is where the pilot found it; the text says what that means."""

    STEADY = "The mean is the pilot's, to within the tolerance."
    MOVED = "The mean is farther from the pilot's than the tolerance."
    UNDECIDED = "The requests are too few to tell."


@dataclass(frozen=True)
class Target:
    """What was asked of one value, and what the served answers have. Every `half` is that of a confidence sequence.

    asked          the palette's entry; lower, upper are its bounds, as they were resolved on the pilot
    level          expected over the choice among the candidates; `drawn` is the mean of the answers that were drawn
    gain           the same less the plain mean of the same candidates
    base           the level of the base model on the pilot: what is judged by the gain is asked for as bound − base
    lately         level or gain, whichever it is judged by, of the latest window; nan before there is one
    tolerance      by how much a bound may be missed
    judged_by      "gain" where the entry is relative to the base model, else "level"
    verdict        None where nothing is asked
    requests       that it was measured on; of a cohort, its own
    weight         λ as served; today is what the traffic's own candidates ask for, nan where that is unknown
    """

    name: str
    asked: str
    lower: float
    upper: float
    level: float
    level_half: float
    drawn: float
    drawn_half: float
    gain: float
    gain_half: float
    base: float
    lately: float
    lately_half: float
    tolerance: float
    judged_by: Literal["gain", "level", ""]
    verdict: Verdict | None
    requests: int
    weight: float
    today: float = math.nan
    today_se: float = math.nan


@dataclass(frozen=True)
class Served:
    """A palette as it was served, on requests that came to it.

    solution   which one, as the traffic names it; candidates is its k
    targets    the palette's values, then free ones
    today      the solution of the same levels on the traffic's own candidates; None where there is none, and `why`
    """

    palette: str
    solution: str
    candidates: int
    requests: int
    targets: tuple[Target, ...]
    today: Solution | None = None
    why: str = ""

    @property
    def missed(self) -> tuple[str, ...]:
        """The values whose target is not met."""
        return tuple(target.name for target in self.targets if target.verdict is Verdict.MISSED)

    def __getitem__(self, name: str) -> Target:
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(f"{name!r} is none of {', '.join(target.name for target in self.targets)}")


@dataclass(frozen=True)
class Shift:
    """Where the mean of a value is under the base model, against the pilot, in within-prompt standard deviations.

    pilot, now   the means in the value's units
    shift        now − pilot, ± half, on all requests; the pilot's own error is in it
    lately       the same of the latest window
    """

    name: str
    pilot: float
    now: float
    shift: float
    half: float
    lately: float
    lately_half: float
    verdict: Move


@dataclass(frozen=True)
class Bet:
    """Evidence that the candidates of requests are not those of the pilot's prompts, in one respect.

    what      "mean" or "spread" of a prompt's candidates
    evidence  the most that a stake has become, as a power of ten; `needed` is what counts
    at        the request with which it first did; None where it never has
    """

    name: str
    what: str
    evidence: float
    needed: float
    at: int | None


@dataclass(frozen=True)
class Monitoring:
    """What served traffic says; `str()` is the tables.

    requests    that were looked at; `groups` of candidates. Unaligned ones, which are not, are `unaligned`
    others      requests with palettes of their own, of which nothing is asked here but drift
    first, last when they were served, as ISO text; "" where nothing was
    confidence  with which all verdicts of one palette, and all of the drift, are right at all times at once
    tolerance   in within-prompt standard deviations
    window      requests in a window of `lately`
    """

    served: tuple[Served, ...]
    drift: tuple[Shift, ...]
    requests: int
    groups: int
    others: int
    unaligned: int
    first: str
    last: str
    confidence: float
    tolerance: float
    window: int
    bets: tuple[Bet, ...] = ()

    @property
    def changed(self) -> tuple[Bet, ...]:
        """The bets that were won: in this the candidates are not the pilot's, by however little."""
        return tuple(bet for bet in self.bets if bet.at is not None)

    @property
    def well(self) -> bool:
        """Nothing is missed, and nothing has moved; what is undecided is not held against it."""
        return not any(each.missed for each in self.served) and not self.moved

    @property
    def moved(self) -> tuple[str, ...]:
        """The values whose mean has moved."""
        return tuple(shift.name for shift in self.drift if shift.verdict is Move.MOVED)

    def __getitem__(self, palette: str) -> Served:
        for each in self.served:
            if each.palette == palette:
                return each
        raise KeyError(f"{palette!r} is none of {', '.join(each.palette for each in self.served) or 'none'}")

    def to_dict(self) -> dict[str, Any]:
        """JSON without nan: a number that is not to be had, and an end that is open, is null."""
        told = {name: entry for name, entry in vars(self).items() if name not in ("served", "drift", "bets")}
        return {
            "valuepalette": "monitoring",
            **told,
            "well": self.well,
            "served": [
                {
                    **{
                        name: getattr(each, name)
                        for name in ("palette", "solution", "candidates", "requests")
                    },
                    "targets": [_plain(asdict(target)) for target in each.targets],
                    "today": None if each.today is None else each.today.status.name,
                    "why": each.why,
                }
                for each in self.served
            ],
            "drift": [_plain(asdict(shift)) for shift in self.drift],
            "bets": [_plain(asdict(bet)) for bet in self.bets],
        }

    def __str__(self) -> str:
        return "\n".join(_text(self))


def _plain(entries: dict[str, Any]) -> dict[str, Any]:
    def one(entry: Any) -> Any:
        if isinstance(entry, Enum):
            return entry.name
        return None if isinstance(entry, float) and not math.isfinite(entry) else entry

    return {name: one(entry) for name, entry in entries.items()}


def _text(found: Monitoring) -> Iterator[str]:
    times = f", {found.first} to {found.last}" if found.first else ""
    yield f"{found.requests:,} requests{times}"
    for each in found.served:
        yield ""
        yield f"{each.palette}: {each.requests:,} requests, one of k = {each.candidates} candidates"
        yield from table(_HEADS, [_cells(target) for target in each.targets], left=(0, 1, 2, 8), spare=(1, 3))
        if each.why:
            yield f"today's weights: {each.why}"
    yield ""
    yield "the base model:"
    yield from table(
        ("", "pilot", "now", "shift in sd", "lately", ""),
        [_shifted(shift) for shift in found.drift],
        left=(0, 5),
    )
    for bet in found.changed:
        yield (
            f"the {bet.what} of {cut(bet.name, 30)} within a prompt is not the pilot's: odds of 1 to 10^"
            f"{bet.evidence:.1f}, enough by request {bet.at:,}"
        )
    yield ""
    yield (
        f"± holds at all times at once: with {found.confidence:.3g} confidence no verdict of a palette, and none of "
        "the base"
    )
    yield f"model, is ever wrong. Tolerance {found.tolerance:g} within-prompt sd; lately: a window of {found.window:,}."
    if found.others:
        yield f"{found.others:,} requests brought palettes of their own"
    if found.unaligned:
        yield f"{found.unaligned:,} unaligned requests are left out"


_HEADS = ("", "asked", "target", "level", "gain", "lately", "weight", "today", "")


def _cells(target: Target) -> tuple[str, ...]:
    places = decimals(target.level_half, level=target.level)
    fine = decimals(target.gain_half, target.level_half, level=target.level)
    by_gain = target.judged_by == "gain"
    start = target.base if by_gain else 0.0
    span = bounds(target.lower - start, target.upper - start, fine if by_gain else places)
    return (
        target.name,
        target.asked,
        f"gain {span}" if by_gain else span,
        with_error(target.level, _finite(target.level_half), places),
        with_error(target.gain, _finite(target.gain_half), fine, "+"),
        with_error(target.lately, _finite(target.lately_half), fine, "+" if by_gain else ""),
        number(target.weight, 3),
        with_error(target.today, target.today_se, 3),
        "" if target.verdict is None else target.verdict.name.lower(),
    )


def _shifted(shift: Shift) -> tuple[str, ...]:
    places = decimals(shift.half, level=shift.shift)
    unit = decimals(math.nan, level=shift.pilot)
    return (
        shift.name,
        number(shift.pilot, unit),
        number(shift.now, unit),
        with_error(shift.shift, _finite(shift.half), places, "+"),
        with_error(shift.lately, _finite(shift.lately_half), places, "+"),
        shift.verdict.name.lower(),
    )


def _finite(half: float) -> float:
    return half if math.isfinite(half) else math.nan
