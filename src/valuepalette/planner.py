"""Which k: whether a palette can be had with each number of candidates, and at what price."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np

from valuepalette.costing import Cost, cost_of
from valuepalette.dual import Status
from valuepalette.figures import Figures
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.planning import Expected, expect
from valuepalette.plans import Choice, Limit, Plan
from valuepalette.posing import Posed, pose
from valuepalette.quantities import Reach
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.uncertainty import errors

__all__ = ["plan"]


def plan(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    *,
    ks: Sequence[int] | None = None,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
    confidence: float | None = None,
    answer_tokens: float | None = None,
    prompt_tokens: float | None = None,
    score_price: float = 0.0,
    finetune_tokens: float | None = None,
    train_price: float = 3.0,
) -> Plan:
    """What a palette takes at each number of candidates k, from one pilot and without decoding anything.

    For each k the palette is solved, and the levels and the KL of its decoder are averaged exactly over all choices of
    k among each prompt's candidates (paper, A.4 and Table 5). What k candidates reach grows with k, of every
    combination of features, so a palette that can be had at k can be had at every larger one: bisection finds the
    smallest. (With a `confidence`, whose asks depend on λ, every k in between is tried.)

    ks               2, 4, 8, … up to the candidates that every prompt has, where it is None; the smallest k is added
    mode             only "prompt": joint mode has no k
    weighting, seed, confidence  as for `solve`
    answer_tokens    of an answer on average; where None the mean of the pilot's column `tokens`
    prompt_tokens    of a prompt, read once; where None it is not counted
    score_price      what scoring a token of a candidate by all rewards costs, in generated tokens
    finetune_tokens  what fine-tuning trains on: tokens of all prompts and answers, times epochs
    train_price      of a trained token in generated ones; 3 counts a pass forward and one back, which is twice that.
                     To reckon in money, give the price of the training over that of a generated token, and 1 here

    A "reach" is fixed at what the largest k reaches; "max" is each k's own, within its budget. Raises ValueError of one
    line for a palette or a k that makes no sense on this pilot.

    >>> rows = np.random.default_rng(0).normal(size=(200, 8))
    >>> pilot = Pilot.from_arrays({"humor": rows.ravel()}, prompt_id=np.repeat(np.arange(200), 8))
    >>> planned = plan(pilot, {"humor": 0.7}, answer_tokens=30)
    >>> planned.smallest, planned[2].status.name, planned[8].tokens
    (3, 'INFEASIBLE', 240.0)
    """
    if mode == "joint":
        raise ValueError('mode must be "prompt" to plan: joint mode has no k, got "joint"')
    wanted = _wanted(pilot, ks)
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    posed = pose(pilot, palette, wanted[-1], "prompt", weighting, seed)
    if fixed := _fixed(posed):
        palette = palette.at(fixed)
        posed = pose(pilot, palette, wanted[-1], "prompt", weighting, seed)
    answer = _answer_tokens(posed) if answer_tokens is None else answer_tokens
    cost = cost_of(answer, prompt_tokens, score_price, finetune_tokens, train_price)

    @cache
    def solution(k: int | Literal["limit"]) -> Solution:
        return solve(
            pilot,
            palette,
            k,
            mode="prompt",
            weighting=weighting,
            seed=seed,
            confidence=confidence,
            on_infeasible="return",
        )

    def had(k: int) -> bool:
        return solution(k).status is not Status.INFEASIBLE

    smallest = _smallest(wanted, had, bisect=confidence is None)
    shown = sorted(set(wanted) if smallest is None else {*wanted, smallest})
    last = solution(wanted[-1]) if had(wanted[-1]) else None
    choices = {k: _choice(posed, k, solution(k), last, cost) for k in shown}
    limit, reason = _limit(posed, solution)
    return Plan(choices, smallest, palette, limit, reason, cost)


def _wanted(pilot: Pilot, ks: Sequence[int] | None) -> list[int]:
    """The k to plan for, ascending."""
    most = int(pilot.sizes.min())
    if ks is None:
        if most < 2:
            raise ValueError(
                "pilot must have two candidates or more for every prompt to plan, got one for some"
            )
        return sorted({*(2**i for i in range(1, most.bit_length())), most})
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most:
            raise ValueError(
                f"ks must be whole numbers from 1 to the {most} candidates of every prompt, got {k!r}"
            )
    if not len(ks):
        raise ValueError("ks must name at least one number of candidates, got none")
    return sorted({int(k) for k in ks})


def _fixed(posed: Posed) -> dict[str, tuple[float, float]]:
    """In levels what is asked as a share of the reach, which would be another at every k."""
    resolved = posed.resolved
    lower, upper = resolved.reported(resolved.lower), resolved.reported(resolved.upper)
    out: dict[str, tuple[float, float]] = {}
    for subject, asks in posed.palette.asks.items():
        if any(isinstance(ask.quantity, Reach) for ask in asks):
            i = resolved.features.index(str(subject))
            out[str(subject)] = float(lower[i]), float(upper[i])
    return out


def _smallest(wanted: Sequence[int], had: Callable[[int], bool], *, bisect: bool) -> int | None:
    """The smallest k that has it, by bisection between the last that has not and the first that has."""
    high = next((k for k in wanted if had(k)), None)
    if high is None:
        return None
    low = max((k for k in wanted if k < high), default=0)
    if not bisect:
        return next(k for k in range(low + 1, high + 1) if had(k))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if had(middle) else (middle, high)
    return high


def _choice(posed: Posed, k: int, solution: Solution, last: Solution | None, cost: Cost) -> Choice:
    none = np.full(len(solution.features), np.nan)
    nothing = Figures(solution.features, none)
    had = solution.status is not Status.INFEASIBLE
    found = expect(posed.groups, solution.weights.array, k, solution.faces) if had else None
    untuned = nothing
    if last is not None:
        untuned = _levels(posed, expect(posed.groups, last.weights.array, k, last.faces))
    return Choice(
        candidates=k,
        solution=solution,
        margin=solution.margin,
        levels=nothing if found is None else _levels(posed, found),
        kl=math.nan if found is None else found.kl,
        effective=math.nan if found is None else found.effective,
        untuned=untuned,
        tokens=cost.decoding(k),
        answers=cost.answers(k) if had else math.nan,
    )


def _levels(posed: Posed, found: Expected) -> Figures:
    """As a user reads them, with their standard error on new prompts."""
    resolved, weights = posed.resolved, posed.groups.weights[:, None]
    own = np.broadcast_to(weights, found.prompt_levels.shape)
    if resolved.inside is not None:
        own = np.where(resolved.inside, weights, 0.0)
    own = own / own.sum(axis=0)
    return Figures(resolved.features, resolved.reported(found.levels), errors(found.prompt_levels, own))


def _limit(posed: Posed, solution: Callable[[int | Literal["limit"]], Solution]) -> tuple[Limit | None, str]:
    """k → ∞ and its error, or why there is none."""
    most = int(posed.groups.sizes[0])
    try:
        limit = solution("limit")
    except ValueError as error:
        return None, str(error)
    if limit.status is not Status.OPTIMAL:
        return None, f"the palette is {limit.status.name} at k = {most}"
    whole = solution(most)
    return Limit(
        limit,
        np.abs(limit.weights.array - whole.weights.array),
        np.abs(limit.levels.array - whole.levels.array),
        abs(limit.kl - whole.kl),
    ), ""


def _answer_tokens(posed: Posed) -> float | None:
    """Of an answer on average, prompts by their weight; None where the pilot does not say it of every answer."""
    pilot = posed.pilot
    if "tokens" not in pilot.table.column_names or pilot.table["tokens"].null_count:
        return None
    return float(posed.groups.row_weights @ pilot.table["tokens"].to_numpy()[pilot.order])
