"""What a report says in sentences: a verdict with its proof, and how sure one can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from valuepalette.dual import Status
from valuepalette.grouping import Array
from valuepalette.report.content import Got, Method
from valuepalette.report.spelling import minus
from valuepalette.solution import Solution
from valuepalette.tabulating import decimals, number

__all__ = ["proved", "sure_of_method", "sure_of_solution"]


def proved(solution: Solution) -> Iterator[str]:
    """The verdict with its proof."""
    if solution.certificate is not None:
        yield str(solution.certificate)
        if solution.certificate.margin > -math.inf:
            short = number(abs(solution.certificate.margin), 2)
            yield (
                f"That is proved, not tried: no way to choose exists. For it to become possible, every bound would "
                f"have to give way by at least {short} standard deviations among answers to a prompt, all at once."
            )
        return
    where = f"on these {_prompts(solution.prompts)}"
    k = solution.candidates
    if solution.mode == "joint":
        how = f"Re-weighting prompts and answers {where}"
        yield "It was solved in joint mode. A decoder answers the prompts it is given, so it reaches less than this."
    elif k == "limit":
        how = f"For a model that is trained, extrapolated from choices among the pilot's answers {where}"
    else:
        how = f"Choosing among {k} answers to each prompt, {where}"
    play = f", which leaves {solution.effective:.1f} of {k} answers in play" if isinstance(k, int) else ""
    have = "every level that was asked is had"
    if solution.status is Status.BOUNDARY:
        first = ", then ".join(_highest(solution.features, face) for face in solution.faces)
        yield (
            f"{how}, {have}, but only just. No finite weights do it: first those answers are kept that are {first}, "
            "and the weights choose among them."
        )
        yield f"It lies {_nats(solution.kl)} nats from the model (KL){play}."
        return
    if all(text == "free" for text in solution.asked.values()):
        yield "Nothing was asked, so the model stays as it is."
        return
    yield f"{how}, {have} with the weights below."
    yield (
        f"Of all choices that have these levels, this one stays closest to the model: {_nats(solution.kl)} nats "
        f"(KL){play}."
    )
    errors = solution.weights.error[np.isfinite(solution.weights.error)]
    if solution.status is Status.OPTIMAL and len(errors) and errors.max() > 0:
        yield (
            f"That is proved: the problem is convex, and no weight is further than {_power(errors.max())} from "
            "the exact one."
        )
    elif solution.status is Status.OPTIMAL and k != "limit":
        yield "The problem is convex, so that there is one answer, and this is it."
    if 0 < solution.margin < math.inf:
        yield (
            f"There is room: every bound could be tightened by {number(solution.margin, 2)} standard deviations among "
            "answers to a prompt, all at once."
        )


def sure_of_solution(solution: Solution) -> Iterator[str]:
    """How far the weights and the levels they promise may be off."""
    yield (
        f"Solved on {_prompts(solution.prompts)}. Errors (±) are one standard error over prompts: answers to one "
        "prompt stand or fall together."
        + (" In joint mode they are indicative." if solution.mode == "joint" else "")
    )
    if solution.confidence is not None and solution.aimed is not None:
        yield (
            f"Aimed inside each bound, so that new prompts have what is asked with {solution.confidence:.0%} "
            "confidence."
        )
    for name, slack in solution.slack.items():
        yield f"{name} asks for less than it gets: {slack}."


def sure_of_method(method: Method) -> Iterator[str]:
    """What the intervals and verdicts mean, and what would decide what is open."""
    if method.own_prompts:
        yield (
            f"{method.own_prompts:,} of the {_prompts(method.prompts)} are the pilot's own: levels there are promised, "
            "not tested."
        )
    else:
        yield f"Tried on {_prompts(method.prompts)} that had no part in solving."
    yield (
        f"Intervals hold with {method.confidence:.0%} confidence, each by itself. Met: the interval ends at most "
        f"{method.tolerance:g} standard deviations among answers to a prompt short of the target. Missed: all of it "
        "lies short. Undecided: chance alone may be why it looks so."
    )
    relative = [row.name for row in method.got if row.judged_by == "gain"]
    if relative:
        yield (
            "What is asked relative to the model is judged by the change on the same prompts, which is surer than the "
            "level: " + ", ".join(relative) + "."
        )
    for row in method.got:
        if row.verdict == "UNDECIDED" and not math.isnan(row.needed):
            more = "only a larger pilot" if math.isinf(row.needed) else f"about {row.needed:,.0f} prompts"
            yield f"{row.name} is undecided: {more} would decide."
    if not math.isnan(method.promised_kl) and not math.isnan(method.kl):
        yield (
            f"KL was predicted as {_nats(method.promised_kl)} nats and was {_nats(method.kl)}"
            f"{_between(method.kl_low, method.kl_high)}."
        )
    checks = [row for row in method.got if row.kind == "check"]
    if checks:
        unknown = [row.name for row in checks if math.isnan(row.gain_high)]
        fell = [f"{row.name} by {_change(row)}" for row in checks if row.gain_high < 0]
        told = [
            f"Second opinions were measured and never optimised: {', '.join(row.name for row in checks)}."
        ]
        if fell:
            told.append(f"Beyond chance, these fell: {', '.join(fell)}.")
        elif not unknown:
            told.append("None of them fell beyond chance.")
        if unknown:
            told.append(f"Whether these fell is not known: {', '.join(unknown)}.")
        yield " ".join(told)
    yield "A level is an average over prompts and over the draw, and no promise for a single answer."
    if method.answers is not None and method.answers.prompts:
        found = method.answers
        yield (
            f"Of {found.prompts:,} answers {found.better:,} got better by the palette's weights, {found.worse:,} "
            f"worse, {found.same:,} stayed."
        )


def _highest(names: Sequence[str], face: Array) -> str:
    """`highest in humor`, `lowest in length`, `highest in 0.6·humor − 0.4·length`."""
    parts = face / np.abs(face).sum()
    told = [i for i in np.argsort(-np.abs(parts)).tolist() if abs(parts[i]) >= 5e-4]
    if len(told) == 1:
        return f"{'highest' if parts[told[0]] > 0 else 'lowest'} in {names[told[0]]}"
    terms = [f"{'+' if parts[i] > 0 else '−'} {abs(parts[i]):.3g}·{names[i]}" for i in told]
    return f"highest in {' '.join(terms).removeprefix('+ ')}"


def _change(row: Got) -> str:
    places = decimals((row.gain_high - row.gain_low) / 4, level=row.gain)
    low, high = (minus(number(end, places)) for end in (row.gain_low, row.gain_high))
    return f"{number(abs(row.gain), places)} ({low} to {high})"


def _power(error: float) -> str:
    """The power of ten above it: `10⁻⁹`."""
    above = math.ceil(math.log10(error))
    return "10" + str(above).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _between(low: float, high: float) -> str:
    return "" if math.isnan(low) or high - low < 0.005 else f" ({_nats(low)} to {_nats(high)})"


def _nats(kl: float) -> str:
    return number(kl, 2 if abs(kl) >= 0.095 else 3)


def _prompts(count: int) -> str:
    return f"{count:,} prompt{'s' * (count != 1)}"
