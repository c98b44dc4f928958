"""Predicted beside decoded: levels at k = 2, 4, 8, 16 from one pilot, and from answers drawn afterwards.

A palette is planned on the packaged example pilot: 60 prompts with 16 answers each of the embedded model, sampled
with seed 0. Then the model answers the same 60 prompts afresh, 16 times with seed 1, and 60 prompts it has not seen.
Decoded: for each k each prompt's 16 fresh answers are cut into 16/k sets of k, and the weights of that k draw k answers
from each set, 16 in all. Expected: the mean over all choices of k among the 16, which has less chance in it. The second
table keeps the weights of k = 16 at every k, as Table 5 of the paper does.

Gains on the model's own level for the same prompts are compared, paired by prompt. ± is one standard error of the
difference between fresh and predicted: for the same prompts by the differences of each prompt, for other prompts by
both samples. What is drawn and scored stays in `run/planning`; stopped and run again, it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import valuepalette as vp
from valuepalette.planning import expect
from valuepalette.plans import Plan
from valuepalette.settings import read_settings

Float = NDArray[np.float64]

PALETTE = {"humor": "reach 25%", "positiveness": "+0.05", "harmlessness": "keep", "diversity": "keep"}
SHOWN = ("humor", "positiveness", "harmlessness")
KS = (2, 4, 8, 16)
FOLDER, SEED = Path("run/planning"), 1


def fresh(folder: Path = FOLDER) -> dict[str, vp.Pilot]:
    """Scored answers by seed 1, to the example pilot's prompts and to others; only what is missing is drawn."""
    with as_file(files("valuepalette") / "data") as data:
        settings = replace(
            read_settings(data / "example.toml"),
            seed=SEED,
            folder=folder,
            held_out_path=data / "unseen.txt",
            shard=10,
        )
        study = vp.Study(settings)
        study.sample()
        study.score()
        return {"the same prompts": study.pilot(), "other prompts": study.held_out()}


def weighed(pilot: vp.Pilot, solution: vp.Solution, k: int) -> Float:
    """Gain of each prompt, averaged over all choices of k, (N, values shown)."""
    names = [pilot.values.index(name) for name in SHOWN]
    weights = np.array([solution.weights[name] for name in pilot.values])
    groups = pilot.groups()
    return (expect(groups, weights, k).prompt_levels - groups.means)[:, names]


def decoded(pilot: vp.Pilot, solution: vp.Solution, k: int) -> Float:
    """Mean gain of the answers that decoders of k draw for each prompt, on the mean of all its candidates."""
    names = [pilot.values.index(name) for name in SHOWN]
    candidate = np.asarray(pilot.table["candidate"])
    answers: list[Float] = []
    for draw in range(KS[-1]):
        some = pilot.select(candidate // k == draw // k)
        chosen = vp.choose(some, replace(solution, candidates=k), seed=draw)
        drawn = np.flatnonzero(np.asarray(chosen.table["drawn"]))
        answers.append(chosen.array[drawn[np.argsort(chosen.prompt_index[drawn])]][:, names])
    return np.mean(answers, axis=0) - pilot.groups().means[:, names]


def compared(planned: Plan, known: vp.Pilot, drawn: dict[str, vp.Pilot], *, tuned: bool) -> list[str]:
    """A row for each k and each value."""
    rows: list[str] = []
    for k in KS:
        solution = planned[k if tuned else KS[-1]].solution
        said = weighed(known, solution, k)
        cells = [
            [f"{k}", name, f"{round(gain, 3) + 0.0:+.3f}"]
            for name, gain in zip(SHOWN, said.mean(axis=0), strict=True)
        ]
        ways: tuple[Callable[[vp.Pilot, vp.Solution, int], Float], ...] = (weighed, decoded)
        for name, pilot in drawn.items():
            for way in ways:
                got = way(pilot, solution, k)
                n = len(got)
                if name == "the same prompts":
                    se = (got - said).std(axis=0, ddof=1) / n**0.5
                else:
                    se = np.hypot(got.std(axis=0, ddof=1), said.std(axis=0, ddof=1)) / n**0.5
                for row, gain, error in zip(cells, got.mean(axis=0), se, strict=True):
                    row.append(f"{round(gain, 3) + 0.0:+.3f} ± {error:.3f}")
        rows += ["| " + " | ".join(row) + " |" for row in cells]
    return rows


def run(folder: Path = FOLDER) -> str:
    """Both tables, in gains on the base model."""
    known, drawn = vp.example_pilot(), fresh(folder)
    planned = vp.plan(known, PALETTE, ks=KS)
    heads = [
        "k",
        "gain in",
        "predicted",
        *(f"{name}, {way}" for name in drawn for way in ("expected", "decoded")),
    ]
    top = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    parts = [(__doc__ or "").split("\n\n", 1)[1].strip()]
    parts.append("Palette: " + ", ".join(f"{name} {entry}" for name, entry in PALETTE.items()) + ".")
    for tuned, title in ((True, "Weights of each k."), (False, "Weights of k = 16, at every k.")):
        parts += [title, "\n".join([*top, *compared(planned, known, drawn, tuned=tuned)])]
    return "\n\n".join(parts)
