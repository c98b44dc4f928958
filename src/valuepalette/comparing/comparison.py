"""What a comparison found: runs of several methods, judged by one palette on one set of unseen prompts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from valuepalette.attainment import Evaluation
from valuepalette.baselines.choosing import asked_of, off_by
from valuepalette.baselines.navigation import navigate
from valuepalette.folders import read_json, write_json
from valuepalette.solution import Solution
from valuepalette.tabulating import WIDTH, number, table

__all__ = ["Comparison", "Cost", "Point", "Run"]

FORMAT = 1
NOTE = (
    "Gains are means over a method's runs; chance: one standard error of one run. *: a second opinion, measured and "
    "never optimised. off by: how far from what was asked, in standard deviations within a prompt, on average over "
    "the values asked. NE: how many runs have every value no lower than before, in level and in win rate, but for "
    "chance. tokens: drawn for one answer."
)


@dataclass(frozen=True)
class Cost:
    """What answers cost.

    tokens     drawn for one answer that is given: of all k candidates of a decoder
    trained    tokens that passed through training, once
    minutes    of wall-clock, for what this run did that others had not done: sampling, scoring, training
    """

    tokens: float
    trained: float = 0.0
    minutes: float = 0.0


@dataclass(frozen=True)
class Run:
    """One aligned model: which method and setting, what it has on the unseen prompts, and what it costs."""

    method: str
    setting: str
    evaluation: Evaluation
    cost: Cost

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "setting": self.setting,
            "evaluation": self.evaluation.to_dict(),
            "cost": asdict(self.cost),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        judged = Evaluation.from_dict(data["evaluation"])
        return cls(data["method"], data["setting"], judged, Cost(**data["cost"]))


@dataclass(frozen=True)
class Point:
    """The weights of a palette times `scale`: the gain of every value and the KL; the over-optimisation curve."""

    scale: float
    gains: Mapping[str, float]
    kl: float


@dataclass(frozen=True)
class Comparison:
    """Runs by method, in the order they were asked for; `str()` is the table.

    palette  the name of the palette that all are judged by
    values   what it asks of, in its order
    checks   second opinions, measured and never optimised
    runs     one for each aligned model
    left_out methods that had nothing to show, and why
    curve    what the palette's values and the second opinions do as its weights are scaled
    """

    palette: str
    values: tuple[str, ...]
    checks: tuple[str, ...]
    runs: tuple[Run, ...]
    left_out: Mapping[str, str]
    curve: tuple[Point, ...]
    solution: Solution

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run.method for run in self.runs))

    def of(self, method: str) -> tuple[Run, ...]:
        """The runs of a method."""
        return tuple(run for run in self.runs if run.method == method)

    def to_dict(self) -> dict[str, Any]:
        """JSON; the solution is kept as the study keeps it."""
        return {
            "valuepalette": "comparison",
            "format": FORMAT,
            "palette": self.palette,
            "values": list(self.values),
            "checks": list(self.checks),
            "runs": [run.to_dict() for run in self.runs],
            "left_out": dict(self.left_out),
            "curve": [asdict(point) for point in self.curve],
            "solution": self.solution.to_dict(),
        }

    def save(self, path: str | Path) -> None:
        """Write JSON; `load` reads it back."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote; a file that is something else is refused with one line."""
        data = read_json(Path(path), FORMAT)
        try:
            return cls(
                data["palette"],
                tuple(data["values"]),
                tuple(data["checks"]),
                tuple(Run.from_dict(run) for run in data["runs"]),
                data["left_out"],
                tuple(Point(**point) for point in data["curve"]),
                Solution.from_dict(data["solution"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"path must name a comparison written by save, got {path}: {error}") from None

    def __str__(self) -> str:
        return "\n".join(self._text())

    def _text(self) -> Iterator[str]:
        named = [*self.values, *self.checks]
        heads = ["", "runs", *named, "off by", "KL", "NE level", "NE wins", "tokens", "trained", "min"]
        first = self.runs[0].evaluation
        asked = {row.name: row.to_gain for row in asked_of(self._own())}
        goal = [_signed(asked.get(name, math.nan)) for name in named]
        error = [number(first[name].gain_se, 3) for name in named]
        rows = [["asked", "", *goal, *[""] * 7], ["± chance", "", *error, *[""] * 7]]
        rows += [self._row(method, named) for method in self.methods]
        yield f"{self.palette}: gains over the base model on {first.prompts} unseen prompts"
        yield ""
        starred = [f"{head}*" if head in self.checks else head for head in heads]
        yield from table(starred, rows, spare=(len(heads) - 1, len(heads) - 2))
        yield ""
        yield from textwrap.wrap(NOTE, WIDTH)
        for method, why in self.left_out.items():
            yield from textwrap.wrap(f"{method}: {why}", WIDTH)

    def _own(self) -> Evaluation:
        """An evaluation that carries what the palette asks; all do, since all are judged by it."""
        return self.runs[0].evaluation

    def _row(self, method: str, named: Sequence[str]) -> list[str]:
        runs = self.of(method)
        judged = [run.evaluation for run in runs]
        gains = [_signed(float(np.mean([each[name].gain for each in judged]))) for name in named]
        off = float(np.mean([off_by(each, self._own(), self.solution) for each in judged]))
        kl = [each.kl for each in judged if not math.isnan(each.kl)]
        shares: list[str] = []
        for by in ("level", "win rate"):
            found = navigate(judged, self.values, by=by)
            shares.append(f"{found.reached}/{found.runs}")
        cost = [run.cost for run in runs]
        trained = float(np.mean([each.trained for each in cost]))
        return [
            method,
            str(len(runs)),
            *gains,
            number(off, 2),
            number(float(np.mean(kl)), 2) if kl else "",
            *shares,
            f"{np.mean([each.tokens for each in cost]):,.0f}",
            f"{trained:,.0f}" if trained else "",
            number(float(np.sum([each.minutes for each in cost])), 1),
        ]


def _signed(gain: float) -> str:
    return "" if math.isnan(gain) else number(round(gain, 3) + 0.0, 3, "+")
