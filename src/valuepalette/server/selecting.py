"""One of k scored candidates, drawn as a solution has it; and the report of what was done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valuepalette.decoding import pick
from valuepalette.dual import Status
from valuepalette.engines import Candidate, Prompt
from valuepalette.grouping import Array
from valuepalette.server.composing import written
from valuepalette.server.deciding import Decision
from valuepalette.solution import Solution

__all__ = ["Chosen", "Served", "candidates", "report", "select", "told"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """An answer among its candidates.

    index          which one
    probabilities  (k,) the chance of each to be the answer
    features       (k, m) of the solution; nan where one was not measured
    """

    index: int
    probabilities: Array
    features: Array

    @property
    def effective(self) -> float:
        """How many candidates were in play for this prompt: k·exp(−KL), the exponential of the entropy."""
        chance = self.probabilities[self.probabilities > 0]
        return float(np.exp(-(chance * np.log(chance)).sum()))


@dataclass(frozen=True, eq=False)
class Served:
    """One prompt's k scored candidates and the one that was drawn: what `on_served` is told.

    request  a name of its own; place, answer: which of its prompts, which of the n answers to that
    turn     how many turns the conversation has
    aligned  whether it was drawn as the solution asks, by the decoder that the solution is for
    """

    request: str
    place: int
    answer: int
    label: str
    solution: Solution
    prompt: Prompt
    turn: int
    columns: Mapping[str, Any]
    user: str | None
    seed: int
    candidates: Sequence[Candidate]
    values: Mapping[str, Array]
    chosen: Chosen
    aligned: bool


def select(
    solution: Solution,
    values: Mapping[str, Array],
    columns: Mapping[str, Any],
    *,
    seed: int,
    prompt: Prompt,
    turn: int = 0,
) -> Chosen:
    """One of k candidates with probability softmax(λᵀf), lexicographic on a BOUNDARY.

    `values` holds (k,) numbers by name; `columns` those of the prompt. The draw depends on (seed, prompt, turn) alone
    and is, at turn 0, that of `valuepalette.decoding.Decoder`.
    """
    names = tuple(values)
    table = np.column_stack([values[name] for name in names])
    entries = {name: [entry] * len(table) for name, entry in columns.items()}
    features = solution.resolved.features_of(table, names, entries, partial=True)
    measured = solution.resolved.measured(names, entries)
    chance = solution.probabilities(np.where(measured, features, 0.0))
    said = prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    return Chosen(pick(chance, seed, said, turn), chance, np.where(measured, features, np.nan))


def report(decision: Decision, chosen: Chosen) -> dict[str, Any]:
    """What was done for one answer."""
    solution = decision.solution
    assert solution is not None
    return {
        "index": chosen.index,
        "probability": float(chosen.probabilities[chosen.index]),
        "effective_candidates": chosen.effective,
        "features": _numbers(solution.features, chosen.features[chosen.index]),
    }


def told(decision: Decision) -> dict[str, Any]:
    """What a request was served by: the palette, its weights, and whether it stands on the boundary."""
    palette, solution = decision.palette, decision.solution
    if palette is None or solution is None:
        return {"palette": None}
    found: dict[str, Any] = {
        "palette": decision.label,
        "asked": written(palette),
        "status": solution.status.name,
        "boundary": solution.status is Status.BOUNDARY,
        "weights": _numbers(solution.features, solution.weights.array),
        "kl": solution.kl,
    }
    if decision.asked is not None:
        found["adjusted_from"] = written(decision.asked)
    return found


def candidates(drawn: list[Candidate], values: Mapping[str, Array], chosen: Chosen) -> list[dict[str, Any]]:
    """All of them, for a request that asked and may."""
    return [
        {
            "text": candidate.text,
            "tokens": candidate.tokens,
            "finish_reason": candidate.finish_reason,
            "probability": float(chosen.probabilities[j]),
            "values": {name: float(numbers[j]) for name, numbers in values.items()},
        }
        for j, candidate in enumerate(drawn)
    ]


def _numbers(names: tuple[str, ...], array: Array) -> dict[str, float | None]:
    """By name; null where there is no number."""
    pairs = zip(names, array.tolist(), strict=True)
    return {name: number if math.isfinite(number) else None for name, number in pairs}
