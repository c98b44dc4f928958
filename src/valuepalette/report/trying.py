"""What palettes got: evaluations and answers of a run, those left out that belong to another solution."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from valuepalette.attainment import Evaluation, Measured
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.quantities import quantile
from valuepalette.report.answering import chosen_by, side_by_side
from valuepalette.report.content import Got, Method, Missing, Spread
from valuepalette.report.locating import Run
from valuepalette.report.wording import sure_of_method
from valuepalette.solution import Solution

__all__ = ["TRAINED", "decoded", "trained"]

SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
TRAINED = {"finetuning": "finetune", "distilling": "distill"}
"""The command behind each method that trains."""


def decoded(run: Run, name: str, solution: Solution) -> Method:
    """What the decoder got on the prompts held out."""
    found = _method(run, name, "decoding", solution)
    if not run.holds_out or found.got:
        return found
    return replace(
        found,
        missing=(
            *found.missing,
            Missing("What was asked is not compared with what was got yet.", run.command("evaluate", name)),
        ),
    )


def trained(run: Run, name: str) -> Iterator[Method]:
    """What was got by models that were trained, where there are any."""
    for method, command in TRAINED.items():
        path = run.folder / "models" / method / name / "solution.json"
        there = _judged_path(run, name, method).is_file() or _answers_path(run, name, method).is_file()
        if not path.is_file():
            if there:
                gone = Missing(
                    "The solution that it was trained for is not there any more.", run.command(command, name)
                )
                yield Method(method, missing=(gone,))
            continue
        found = _method(run, name, method, Solution.load(path))
        if run.holds_out and not found.got:
            lacking = Missing(
                "What was asked is not compared with what was got yet.",
                run.command("evaluate", name, "--method", method),
            )
            found = replace(found, missing=(*found.missing, lacking))
        yield found


def _judged_path(run: Run, name: str, method: str) -> Path:
    return run.folder / "evaluation" / method / f"{name}.json"


def _answers_path(run: Run, name: str, method: str) -> Path:
    return run.folder / "answers" / method / f"{name}.parquet"


def _method(run: Run, name: str, method: str, solution: Solution) -> Method:
    """What was got by one method; evaluations and answers of another solution are left out."""
    missing: list[Missing] = []
    more = () if method == "decoding" else ("--method", method)
    judged: Evaluation | None = None
    if (path := _judged_path(run, name, method)).is_file():
        judged = Evaluation.load(path)
        if not _is_of(judged, solution):
            judged = None
            missing.append(
                Missing(
                    "It was evaluated with an earlier solution, which is left out.",
                    run.command("evaluate", name, *more),
                )
            )
    answers: Pilot | None = None
    if (path := _answers_path(run, name, method)).is_file():
        answers = Pilot.read(path)
        if not chosen_by(answers, solution):
            answers = None
            missing.append(
                Missing(
                    "The answers are of an earlier solution, and left out.",
                    run.command("evaluate", name, *more),
                )
            )
    elif judged is not None:
        missing.append(
            Missing(
                "The answers themselves are not in the run's folder.", run.command("evaluate", name, *more)
            )
        )
    found = Method(method, missing=tuple(missing[:1] if judged is None else missing))
    if judged is not None:
        found = _with_evaluation(found, judged, solution)
    if answers is not None:
        base = run.held_out if method != "decoding" else None
        if method != "decoding" and base is None:
            answers = None
        else:
            found = replace(
                found,
                spreads=tuple(_spreads(answers, solution, base, _others(run, answers, judged))),
                answers=side_by_side(answers, solution, _others(run, answers, judged), base),
            )
    return replace(found, sure=tuple(sure_of_method(found))) if found.got else found


def _is_of(judged: Evaluation, solution: Solution) -> bool:
    asked = {row.name: row.asked for row in judged.rows if row.asked != "free"}
    same = asked == {name: text for name, text in solution.asked.items() if text != "free"}
    return same and math.isclose(judged.promised_kl, solution.kl, rel_tol=1e-6, abs_tol=1e-9)


def _others(run: Run, answers: Pilot, judged: Evaluation | None) -> list[str]:
    """The second opinions."""
    if judged is not None:
        return [row.name for row in judged.rows if row.check]
    about = answers.metadata.rewards
    return [name for name in answers.values if run.is_check(name, about.get(name, {}))]


def _with_evaluation(found: Method, judged: Evaluation, solution: Solution) -> Method:
    z = NormalDist().inv_cdf((1 + judged.confidence) / 2)
    base = dict(solution.base)
    return replace(
        found,
        prompts=judged.prompts,
        own_prompts=judged.own_prompts,
        candidates=judged.candidates,
        kl=judged.kl,
        kl_low=max(judged.kl - z * judged.kl_se, 0.0) if not math.isnan(judged.kl_se) else math.nan,
        kl_high=judged.kl + z * judged.kl_se,
        promised_kl=judged.promised_kl,
        effective=judged.effective,
        confidence=judged.confidence,
        tolerance=judged.tolerance,
        got=tuple(_got(row, z, base.get(row.name, math.nan)) for row in judged.rows),
        evaluation=judged,
    )


def _got(row: Measured, z: float, base: float) -> Got:
    # What is judged by the gain is judged against the bound less the pilot's base level.
    start = base if row.judged_by == "gain" else 0.0
    won = z * row.win_rate_se
    return Got(
        name=row.name,
        kind="check" if row.check else "asked" if row.verdict else "free",
        asked=row.asked,
        judged_by=row.judged_by,
        lower=row.lower - start,
        upper=row.upper - start,
        base=row.base,
        level=row.level,
        level_low=row.level - z * row.se,
        level_high=row.level + z * row.se,
        gain=row.gain,
        gain_low=row.gain - z * row.gain_se,
        gain_high=row.gain + z * row.gain_se,
        quantile=row.quantile,
        win_rate=row.win_rate,
        win_low=max(row.win_rate - won, 0.0) if not math.isnan(won) else math.nan,
        win_high=min(row.win_rate + won, 1.0) if not math.isnan(won) else math.nan,
        verdict=row.verdict.name if row.verdict else None,
        needed=row.needed,
    )


def _spreads(
    answers: Pilot, solution: Solution, base: Pilot | None, others: Sequence[str]
) -> Iterator[Spread]:
    """Of each value that something is asked of, then of each second opinion."""
    asked: dict[str, float] = {}
    for i, spec in enumerate(solution.resolved.specs):
        if solution.resolved.asked[i] == "free":
            continue
        ends = [float(end[i]) for end in (solution.lower, solution.upper) if np.isfinite(end[i])]
        whole = spec.tail is None and spec.cohort is None
        asked[spec.value] = ends[0] if whole and ends else asked.get(spec.value, math.nan)
    first = answers if base is None else base
    before = _even(first, solution.weighting)
    after = before if base is None else _even(answers, solution.weighting)
    if "probability" in answers.table.column_names:
        chance = np.asarray(answers.table["probability"], float)
        after = _by_prompt(answers, solution.weighting) * chance
    for name in [*asked, *others]:
        if name not in answers.values or name not in first.values:
            continue
        values = (np.asarray(first.table[name], float), np.asarray(answers.table[name], float))
        weights = (before, after)
        yield Spread(
            name,
            asked.get(name, math.nan),
            mean=(float(before @ values[0]), float(after @ values[1])),
            quantiles=(_quantiles(values[0], before), _quantiles(values[1], after)),
            values=values,
            weights=weights,
        )


def _by_prompt(pilot: Pilot, weighting: str) -> Array:
    """The weight of each row's prompt, (n,)."""
    return pilot.groups(weighting).weights[pilot.prompt_index]


def _even(pilot: Pilot, weighting: str) -> Array:
    return _by_prompt(pilot, weighting) / pilot.sizes[pilot.prompt_index]


def _quantiles(values: Array, weights: Array) -> tuple[float, ...]:
    there = weights > 0
    return tuple(quantile(values[there], weights[there], SHARES).tolist())
