"""Gathering: from the files of a run to what its report says. Nothing is sampled, scored or solved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from valuepalette.dual import Status
from valuepalette.folders import plain
from valuepalette.grouping import Array
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.report.content import (
    Cost,
    Missing,
    PaletteReport,
    Promise,
    Report,
    Value,
)
from valuepalette.report.locating import Run, find_run, listed_files
from valuepalette.report.trying import TRAINED, decoded, trained
from valuepalette.report.wording import proved, sure_of_solution
from valuepalette.solution import Solution

__all__ = ["gather_report"]


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
            methods=tuple(trained(run, name)),
        )
    solution = Solution.load(path)
    missing: list[Missing] = []
    if wanted is not None and (old := _older(run, solution, wanted)):
        missing.append(
            Missing(f"{old} What follows is of the solution as it was.", run.command("solve", name))
        )
    proof, status = solution.certificate, solution.status
    prices, held, no_prices = _prices(solution)
    methods = tuple(trained(run, name))
    if proof is None and solution.candidates != "limit":
        methods = (decoded(run, name, solution), *methods)
    elif proof is None and not methods:
        lacking = "It is solved for training, and no model is trained for it yet."
        missing.append(Missing(lacking, run.command("finetune", name)))
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
    if any(found.name == "decoding" for palette in palettes for found in palette.methods):
        yield run.command("evaluate")
    for method, command in TRAINED.items():
        for palette in palettes:
            if any(found.name == method for found in palette.methods):
                yield run.command(command, palette.name)
                yield run.command("evaluate", palette.name, "--method", method)
    yield run.command("report")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
