"""Choices without levels: what one would do today, on the very candidates of a solution's decoder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from valuepalette.attainment import Evaluation, Measured
from valuepalette.decoding import choose
from valuepalette.evaluation import evaluate
from valuepalette.figures import Figures
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve

__all__ = ["asked_of", "judge_choice", "off_by", "off_by_chance", "usual_choices"]


def usual_choices(pilot: Pilot, solution: Solution) -> dict[str, Solution]:
    """Ways to choose among the solution's k candidates that need no levels, by name.

    equal weights  one for each standard deviation of a value that the palette asks of, on the asked side
    best of k      the candidate with the highest sum by these weights, always
    joint mode     the paper's equation (5): weights that have the levels if prompts are chosen too

    Each is a solution on `pilot`, so that `judge_choice` has answers chosen by it. A value that does not vary has no
    weight.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 2.0, 5.0]}, prompt_id=[0, 0, 1, 1])
    >>> found = usual_choices(pilot, solve(pilot, {"humor": "reach 50%"}))
    >>> list(found), round(found["equal weights"].weights["humor"], 4)
    (['equal weights', 'best of 2', 'joint mode'], 0.5345)
    """
    k = solution.candidates if isinstance(solution.candidates, int) else None
    spreads = dict(zip(pilot.values, pilot.array.std(axis=0), strict=True))
    weights: dict[str, float] = {}
    levels: dict[str, str] = {}
    for name, lower, upper in zip(solution.features, solution.lower, solution.upper, strict=True):
        if math.isinf(lower) and math.isinf(upper):
            continue
        if spreads[name] > 0:
            weights[name] = (-1 if math.isinf(lower) else 1) / float(spreads[name])
        # In numbers, since a reach is another level in joint mode.
        low, high = repr(float(lower)), repr(float(upper))
        levels[name] = f"== {low}" if lower == upper else f"<= {high}" if math.isinf(lower) else f">= {low}"
    equal = Solution.from_weights(pilot, weights, k, weighting=solution.weighting)
    # One face and no weights: whatever is highest there, and nothing else.
    none = Figures(equal.features, np.zeros(len(equal.features)))
    best = replace(equal, faces=equal.weights.array[None], weights=none)
    # Whatever a decoder reaches is reached without moving prompts, so this cannot be infeasible.
    joint = solve(pilot, Palette(levels), mode="joint", weighting=solution.weighting)
    return {"equal weights": equal, f"best of {k}": best, "joint mode": joint}


def judge_choice(candidates: Pilot, solution: Solution, checks: Sequence[str] = ()) -> Evaluation:
    """What a solution's choice has on candidates, its own pilot's too; joint weights are taken for a decoder's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the solution is in joint mode")
        warnings.filterwarnings("ignore", message=".* are the pilot's own")
        k = solution.candidates if isinstance(solution.candidates, int) else candidates.candidates
        answers = choose(candidates, solution, candidates=k)
        return evaluate(answers, solution, checks=checks)


def asked_of(judged: Evaluation) -> list[Measured]:
    """The values that the palette asks something of."""
    return [row for row in judged.rows if row.verdict is not None]


def off_by(found: Evaluation, judged: Evaluation, solution: Solution) -> float:
    """How far the gains of `found` are from what `solution`'s palette asked, above or below.

    In standard deviations within a prompt, on average over the values asked. `judged` is the evaluation of the
    palette. Beyond a bound that does not bind there is no distance: it is more than asked at no cost.
    """
    distances: list[float] = []
    for row in asked_of(judged):
        off = found[row.name].gain - row.to_gain
        if solution.weights[row.name] == 0:
            off = min(off, 0.0) if math.isfinite(row.lower) else max(off, 0.0)
        distances.append(abs(off) / _spread(solution, row))
    return float(np.mean(distances))


def off_by_chance(judged: Evaluation, solution: Solution) -> float:
    """What `off_by` is on average where only chance parts asked and got; without the values that do not bind."""
    binding = [row for row in asked_of(judged) if solution.weights[row.name] != 0]
    errors = [row.gain_se / _spread(solution, row) for row in binding]
    return math.sqrt(2 / math.pi) * sum(errors) / len(asked_of(judged))


def _spread(solution: Solution, row: Measured) -> float:
    """The standard deviation of a value among the answers to one prompt; one where it does not vary."""
    return float(solution.spread[solution.features.index(row.name)]) or 1.0
