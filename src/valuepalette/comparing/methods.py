"""The methods that can be compared: each makes aligned models for a palette and says what they have and cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace

import numpy as np

from valuepalette.baselines.choosing import usual_choices
from valuepalette.baselines.guiding import guide
from valuepalette.baselines.prompting import system_prompt
from valuepalette.baselines.weighting import palette_weights, simplex_weights
from valuepalette.comparing.bench import Bench, LeftOutError, levels_of
from valuepalette.comparing.comparison import Cost, Run
from valuepalette.comparing.trained import TRAINED
from valuepalette.decoding import choose
from valuepalette.engines import Sampling
from valuepalette.palette import Palette
from valuepalette.solving import solve
from valuepalette.study import Prompts

__all__ = ["METHODS"]


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
        Palette(levels_of(bench.solution)),
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
        about = bench.pilot.metadata.rewards
        named = dict.fromkeys(about[value]["reward"] for value in weights)
        rewards = {name: stack.enter_context(closing(bench.study.reward(name))) for name in named}
        guided = TransformersEngine(engine.loaded, template=settings.template, guide=guide(rewards, weights))
        answers = bench.collect(guided, "held_out", out, 1, settings.sampling)
    minutes = (time.monotonic() - start) / 60
    tokens = float(np.mean(np.asarray(answers.table["tokens"])))
    yield Run("guided", "", bench.judge(answers, bench.held_out), Cost(tokens, 0, minutes))


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
    **TRAINED,
}
"""By the name that `--methods` takes."""
