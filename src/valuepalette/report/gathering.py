"""Gathering: from the files of a run to what its report says. Nothing is sampled, scored or solved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from valuepalette.attainment import Evaluation, Measured
from valuepalette.dual import Status
from valuepalette.folders import plain
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.quantities import quantile
from valuepalette.report.answering import chosen_by, side_by_side
from valuepalette.report.content import (
    Cost,
    Got,
    Method,
    Missing,
    PaletteReport,
    Promise,
    Report,
    Spread,
    Value,
)
from valuepalette.report.locating import Run, find_run, listed_files
from valuepalette.report.wording import proved, sure_of_method, sure_of_solution
from valuepalette.solution import Solution
from valuepalette.tilting import Array

__all__ = ["gather_report"]

SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
TRAINED = {"finetuning": "finetune", "distilling": "distill"}


def gather_report(source: str | Path, palettes: Sequence[str] = ()) -> Report:
    """What there is to say of a run, `source` being its study's file or its folder.

    palettes  those to tell of; all of them where none is named

    What is missing is named with the command that makes it, and so is what belongs to an earlier state of the study.
    Raises ValueError where the source is neither, where a palette is not of the run, or where a file is broken.
    """
    run = find_run(source)
    for name in palettes:
        if name not in run.palettes:
            raise ValueError(f"palette must be one of {', '.join(run.palettes) or 'none'}, got {name!r}")
    missing = tuple(_missing(run))
    pilot = run.pilot
    told = [_palette(run, name) for name in palettes or run.palettes]
    about = _about(run, told)
    counts = [palette.prompts for palette in told if palette.prompts]
    return Report(
        title=f"{_short(about)}: {_counted(len(told), 'palette')}",
        version=version("valuepalette"),
        folder=str(run.folder),
        model=_short(about),
        prompts=pilot.prompts if pilot is not None else max(counts, default=0),
        held_out=None if run.held_out is None else run.held_out.prompts,
        candidates=_each(pilot),
        palettes=tuple(told),
        values=tuple(_values(run, about, pilot)),
        k=_most(pilot),
        facts=dict(_facts(run, about)),
        files=listed_files(run.folder),
        commands=tuple(_commands(run, told)),
        study_path=run.study if run.settings is not None else "",
        study=run.text,
        missing=missing,
    )


def _missing(run: Run) -> Iterator[Missing]:
    """What all palettes lack."""
    if not run.sampled("pilot"):
        yield Missing("The pilot is not sampled to its end.", run.command("sample"))
    elif lacking := run.unscored("pilot"):
        yield Missing(f"The pilot is not scored by {', '.join(lacking)}.", run.command("score"))
    if not run.holds_out:
        yield Missing(
            "No prompts are held out, so that nothing was tried on prompts that had no part in solving. Say "
            "held_out = 0.5 under [prompts], name another folder under [run], and sample.",
            run.command("sample"),
        )
    elif not run.sampled("held_out"):
        yield Missing(
            "The candidates of the prompts held out are not sampled to their end.", run.command("sample")
        )
    elif lacking := run.unscored("held_out"):
        yield Missing(
            f"The candidates of the prompts held out are not scored by {', '.join(lacking)}.",
            run.command("score"),
        )
    if not run.palettes:
        yield Missing(
            "The study has no palette. Add one as [palettes.NAME], and solve.", run.command("solve")
        )
    if run.settings is None:
        yield Missing(
            "The study's file is neither in the run's folder nor beside it. What it asked is taken from the files of "
            "the run; name the study to have it here.",
            "valuepalette report study.toml",
        )


def _palette(run: Run, name: str) -> PaletteReport:
    wanted = None if run.settings is None else run.settings.palettes.get(name)
    path = run.folder / "solutions" / f"{name}.json"
    if not path.is_file():
        asked = {} if wanted is None else _entries(wanted)
        return PaletteReport(
            name,
            asked,
            missing=(Missing("It is not solved yet.", run.command("solve", name)),),
            methods=tuple(_trained(run, name)),
        )
    solution = Solution.load(path)
    missing: list[Missing] = []
    if wanted is not None and (old := _older(run, solution, wanted)):
        missing.append(
            Missing(f"{old} What follows is of the solution as it was.", run.command("solve", name))
        )
    proof, status = solution.certificate, solution.status
    prices, held, no_prices = _prices(solution)
    methods = tuple(_trained(run, name))
    if proof is None:
        methods = (_decoded(run, name, solution), *methods)
    return PaletteReport(
        name=name,
        asked={key: text for key, text in solution.asked.items() if text != "free"},
        status=status.name,
        text=status.value,
        proof=tuple(proved(solution)),
        gap=math.nan if proof is None else proof.gap,
        gap_se=math.nan if proof is None else proof.se,
        mode=solution.mode,
        candidates=solution.candidates,
        prompts=solution.prompts,
        kl=math.nan if proof else solution.kl,
        effective=math.nan if proof else solution.effective,
        promises=tuple(_promises(solution)),
        prices=prices,
        held=held,
        no_prices=no_prices,
        sure=() if proof else tuple(sure_of_solution(solution)),
        methods=methods,
        missing=tuple(missing),
        solution=solution,
    )


def _entries(palette: Palette) -> dict[str, str]:
    return {
        str(subject): ", ".join(ask.wanted for ask in asks) or "free"
        for subject, asks in palette.asks.items()
    }


def _older(run: Run, solution: Solution, wanted: Palette) -> str:
    """Why a solution is not that of the study as it stands; "" where it is."""
    now = {
        key: text for key, text in _entries(wanted).items() if text != "free" and key not in wanted.maximised
    }
    then = {
        key: text for key, text in solution.asked.items() if text != "free" and key not in wanted.maximised
    }
    if now != then:
        changed = [key for key in {**now, **then} if now.get(key) != then.get(key)]
        told = ", ".join(f"{key} {then.get(key, 'free')}, now {now.get(key, 'free')}" for key in changed)
        return f"The palette was solved as it was before ({told})."
    assert run.settings is not None
    k = run.settings.solve.get("candidates")
    if k is not None and k != solution.candidates:
        return f"The palette was solved for k = {solution.candidates}, and the study says {k} now."
    if run.pilot is not None and plain(run.pilot.metadata.to_dict()) != plain(solution.fingerprint):
        return "The pilot was sampled or scored otherwise since."
    return ""


def _promises(solution: Solution) -> Iterator[Promise]:
    infeasible = solution.certificate is not None
    slack = solution.slack
    for i, name in enumerate(solution.features):

        def found(numbers: Array, i: int = i) -> float:
            return math.nan if infeasible else float(numbers[i])

        yield Promise(
            name=name,
            asked=solution.resolved.asked[i],
            lower=float(solution.lower[i]),
            upper=float(solution.upper[i]),
            base=float(solution.base.array[i]),
            level=found(solution.levels.array),
            level_se=found(solution.levels.se),
            gain=found(solution.gains.array),
            gain_se=found(solution.gains.se),
            weight=found(solution.weights.array),
            weight_se=found(solution.weights.se),
            error=found(solution.weights.error),
            slack=str(slack[name]) if name in slack else "",
        )


def _prices(solution: Solution) -> tuple[tuple[Cost, ...], tuple[str, ...], str]:
    if solution.status is not Status.OPTIMAL or solution.candidates == "limit":
        why = {
            Status.INFEASIBLE: "What cannot be had has no price.",
            Status.BOUNDARY: "At the very end of what can be had there is no price: a little more cannot be had.",
            Status.NUMERICAL: "Without exact weights there is no price.",
        }
        return (
            (),
            (),
            why.get(solution.status, "Prices are those of a decoder, and this is solved for training."),
        )
    found = solution.sensitivity()
    rows = (
        Cost(name, cost.step, cost.kl, cost.until, dict(cost.levels)) for name, cost in found.prices.items()
    )
    return tuple(rows), found.held, ""


def _decoded(run: Run, name: str, solution: Solution) -> Method:
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


def _trained(run: Run, name: str) -> Iterator[Method]:
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


def _about(run: Run, palettes: Sequence[PaletteReport]) -> Mapping[str, Any]:
    """Where the numbers come from: the pilot's metadata, or what a solution kept of it."""
    if run.pilot is not None:
        return plain(run.pilot.metadata.to_dict())
    kept = [palette.solution for palette in palettes if palette.solution is not None]
    return plain(kept[0].fingerprint) if kept else {}


def _short(about: Mapping[str, Any]) -> str:
    return str((about.get("model") or {}).get("model") or "a model").rstrip("/").rpartition("/")[2]


def _each(pilot: Pilot | None) -> str:
    if pilot is None:
        return ""
    fewest, most = int(pilot.sizes.min()), int(pilot.sizes.max())
    return str(fewest) if fewest == most else f"{fewest} to {most}"


def _most(pilot: Pilot | None) -> int | None:
    return None if pilot is None else pilot.candidates


def _values(run: Run, about: Mapping[str, Any], pilot: Pilot | None) -> Iterator[Value]:
    rewards = about.get("rewards") or {}
    described = pilot.describe() if pilot is not None and pilot.values else None
    names = list(pilot.values) if pilot is not None else list(rewards)
    for i, name in enumerate(names):
        known = rewards.get(name) or {}
        row = Value(
            name,
            str(known.get("definition", "")),
            str(known.get("version", "")),
            str(known.get("scale", "real")),
            run.is_check(name, known),
        )
        if described is None:
            yield row
            continue
        reach = (described.lowest[-1, i], described.highest[-1, i]) if described.ks else (math.nan, math.nan)
        yield replace(
            row,
            base=float(described.mean[i]),
            sd=float(described.sd[i]),
            low=float(reach[0]),
            high=float(reach[1]),
        )


def _facts(run: Run, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the candidates depend on, by name."""
    for key, entry in (about.get("model") or {}).items():
        yield f"model: {key}" if key != "model" else "model", str(entry)
    if about.get("system_prompt"):
        yield "system prompt", str(about["system_prompt"])
    for key, entry in (about.get("sampling") or {}).items():
        if key != "system_prompt":
            yield key.replace("_", " "), str(entry) if entry not in ([], None, "") else "none"
    seed = about.get("seed") if run.settings is None else run.settings.seed
    if seed is not None:
        yield "seed", str(seed)


def _commands(run: Run, palettes: Sequence[PaletteReport]) -> Iterator[str]:
    """What makes the run anew."""
    yield run.command("sample")
    yield run.command("score")
    yield run.command("solve")
    yield run.command("evaluate")
    for method, command in TRAINED.items():
        for palette in palettes:
            if any(found.name == method for found in palette.methods):
                yield run.command(command, palette.name)
                yield run.command("evaluate", palette.name, "--method", method)
    yield run.command("report")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
