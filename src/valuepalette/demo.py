"""The demo: a study from its prompts to its answers, each step told in a few lines.

First what needs no model, on the pilot that ships with the package. Then the study `data/demo.toml`, live: what is
sampled and scored stays in a folder, so that the second time everything is there. The demo only tells; each of its
steps is a step of the study, and a command.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from valuepalette import collecting
from valuepalette.attainment import Evaluation, Measured
from valuepalette.baselines.choosing import asked_of, judge_choice, off_by, off_by_chance, usual_choices
from valuepalette.engines import Engine
from valuepalette.example import example_pilot
from valuepalette.judging import Verdict
from valuepalette.pilot import Pilot
from valuepalette.progress import duration
from valuepalette.settings import Settings, read_settings
from valuepalette.solving import reach, solve
from valuepalette.study import Study
from valuepalette.tabulating import WIDTH, cut, decimals, number, table, with_error

__all__ = ["run"]

SHIPPED = Path(__file__).with_name("data")
COPIES = {"demo.toml": "study.toml", "pilot.txt": "pilot.txt", "unseen.txt": "unseen.txt"}
TOGETHER, ALONE = "playful", "humor-alone"
IMPOSSIBLE = {"humor": "q80", "positiveness": "q80"}
ANSWERS = 5


def run(
    folder: str | Path | None = None,
    *,
    open_engine: Callable[[], Engine] | None = None,
    rewards: Mapping[str, collecting.Line] | None = None,
) -> None:
    """Prints the demo; what it samples and scores goes to `folder`, `demo-run` where none is given.

    Stopped and run again, it goes on where it was; the second time nothing is left to sample. `open_engine` and
    `rewards` stand in for what the study names, as in `Study`.
    """
    folder = Path("demo-run" if folder is None else folder)
    settings = replace(read_settings(SHIPPED / "demo.toml"), folder=folder)
    _print(_opening())
    _print(_example(example_pilot(), settings))
    study = Study(settings, open_engine=open_engine, rewards=rewards)
    _print(_collected(study))
    _print(_compared(study))
    _print(_alone(study))
    _print(_answers(study))
    _print(_left(study, _reported(study)))


def _reported(study: Study) -> str:
    """Where the page of the run is; "" where what it needs is not installed."""
    if any(find_spec(package) is None for package in ("jinja2", "matplotlib")):
        return ""
    from valuepalette.report import write_report

    return str(write_report(study.folder)[1])


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _opening() -> Iterator[str]:
    yield from _said(
        "valuepalette asks a language model for levels of several values at once. Parts 1 to 3 use answers that ship "
        "with it. Then a small model runs on this machine, for some minutes the first time."
    )


def _titled(text: str) -> Iterator[str]:
    yield from ("", text, "-" * len(text))


def _said(text: str) -> Iterator[str]:
    """A paragraph, after a blank line."""
    yield from ("", *textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def _example(pilot: Pilot, settings: Settings) -> Iterator[str]:
    """Levels, reach, a palette solved and one refused, on the pilot that ships."""
    k, about = settings.candidates, pilot.metadata.rewards
    model = pilot.metadata.model.get("model", "a small model")
    yield from _titled(f"1. A pilot: {pilot.prompts} prompts, {pilot.candidates} answers to each, scored")
    rows: list[list[str]] = []
    for name in _steered(settings):
        far = reach(pilot, None, name, k)
        places = decimals(level=max(abs(far.low), abs(far.high)))
        ends = f"{number(far.low, places)} … {number(far.high, places)}"
        measure = re.split(r",? by ", about[name]["definition"])[0]
        rows.append([name, number(far.base, places), ends, cut(measure, 58)])
    yield from ("", *table(["", "base", f"one of {k} reaches", "measured as"], rows, left=(0, 3)))
    yield from _said(
        f"The answers are by {model}; the pilot ships with the package. Base: the mean over all of them. "
        f"One of {k} reaches: the lowest and the highest mean that a value has alone, if one of {k} answers to each "
        "prompt may be chosen."
    )
    yield from _titled("2. A palette asks for levels and gets weights")
    start = time.perf_counter()
    solution = solve(pilot, settings.palettes[TOGETHER], k)
    took = time.perf_counter() - start
    yield from ("", *str(solution).splitlines())
    yield from _said(
        f"Solved in {1000 * took:.0f} ms, and proved: of all ways to choose that have these levels, this one stays "
        "closest to the model, in KL. An answer is drawn with a chance that grows as the exponential of the sum of "
        "its values, each times its weight."
    )
    yield from _titled("3. A palette that cannot be had, and why")
    refused = solve(pilot, IMPOSSIBLE, k, on_infeasible="return")
    yield from _said("Asked: " + ", ".join(f"{name} {entry}" for name, entry in IMPOSSIBLE.items()) + ".")
    yield from _said(str(refused.certificate or "On this pilot it can be had."))


def _steered(settings: Settings) -> list[str]:
    """The values that are no second opinion."""
    return [name for name in settings.values if name not in settings.checks]


def _collected(study: Study) -> Iterator[str]:
    """Samples and scores what is missing."""
    settings, folder = study.settings, study.folder
    own, out = study.prompts()
    yield from _titled(f"4. Live: {settings.model} answers {len(own)} + {len(out or ())} prompts")
    yield from _said(
        f"{settings.candidates} answers to each prompt, at most {settings.sampling.max_new_tokens} tokens long. "
        f"Palettes are solved on the first {len(own)} prompts and tried on the other {len(out or ())}, which have no "
        "part in solving. Stop it when you like: run again, it goes on from there."
    )
    folder.mkdir(parents=True, exist_ok=True)
    for shipped, name in COPIES.items():
        if not (folder / name).exists():
            shutil.copyfile(SHIPPED / shipped, folder / name)
    parts = len(list(folder.glob("*/part-*.parquet")))
    start = time.monotonic()
    study.sample()
    sampled = time.monotonic() - start
    study.score()
    took = time.monotonic() - start
    tokens = sum(int(np.sum(pilot.table["tokens"])) for pilot in (study.pilot(), study.held_out()))
    if not parts:
        yield from _said(
            f"{tokens:,} tokens in {duration(sampled)}, the loading of the model included: {tokens / sampled:,.0f} a "
            f"second. Scored in {duration(took - sampled)}."
        )
    else:
        yield from _said(
            f"All of it is in {folder}: {tokens:,} tokens, {duration(took)} for what was missing."
        )


def _compared(study: Study) -> Iterator[str]:
    """Asked against got, beside what one would do without solving for levels."""
    pilot, out, checks = study.pilot(), study.held_out(), study.settings.checks
    solution, judged = study.solve(TOGETHER), study.evaluate(TOGETHER)
    asked, k = asked_of(judged), judged.candidates or 1
    others = usual_choices(pilot, solution)
    found = {name: judge_choice(out, other, checks) for name, other in others.items()}
    known = {name: judge_choice(pilot, other) for name, other in [("", solution), *others.items()]}
    every = [judged, *found.values()]
    yield from _titled(f"5. Asked against got, on {judged.prompts} unseen prompts")
    yield from _said(
        f"Changes from the base model on the same prompts. Every column chooses among the same {k} answers to each "
        "prompt, drawn and scored once."
    )
    rows: list[list[str]] = []
    for row in [*asked, *(judged[name] for name in checks)]:
        target = "" if row.check else _change(row.to_gain)
        verdict = row.verdict.name.lower() if row.verdict else ""
        got = [_change(each[row.name].gain) for each in every]
        rows.append(
            [f"{row.name}{'*' * row.check}", target, got[0], number(row.gain_se, 3), verdict, *got[1:]]
        )
    ours, *theirs = (number(off_by(each, judged, solution), 2) for each in every)
    rows.append(["off by", "", ours, number(off_by_chance(judged, solution), 2), "", *theirs])
    ours, *theirs = (number(off_by(each, judged, solution), 2) for each in known.values())
    rows.append(["off by on the pilot", "", ours, "", "", *theirs])
    ours, *theirs = (number(each.kl, 2) for each in every)
    rows.append(["KL", "", ours, number(judged.kl_se, 2), "", *theirs])
    yield from ("", *table(["", "asked", "this palette", "± chance", "verdict", *others], rows, left=(0, 4)))
    yield from _said(
        "± chance: one standard error. *: a second opinion, measured and never optimised. off by: how far from what "
        "was asked, above or below, in standard deviations among the answers to a prompt, on average over the "
        f"{len(asked)} values; beside it, what chance alone makes of it. On the pilot, where the palette was solved, "
        f"chance has no part. KL: how far from the base model, in nats; log {k} = {math.log(k):.2f} is the most."
    )
    yield from _said(
        "What one would do today. Equal weights: one for each standard deviation. Best of "
        f"{k}: the highest sum by these. Joint mode: the weights of the paper's equation, which count on choosing "
        "the prompts as well; a model has to answer those it is given."
        + _short_of(known["joint mode"], asked)
    )
    yield from _said(_on_chance(asked, judged))


def _change(gain: float) -> str:
    """Three decimals and a sign, and no minus before a zero."""
    return number(round(gain, 3) + 0.0, 3, "+")


def _short_of(joint: Evaluation, asked: list[Measured]) -> str:
    """By how much joint weights fall short of what was asked most of, where chance has no part."""
    row = asked[0]
    return f" On the pilot they give {row.name} {_change(joint[row.name].gain)} of {_change(row.to_gain)}."


def _on_chance(asked: list[Measured], judged: Evaluation) -> str:
    """What the verdicts mean, and what would decide those that are open."""
    text = (
        f"Verdicts are at {judged.confidence:.0%}. A target holds on average over prompts, not for each answer, and "
        f"{judged.prompts} prompts are few"
    )
    open_ = [row for row in asked if row.verdict is Verdict.UNDECIDED and not math.isnan(row.needed)]
    if not open_:
        return text + "."
    told = (
        f"on {row.name} "
        + ("only a larger pilot" if math.isinf(row.needed) else f"about {row.needed:,.0f} prompts")
        for row in open_
    )
    return f"{text}: undecided means that chance alone may be why it looks so. To decide: {', '.join(told)}."


def _alone(study: Study) -> Iterator[str]:
    """One value pushed by itself, and what the others pay."""
    alone, together = study.evaluate(ALONE), study.evaluate(TOGETHER)
    pushed = next(row for row in alone.rows if row.verdict)
    yield from _titled(f"6. {pushed.name} alone ({pushed.asked}), and what it costs")
    rows = [
        [row.name, _gain(row), _gain(together[row.name]), "check" if row.check else ""] for row in alone.rows
    ]
    yield from ("", *table(["", f"{pushed.name} alone", "this palette", ""], rows, left=(0, 3)))
    costs = [row for row in alone.rows if row is not pushed and row.gain < -2 * row.gain_se]
    told = ", ".join(f"{row.name} {_gain(row)}" for row in costs) or "nothing"
    yield from _said(
        f"Changes from the base model on the same {alone.prompts} prompts, ± one standard error; KL "
        f"{number(alone.kl, 2)} and {number(together.kl, 2)}. Beyond two standard errors, {pushed.name} alone costs: "
        f"{told}."
    )


def _gain(row: Measured) -> str:
    places = decimals(row.gain_se, level=row.gain)
    return with_error(round(row.gain, places) + 0.0, row.gain_se, places, "+")


def _answers(study: Study) -> Iterator[str]:
    """What a few prompts got before and after; one that the palette's weights think worse is among them."""
    solution, answers = study.solve(TOGETHER), study.decode(TOGETHER)
    asked = [name for name, text in solution.asked.items() if text != "free"]
    weights = np.array([solution.weights[name] for name in asked])
    values = np.column_stack([np.asarray(answers.table[name]) for name in asked])
    prompts, cut_off = answers.texts(), answers.table["finish_reason"].to_pylist()
    said = [
        text + "…" * (end == "length") for text, end in zip(answers.responses or [], cut_off, strict=True)
    ]
    drawn, first = np.asarray(answers.table["drawn"]), np.asarray(answers.table["candidate"]) == 0
    after = {int(answers.prompt_index[row]): int(row) for row in np.flatnonzero(drawn)}
    before = {int(answers.prompt_index[row]): int(row) for row in np.flatnonzero(first)}
    order = np.random.default_rng(study.settings.seed).permutation(answers.prompts).tolist()
    moved = {g: float(weights @ (values[after[g]] - values[before[g]])) for g in order}
    shown = [g for g in order if after[g] != before[g]][:ANSWERS]
    worse = [g for g in order if moved[g] < 0]
    if worse and not any(g in worse for g in shown):
        shown[-1] = worse[0]
    yield from _titled(f"7. {len(shown)} answers, before and after")
    yield from _said(
        f"Prompts by seed {study.settings.seed}, one that got worse included. Before: what the base model says first. "
        f"After: the answer that the palette draws from {answers.candidates}."
    )
    for g in shown:
        yield from ("", str(prompts[before[g]]))
        yield from _quoted("before", said[before[g]])
        yield from _quoted("after", said[after[g]])
        changes = zip(asked, values[after[g]] - values[before[g]], strict=True)
        told = ", ".join(f"{name} {number(round(by, 2) + 0.0, 2, '+')}" for name, by in changes)
        yield from _quoted("worse" if moved[g] < 0 else "better", told)
    count = sum(change < 0 for change in moved.values())
    yield from _said(
        f"Better and worse by the palette's weights. Of {answers.prompts} answers {count} got worse: the choice is "
        "drawn, since always taking the best would leave the levels that were asked for."
    )


def _quoted(label: str, text: str) -> Iterator[str]:
    """At most two lines beside a label."""
    flat = " ".join(text.split()) or "(nothing)"
    yield from textwrap.wrap(
        flat,
        WIDTH,
        initial_indent=f"  {label:8}",
        subsequent_indent=" " * 10,
        max_lines=2,
        placeholder=" …",
        break_on_hyphens=False,
    )


def _left(study: Study, page: str) -> Iterator[str]:
    """The files, the page that tells of them, and what to try next."""
    folder = study.folder
    files = {
        "study.toml": "what was asked; change it, the demo keeps to its own",
        "pilot.txt, unseen.txt": "the prompts",
        "pilot/, held_out/": "the candidates with their values",
        "solutions/": "the weights of each palette",
        "answers/decoding/": "each candidate with its chance, and the one drawn",
        "evaluation/decoding/": "asked against got",
    }
    yield from _titled(f"8. In {folder}{os.sep}")
    yield from ("", *table(["", ""], [list(entry) for entry in files.items()], left=(0, 1))[1:])
    if page:
        yield from ("", f"All of it on one page, for a browser: {page}")
    yield from ("", "Next:", "")
    study_file, pilot = (shlex.quote(str(folder / name)) for name in ("study.toml", "pilot"))
    yield f"  valuepalette evaluate {study_file}"
    if not page:
        yield '  pip install "valuepalette[report]"'
        yield f"  valuepalette report {study_file}"
    yield f'  valuepalette solve {pilot} --ask "humor=reach 50%" --ask "length<=20"'
    yield "  valuepalette values"
