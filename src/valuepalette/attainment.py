"""Attainment: what was asked beside what was got, value by value, as numbers, JSON and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from valuepalette.folders import read_json, write_json
from valuepalette.judging import Verdict
from valuepalette.tabulating import bounds, cut, decimals, number, table, with_error

__all__ = ["Evaluation", "Measured"]

FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """One value on the prompts of an evaluation. A number that is not to be had is nan.

    asked         the palette's entry, "free" where none; lower, upper are its bounds
    level, se     expected over the decoder's choice; the error is over prompts and carries the pilot's share
    drawn         the same of the answers that were drawn
    base          the base model's level on the same prompts
    gain          level − base, paired by prompt
    to_gain       what the palette asked it to be, target − the pilot's base level; nan where nothing is asked
    promised      the level that the solution predicted
    quantile      the share of the base distribution below the level
    win_rate      how often an answer beats one of the base model's to the same prompt
    tolerance     by how much a bound may be missed
    judged_by     "gain" where the entry is relative to the base model, "level" where it is a number; "" if free
    verdict       None where nothing is asked
    needed        how many prompts would decide, inf where only a larger pilot would; nan unless undecided
    check         a second opinion: measured, never optimised
    """

    name: str
    check: bool
    level: float
    se: float
    drawn: float
    drawn_se: float
    base: float
    gain: float
    gain_se: float
    quantile: float
    win_rate: float
    win_rate_se: float
    asked: str = "free"
    lower: float = -math.inf
    upper: float = math.inf
    to_gain: float = math.nan
    promised: float = math.nan
    tolerance: float = math.nan
    judged_by: Literal["gain", "level", ""] = ""
    verdict: Verdict | None = None
    needed: float = math.nan


@dataclass(frozen=True)
class Evaluation(Mapping[str, Measured]):
    """What was asked and what was got: a mapping from the names of values to `Measured`; `str()` is the table.

    rows           the palette's values, then free ones, then checks
    prompts        M, on which it was measured; own_prompts of them were the pilot's
    candidates     of each prompt; None where they differ
    pilot_prompts  N, on which the solution was found
    kl, kl_se      KL from the base in nats, by the probabilities of the candidates; nan without those
    effective      how many candidates are in play, exp of the mean entropy
    promised_kl    what the solution predicted
    confidence     of the intervals behind the verdicts
    tolerance      in within-prompt standard deviations
    ties           what a tie counts as in win rates
    """

    rows: tuple[Measured, ...]
    prompts: int
    own_prompts: int
    candidates: int | None
    pilot_prompts: int
    kl: float
    kl_se: float
    effective: float
    promised_kl: float
    confidence: float
    tolerance: float
    ties: Literal["half", "lose"]

    def __getitem__(self, name: str) -> Measured:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r} is none of {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return (row.name for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def met(self) -> bool:
        """Whether everything that was asked is met."""
        return all(row.verdict in (None, Verdict.MET) for row in self.rows)

    @property
    def attained(self) -> dict[str, float]:
        """Of each value that was asked to move, gain over what was asked: 1 where all of it was got."""
        asked = [row for row in self.rows if row.verdict and row.to_gain]
        return {row.name: row.gain / row.to_gain for row in asked if not math.isnan(row.gain / row.to_gain)}

    @property
    def attained_text(self) -> str:
        """The same in a line."""
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.attained.items())
        return f"attained of what was asked: {shares or 'nothing was asked to move'}"

    def to_dict(self) -> dict[str, Any]:
        """JSON without nan: a number that is not to be had is null, and so is an open bound."""
        content = {name: _or_null(entry) for name, entry in vars(self).items()}
        rows: list[dict[str, Any]] = []
        for row in self.rows:
            entries = {name: _or_null(entry) for name, entry in asdict(row).items()}
            entries["verdict"] = row.verdict.name if row.verdict else None
            entries["needed"] = "more pilot" if row.needed == math.inf else entries["needed"]
            rows.append(entries)
        return {"valuepalette": "evaluation", "format": FORMAT, **content, "rows": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """What `to_dict` made."""
        missing = {"candidates": None}
        content = {
            name: _or_nan(data[name], missing.get(name, math.nan)) for name in cls.__dataclass_fields__
        }
        rows: list[Measured] = []
        for row in data["rows"]:
            missing = {"lower": -math.inf, "upper": math.inf, "verdict": None}
            fields = Measured.__dataclass_fields__
            entries = {name: _or_nan(row[name], missing.get(name, math.nan)) for name in fields}
            entries["verdict"] = Verdict[row["verdict"]] if row["verdict"] else None
            entries["needed"] = math.inf if row["needed"] == "more pilot" else entries["needed"]
            rows.append(Measured(**entries))
        return cls(**{**content, "rows": tuple(rows)})

    def save(self, path: str | Path) -> None:
        """Write JSON; `load` reads it back."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """What `save` wrote; a file that is something else is refused with one line."""
        try:
            return cls.from_dict(read_json(Path(path), FORMAT))
        except (KeyError, TypeError) as error:
            raise ValueError(f"path must name an evaluation written by save, got {path}: {error}") from None

    def __str__(self) -> str:
        return "\n".join(_text(self))

    def __repr__(self) -> str:
        verdicts = [f"{row.name} {row.verdict.name.lower()}" for row in self.rows if row.verdict]
        return f"Evaluation({self.prompts} prompts: {', '.join(verdicts) or 'nothing asked'})"


def _or_null(entry: Any) -> Any:
    return None if isinstance(entry, float) and not math.isfinite(entry) else entry


def _or_nan(entry: Any, missing: Any) -> Any:
    return missing if entry is None else entry


_HEADS = ("", "asked", "target", "level", "drawn", "base", "to gain", "gain", "rank", "wins", "")
_SPARE = (4, 8, 1, 9, 5, 6)


def _text(judged: Evaluation) -> Iterator[str]:
    """The evaluation in lines of at most 100 characters."""
    k = judged.candidates
    kind = "unseen prompts"
    if judged.own_prompts:
        kind = f"prompts, {judged.own_prompts:,} of them the pilot's own"
    chosen = f", one of k = {k} candidates" if k and k > 1 else ""
    yield f"{judged.prompts:,} {kind}{chosen}; solved on {judged.pilot_prompts:,}; ± one standard error, by prompt"
    yield ""
    yield from table(_HEADS, [_cells(row) for row in judged.rows], left=(0, 1, 10), spare=_SPARE)
    yield ""
    if not math.isnan(judged.kl):
        places = min(max(decimals(judged.kl_se, level=judged.kl), 2), 3)
        spent = with_error(judged.kl, judged.kl_se, places)
        play = f"; {judged.effective:.1f} of {k} candidates in play" if k else ""
        yield f"KL from the base {spent} nats, predicted {number(judged.promised_kl, places)}{play}"
    if any(row.verdict for row in judged.rows):
        yield (
            f"met: with {judged.confidence:.3g} confidence at most {judged.tolerance:g} within-prompt sd short of "
            "the target"
        )
    if any(row.judged_by == "gain" for row in judged.rows):
        numbers = "; a number by the level" if any(row.judged_by == "level" for row in judged.rows) else ""
        yield f"what is asked relative to the base is judged by the gain{numbers}"
    for row in judged.rows:
        if row.verdict is Verdict.UNDECIDED and not math.isnan(row.needed):
            more = "only a larger pilot" if row.needed == math.inf else f"about {row.needed:,.0f} prompts"
            yield f"{cut(row.name, 40)}: {more} would decide"
    if any(row.check for row in judged.rows):
        yield "check: a second opinion, measured and never optimised"


def _cells(row: Measured) -> tuple[str, ...]:
    places, fine = decimals(row.se, level=row.level), decimals(row.gain_se, row.se, level=row.level)
    verdict = row.verdict.name.lower() if row.verdict else "check" if row.check else ""
    return (
        row.name,
        row.asked,
        bounds(row.lower, row.upper, places),
        with_error(row.level, row.se, places),
        number(row.drawn, places),
        number(row.base, places),
        number(row.to_gain, fine, "+"),
        with_error(row.gain, row.gain_se, fine, "+"),
        "" if math.isnan(row.quantile) else f"q{100 * row.quantile:.0f}",
        _percent(row.win_rate, row.win_rate_se),
        verdict,
    )


def _percent(share: float, se: float) -> str:
    if math.isnan(share):
        return ""
    return with_error(100 * share, 100 * se, min(decimals(100 * se, level=50), 1)) + "%"
