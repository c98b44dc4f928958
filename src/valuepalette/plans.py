"""A plan: a palette at every number of candidates, and how it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from valuepalette.costing import Cost
from valuepalette.dual import Status
from valuepalette.figures import Figures
from valuepalette.grouping import Array
from valuepalette.palette import Palette
from valuepalette.solution import Solution
from valuepalette.tabulating import WIDTH, bounds, decimals, number, table

__all__ = ["Choice", "Limit", "Plan"]

HAD = {Status.OPTIMAL: "yes", Status.BOUNDARY: "just", Status.INFEASIBLE: "no", Status.NUMERICAL: "yes?"}


@dataclass(frozen=True, eq=False)
class Choice:
    """A decoder of k candidates, with the weights of the palette for that k.

    solution  for this k; its `status` is the verdict, its `certificate` says why a palette cannot be had
    margin    by how much all bounds could be tightened at once, in within-prompt standard deviations; below zero the
              slack they lack
    levels    of the decoder, averaged over all choices of k among the pilot's candidates, with their standard error on
              new prompts; nan where the palette cannot be had
    kl        of its choice from a uniform one among its candidates, nats
    effective k exp(−kl): how many of them are in play
    untuned   what the weights of the plan's largest k would have at this one: levels of a decoder that is not
              calibrated; nan where there are no such weights
    tokens    what an answer costs, in generated tokens; nan where it is not known
    answers   from how many answers on fine-tuning is cheaper; nan where its cost was not stated
    """

    candidates: int
    solution: Solution
    margin: float
    levels: Figures
    kl: float
    effective: float
    untuned: Figures
    tokens: float
    answers: float

    @property
    def status(self) -> Status:
        return self.solution.status

    @property
    def had(self) -> bool:
        """Whether the palette can be had at this k."""
        return self.status is not Status.INFEASIBLE


@dataclass(frozen=True, eq=False)
class Limit:
    """k → ∞, extrapolated from K and K/2: twice the figures at K less those at K/2.

    solution                of `solve(…, candidates="limit")`: what fine-tuning needs
    weights, levels, kl     their error: how far the extrapolation went from K. No bound, but as a rule far too large
    """

    solution: Solution
    weights: Array
    levels: Array
    kl: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A palette at every number of candidates; `str()` is a table.

    choices   by k: those asked for, and the smallest
    smallest  the smallest k at which the palette can be had; None where it is not even at the largest
    palette   what is asked; a "reach" is fixed at what the largest k reaches, so that all k are asked the same
    limit     k → ∞; None where `no_limit` says why not
    cost      what the costs were computed from
    """

    choices: Mapping[int, Choice]
    smallest: int | None
    palette: Palette
    limit: Limit | None
    no_limit: str
    cost: Cost

    def __getitem__(self, k: int) -> Choice:
        """The choice of k candidates."""
        if k not in self.choices:
            raise KeyError(f"k = {k} is none of {', '.join(map(str, self.choices))}")
        return self.choices[k]

    def to_dict(self) -> dict[str, Any]:
        """JSON without nan: a number that is not to be had is null, an infinite one is "inf" or "-inf"."""
        limit = self.limit
        return {
            "valuepalette": "plan",
            "smallest": self.smallest,
            "asked": self._widest.solution.asked,
            "choices": [
                {
                    "candidates": k,
                    "status": each.status.name,
                    "margin": _plain(each.margin),
                    "weights": _named(each.solution.weights) if each.had else None,
                    "levels": _named(each.levels),
                    "levels_se": _named(Figures(each.levels.names, each.levels.se)),
                    "untuned": _named(each.untuned),
                    "kl": _plain(each.kl),
                    "effective": _plain(each.effective),
                    "tokens": _plain(each.tokens),
                    "answers": _plain(each.answers),
                    "certificate": None if each.had else str(each.solution.certificate),
                }
                for k, each in self.choices.items()
            ],
            "limit": None
            if limit is None
            else {
                "weights": _named(limit.solution.weights),
                "weights_error": _named(Figures(limit.solution.features, limit.weights)),
                "levels": _named(limit.solution.levels),
                "levels_error": _named(Figures(limit.solution.features, limit.levels)),
                "kl": _plain(limit.solution.kl),
                "kl_error": _plain(limit.kl),
            },
            "cost": {name: _plain(entry) for name, entry in vars(self.cost).items()},
        }

    @property
    def _widest(self) -> Choice:
        return self.choices[max(self.choices)]

    def __str__(self) -> str:
        widest, shown = self._widest, list(self.choices.values())
        solution, limit = widest.solution, self.limit
        heads = ["", "asked", "base", *(f"k = {each.candidates}" for each in shown)]
        heads += ["± se", *(["k → ∞", "± error"] if limit else [])]
        rows: list[list[str]] = []
        for i, name in enumerate(solution.features):
            base, se = solution.base[name], float(widest.levels.se[i])
            places = decimals(se, level=base)
            most = name in self.palette.maximised
            asked = "max" if most else bounds(float(solution.lower[i]), float(solution.upper[i]), places)
            row = [name, asked, number(base, places)]
            row += [number(each.levels[name], places) for each in shown] + [number(se, places)]
            if limit is not None:
                row += [number(limit.solution.levels[name], places), number(float(limit.levels[i]), places)]
            rows.append(row)
        rows.append([""] * len(heads))

        def line(label: str, cell: Callable[[Choice], str], *ends: str) -> None:
            more = list(ends) if limit is not None else []
            rows.append([label, "", "", *map(cell, shown), "", *more, *[""] * (2 * bool(limit) - len(more))])

        line("can be had", lambda each: HAD[each.status], "")
        line("margin", lambda each: "" if math.isinf(each.margin) else number(round(each.margin, 2) + 0.0, 2))
        kl = () if limit is None else (number(limit.solution.kl, 2), number(limit.kl, 2))
        line("KL", lambda each: number(each.kl, 2), *kl)
        line("in play", lambda each: number(each.effective, 1))
        line("tokens", lambda each: f"{each.tokens:,.0f}" if math.isfinite(each.tokens) else "")
        line("cheaper from", lambda each: f"{each.answers:,.0f}" if math.isfinite(each.answers) else "")
        rows = [row for row in rows if any(row[1:]) or row[0] in solution.features or not any(row)]
        text = table(heads, rows, left=(0, 1), spare=(2, 3 + len(shown), 1))
        return "\n".join([*text, "", *(line for note in self._notes() for line in wrap(note, WIDTH))])

    def _notes(self) -> Iterator[str]:
        if self.smallest is None:
            yield f"It cannot be had with k = {max(self.choices)}. {self._widest.solution.certificate}"
        elif self.smallest == 1:
            yield "The base model has it: nothing needs to be chosen."
        else:
            more = "" if self._widest.solution.confidence is not None else "; every larger k has it too"
            yield f"k = {self.smallest} is the smallest that has it{more}."
        cost = self.cost
        if math.isfinite(cost.answer):
            prompt = f"the prompt's {cost.prompt:.0f} once" if cost.prompt else "the prompt not counted"
            score = f"scoring at {cost.score:g} a token" if cost.score else "scoring not counted"
            yield f"tokens: {cost.answer:.1f} for each of k answers; {prompt}; {score}"
        if math.isfinite(cost.finetune):
            yield f"cheaper from: so many answers pay for fine-tuning, {cost.finetune:,.0f} tokens in all"
        if self.no_limit:
            yield f"no k → ∞: {self.no_limit}"


def _plain(x: float) -> float | str | None:
    return None if math.isnan(x) else ("inf" if x > 0 else "-inf") if math.isinf(x) else x


def _named(figures: Figures) -> dict[str, float | str | None]:
    return {name: _plain(float(x)) for name, x in zip(figures.names, figures.array, strict=True)}
