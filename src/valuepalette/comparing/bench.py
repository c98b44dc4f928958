"""What a method of a comparison works with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from valuepalette import collecting
from valuepalette.attainment import Evaluation
from valuepalette.decoding import choose
from valuepalette.engines import Engine, Sampling
from valuepalette.evaluation import evaluate
from valuepalette.exporting import Row
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.study import Prompts, Study

__all__ = ["Bench", "LeftOutError", "levels_of"]


class LeftOutError(Exception):
    """A method has nothing to show for this palette; the text says why."""


@dataclass
class Bench:
    """What a method works with: a study that is sampled and scored, a palette's solution, and how many runs to make.

    folder    where a method may keep what it samples and trains
    answers   how many answers to each unseen prompt an undecoded model gives, so that its levels are as sure
    training  how a model is trained by reinforcement, in the words of `finetune`; other trainers take its steps
    models    how many models a method trains that draws its weights or mixes
    """

    study: Study
    palette: str
    solution: Solution
    values: tuple[str, ...]
    folder: Path
    runs: int
    bound: float
    seed: int
    answers: int
    training: Mapping[str, Any]
    models: int
    quiet: bool

    @cached_property
    def pilot(self) -> Pilot:
        return self.study.pilot()

    @cached_property
    def held_out(self) -> Pilot:
        return self.study.held_out()

    @cached_property
    def preferences(self) -> dict[str, list[Row]]:
        """The pairs of others, by value, of those values that have a file of them."""
        files = self.study.settings.preferences
        return {value: self.study.preferences(value) for value in self.values if value in files}

    @property
    def k(self) -> int:
        k = self.solution.candidates
        return k if isinstance(k, int) else int(self.held_out.sizes.min())

    @cached_property
    def checks(self) -> list[str]:
        return self.study.checks(self.held_out)

    @cached_property
    def drawn(self) -> float:
        """Tokens of one candidate of the base model, on average."""
        return float(np.mean(np.asarray(self.held_out.table["tokens"])))

    def judge(self, answers: Pilot, base: Pilot | None = None) -> Evaluation:
        """By the palette, whatever gave the answers."""
        return evaluate(answers, self.solution, base, checks=self.checks)

    def choice(self, other: Solution) -> Evaluation:
        """Another solution's choice among the held-out candidates, judged by the palette."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the solution is in joint mode")
            return self.judge(choose(self.held_out, other, seed=self.seed, candidates=self.k))

    def collect(self, engine: Engine, folder: str, prompts: Prompts, k: int, sampling: Sampling) -> Pilot:
        """Candidates of another engine or other settings, sampled and scored in the method's folder."""
        at = self.folder / folder
        if not collecting.finished(at):
            collecting.sample(
                engine,
                prompts,
                at,
                k=k,
                sampling=sampling,
                seed=self.seed,
                columns=prompts.columns,
                shard=self.study.settings.shard,
                quiet=self.quiet,
            )
        return self.study.score_folder(at, quiet=self.quiet)


def levels_of(solution: Solution) -> dict[str, object]:
    """The palette's bounds as numbers, the same for another model: entries of a palette."""
    derived = [str(spec) for spec in solution.resolved.specs if spec.tail or spec.cohort]
    if derived:
        raise LeftOutError(f"{derived[0]} is no plain value, and its bound is another on another model")
    entries: dict[str, object] = {}
    for name, lower, upper in zip(solution.features, solution.lower, solution.upper, strict=True):
        asked = [f">= {float(lower)!r}"] if math.isfinite(lower) else []
        asked += [f"<= {float(upper)!r}"] if math.isfinite(upper) else []
        if asked:
            entries[name] = f"== {float(lower)!r}" if lower == upper else asked
    return entries
