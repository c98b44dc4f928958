"""The methods that can be compared: each makes aligned models for a palette and says what they have and cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from valuepalette import collecting
from valuepalette.attainment import Evaluation
from valuepalette.baselines.choosing import usual_choices
from valuepalette.baselines.guiding import guide
from valuepalette.baselines.prompting import system_prompt
from valuepalette.baselines.weighting import palette_weights, simplex_weights
from valuepalette.comparing.comparison import Cost, Run
from valuepalette.decoding import choose
from valuepalette.engines import Engine, Sampling
from valuepalette.evaluation import evaluate
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.solution import Infeasible, Solution
from valuepalette.solving import solve
from valuepalette.study import Prompts, Study

__all__ = ["METHODS", "Bench", "LeftOutError"]


class LeftOutError(Exception):
    """A method has nothing to show for this palette; the text says why."""


@dataclass
class Bench:
    """What a method works with: a study that is sampled and scored, a palette's solution, and how many runs to make.

    folder  where a method may keep what it samples and trains
    answers how many answers to each unseen prompt an undecoded model gives, so that its levels are as sure
    steps   of the optimiser for each model that is trained by reinforcement
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
    steps: int
    quiet: bool

    @cached_property
    def pilot(self) -> Pilot:
        return self.study.pilot()

    @cached_property
    def held_out(self) -> Pilot:
        return self.study.held_out()

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


def _decoded(bench: Bench) -> Iterator[Run]:
    """MAP-D: the palette's own weights."""
    yield Run("map-d", "", bench.choice(bench.solution), Cost(bench.k * bench.drawn))


def _usual(which: int, method: str) -> Callable[[Bench], Iterator[Run]]:
    def run(bench: Bench) -> Iterator[Run]:
        found = list(usual_choices(bench.pilot, bench.solution).values())[which]
        yield Run(method, "", bench.choice(found), Cost(bench.k * bench.drawn))

    return run


def _morl(bench: Bench) -> Iterator[Run]:
    """MORL-D: weights at random."""
    drawn = simplex_weights(
        bench.pilot,
        bench.values,
        bench.runs,
        bench.k,
        bound=bench.bound,
        weighting=bench.solution.weighting,
        seed=bench.seed,
    )
    for number, solution in enumerate(drawn, 1):
        yield Run("morl-d", f"λ {number}", bench.choice(solution), Cost(bench.k * bench.drawn))


def _palettes(bench: Bench) -> Iterator[Run]:
    """MAP-D with palettes at random, as MORL has weights."""
    drawn = palette_weights(
        bench.pilot,
        bench.values,
        bench.runs,
        bench.k,
        bound=bench.bound,
        weighting=bench.solution.weighting,
        seed=bench.seed,
    )
    for number, solution in enumerate(drawn.solutions, 1):
        yield Run("map-d-random", f"palette {number}", bench.choice(solution), Cost(bench.k * bench.drawn))


def _worded(bench: Bench) -> tuple[Prompts, Prompts, Sampling]:
    own, out = bench.study.prompts()
    assert out is not None, "a comparison needs prompts held out"
    sampling = bench.study.settings.sampling
    said = system_prompt(bench.solution, before=sampling.system_prompt)
    return own, out, replace(sampling, system_prompt=said)


def _prompted(bench: Bench) -> Iterator[Run]:
    """A system prompt that names the values; answers as they come."""
    _, out, sampling = _worded(bench)
    start = time.monotonic()
    with closing(bench.study.engine()) as engine:
        answers = bench.collect(engine, "held_out", out, bench.answers, sampling)
    minutes = (time.monotonic() - start) / 60
    tokens = float(np.mean(np.asarray(answers.table["tokens"])))
    yield Run("prompted", "", bench.judge(answers, bench.held_out), Cost(tokens, 0, minutes))


def _prompted_decoded(bench: Bench) -> Iterator[Run]:
    """The same system prompt with MAP-D on top, for the same levels."""
    own, out, sampling = _worded(bench)
    start = time.monotonic()
    with closing(bench.study.engine()) as engine:
        pilot = bench.collect(engine, "pilot", own, bench.study.settings.candidates, sampling)
        candidates = bench.collect(engine, "held_out", out, bench.k, sampling)
    minutes = (time.monotonic() - start) / 60
    solution = solve(
        pilot,
        levels_of(bench.solution),
        bench.k,
        weighting=bench.solution.weighting,
        seed=bench.seed,
        on_infeasible="return",
    )
    if solution.certificate is not None:
        raise LeftOutError(f"with the system prompt the palette cannot be had: {solution.certificate}")
    answers = choose(candidates, solution, seed=bench.seed)
    tokens = bench.k * float(np.mean(np.asarray(answers.table["tokens"])))
    yield Run("prompted+map-d", "", bench.judge(answers, bench.held_out), Cost(tokens, 0, minutes))


def _guided(bench: Bench) -> Iterator[Run]:
    """ARGS: the palette's weights on every token of one answer."""
    from valuepalette.engines.transformers import TransformersEngine

    weights = {name: weight for name, weight in bench.solution.weights.items() if weight}
    if not weights:
        raise LeftOutError("the palette's weights are all zero, so there is nothing to guide by")
    if derived := [name for name in weights if name not in bench.pilot.values]:
        raise LeftOutError(f"tokens cannot be guided by {derived[0]}, which is no value of an answer")
    _, out = bench.study.prompts()
    assert out is not None, "a comparison needs prompts held out"
    settings = bench.study.settings
    start = time.monotonic()
    with ExitStack() as stack:
        engine = stack.enter_context(closing(bench.study.engine()))
        if not isinstance(engine, TransformersEngine):
            raise LeftOutError(
                "tokens can only be guided where the model runs in this process, by transformers"
            )
        rewards = bench.study.open_rewards(weights)
        for reward in rewards.values():
            stack.enter_context(closing(reward))
        guided = TransformersEngine(engine.loaded, template=settings.template, guide=guide(rewards, weights))
        answers = bench.collect(guided, "held_out", out, 1, settings.sampling)
    minutes = (time.monotonic() - start) / 60
    tokens = float(np.mean(np.asarray(answers.table["tokens"])))
    yield Run("guided", "", bench.judge(answers, bench.held_out), Cost(tokens, 0, minutes))


def _tuned(method: str, name: str) -> Callable[[Bench], Iterator[Run]]:
    def run(bench: Bench) -> Iterator[Run]:
        study = bench.study
        try:
            if method == "finetuning":
                tuned = study.finetune(bench.palette, steps=bench.steps, quiet=bench.quiet)
            else:
                tuned = study.distill(bench.palette, quiet=bench.quiet)
        except Infeasible as proof:
            raise LeftOutError(f"for this the palette cannot be had: {proof}") from None
        except ValueError as refusal:
            raise LeftOutError(str(refusal)) from None
        answers = study.answer(method, bench.palette, quiet=bench.quiet)
        tokens = float(np.mean(np.asarray(answers.table["tokens"])))
        yield Run(
            name,
            "",
            bench.judge(answers, bench.held_out),
            Cost(tokens, tuned.tokens, tuned.seconds / 60),
        )

    return run


def levels_of(solution: Solution) -> Palette:
    """The palette's bounds as numbers, the same for another model."""
    derived = [str(spec) for spec in solution.resolved.specs if spec.tail or spec.cohort]
    if derived:
        raise LeftOutError(f"{derived[0]} is no plain value, and its bound is another on another model")
    entries: dict[str, object] = {}
    for name, lower, upper in zip(solution.features, solution.lower, solution.upper, strict=True):
        asked = [f">= {float(lower)!r}"] if math.isfinite(lower) else []
        asked += [f"<= {float(upper)!r}"] if math.isfinite(upper) else []
        if asked:
            entries[name] = f"== {float(lower)!r}" if lower == upper else asked
    return Palette(entries)


METHODS: Mapping[str, Callable[[Bench], Iterator[Run]]] = {
    "map-d": _decoded,
    "equal": _usual(0, "equal"),
    "best": _usual(1, "best"),
    "joint": _usual(2, "joint"),
    "morl-d": _morl,
    "map-d-random": _palettes,
    "prompted": _prompted,
    "prompted+map-d": _prompted_decoded,
    "guided": _guided,
    "map-f": _tuned("finetuning", "map-f"),
    "distill": _tuned("distilling", "distill"),
}
"""By the name that `--methods` takes."""
