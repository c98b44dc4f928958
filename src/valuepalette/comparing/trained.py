"""Methods that train: the palette itself, weights at random, preferences, and soups of models of one value each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from valuepalette.baselines.souping import soup
from valuepalette.baselines.weighting import simplex_draws
from valuepalette.comparing.bench import Bench, LeftOutError, levels_of
from valuepalette.comparing.comparison import Cost, Run
from valuepalette.exporting import export_pairs
from valuepalette.solution import Infeasible, Solution
from valuepalette.solving import solve
from valuepalette.training import Tuned

__all__ = ["PREFERRED", "TRAINED"]

_BETA = 0.1
"""Of DPO, the paper's smaller one."""


def _palette(method: str, name: str) -> Callable[[Bench], Iterator[Run]]:
    """MAP-F and its like, as the study trains them."""

    def run(bench: Bench) -> Iterator[Run]:
        study = bench.study
        if method == "finetuning":
            tuned = study.finetune(bench.palette, quiet=bench.quiet, **bench.training)
        else:
            tuned = study.distill(bench.palette, quiet=bench.quiet)
        answers = study.answer(method, bench.palette, quiet=bench.quiet)
        tokens = float(np.mean(np.asarray(answers.table["tokens"])))
        cost = Cost(tokens, tuned.tokens, tuned.seconds / 60)
        yield Run(name, "", bench.judge(answers, bench.held_out), cost)

    return run


def _morl(bench: Bench) -> Iterator[Run]:
    """MORL-F: reinforcement with weights at random."""
    for number, weights in enumerate(simplex_draws(bench.values, bench.models, bench.bound, bench.seed), 1):
        solution = Solution.from_weights(bench.pilot, weights, "limit", weighting=bench.solution.weighting)
        tuned = _reinforced(bench, solution, bench.folder / str(number))
        yield _run(bench, "morl-f", f"λ {number}", tuned)


def _soup(bench: Bench) -> Iterator[Run]:
    """Rewarded soups: models reinforced for one value each, and averages of their weights."""
    tuned = {value: _reinforced(bench, _alone(bench, value), bench.folder / value) for value in bench.values}
    yield from _mixtures(bench, "soup", tuned)


def _dpo(bench: Bench) -> Iterator[Run]:
    """DPO on mixtures of preferences, each pair from one value's file, or labelled by its reward where it has none."""
    for number, shares in enumerate(_shares(bench), 1):
        tuned = _preferred(bench, shares, bench.folder / str(number))
        yield _run(bench, "dpo", _named(shares), tuned)


def _dpo_soup(bench: Bench) -> Iterator[Run]:
    """DPO on each value's preferences, and averages of these models' weights."""
    tuned = {value: _preferred(bench, {value: 1.0}, bench.folder / value) for value in bench.values}
    yield from _mixtures(bench, "dpo-soup", tuned)


def _reinforced(bench: Bench, solution: Solution, folder: Path) -> Tuned:
    from valuepalette.training.finetuning import finetune

    return finetune(bench.study.task(), solution, folder, quiet=bench.quiet, **bench.training)


def _preferred(bench: Bench, shares: Mapping[str, float], folder: Path) -> Tuned:
    """DPO on pairs of which each value gives its share."""
    from valuepalette.training.preferring import prefer

    rng = np.random.default_rng(bench.seed)
    sets = {value: _pairs(bench, value) for value in shares}
    size = min(len(rows) for rows in sets.values())
    chosen: list[Mapping[str, Any]] = []
    for value, share in shares.items():
        places = rng.permutation(len(sets[value]))[: round(share * size)]
        chosen += [sets[value][place] for place in places]
    if not chosen:
        raise LeftOutError("no prompt has two answers that a value tells apart")
    shared = {name: bench.training[name] for name in ("steps", "lora") if name in bench.training}
    return prefer(bench.study.task(), chosen, folder, beta=_BETA, quiet=bench.quiet, **shared)


def _pairs(bench: Bench, value: str) -> list[dict[str, Any]]:
    if value in bench.preferences:
        return bench.preferences[value]
    return export_pairs(
        bench.pilot, _alone(bench, value), beta=_BETA, pairs=2, labels="score", seed=bench.seed
    )


def _alone(bench: Bench, value: str) -> Solution:
    """The palette's bound on one value, and nothing else."""
    asked = {name: entry for name, entry in levels_of(bench.solution).items() if name == value}
    found = solve(bench.pilot, asked, "limit", weighting=bench.solution.weighting, seed=bench.seed)
    if not found.weights.array.any():
        raise LeftOutError(f"{value} is kept without weights, so there is no model to train for it alone")
    return found


def _mixtures(bench: Bench, method: str, tuned: Mapping[str, Tuned]) -> Iterator[Run]:
    """Averages of whole models; adapters are merged into their base first."""
    whole = {value: _merged(bench, one, bench.folder / f"{value}-whole") for value, one in tuned.items()}
    spent = [Cost(0, one.tokens, one.seconds / 60) for one in tuned.values()]
    trained, minutes = sum(cost.trained for cost in spent), sum(cost.minutes for cost in spent)
    for number, shares in enumerate(_shares(bench), 1):
        folder = bench.folder / f"mixed-{number}"
        mixed = Tuned(folder, method, {}, 0, 0, 0.0)
        if not (mixed.model / "config.json").is_file():
            soup({whole[value]: share for value, share in shares.items()}, mixed.model)
        found = _run(bench, method, _named(shares), mixed)
        # All mixtures share the models they are made of.
        part = len(_shares(bench))
        yield Run(
            method, found.setting, found.evaluation, Cost(found.cost.tokens, trained / part, minutes / part)
        )


def _merged(bench: Bench, tuned: Tuned, folder: Path) -> Path:
    """The whole model in float32, the adapter that was trained merged into its base."""
    from valuepalette.engines.loading import load_causal_lm

    if not folder.is_dir():
        from peft import PeftModel

        from valuepalette.training.running import calm

        loaded = load_causal_lm(bench.study.settings.model, dtype="float32", device="cpu")
        beside = folder.with_name(f".{folder.name}.part")  # a kill leaves no model half written
        with calm():
            whole: Any = PeftModel.from_pretrained(loaded.model, str(tuned.model))
            loaded.tokenizer.save_pretrained(beside)
            whole.merge_and_unload().save_pretrained(beside)
        beside.replace(folder)
    return folder


def _shares(bench: Bench) -> list[dict[str, float]]:
    """How values are mixed: of two from one end to the other, of more by draws from the simplex."""
    if len(bench.values) < 2:
        raise LeftOutError(f"there is nothing to mix with {', '.join(bench.values)} alone")
    if len(bench.values) == 2:
        ends: Any = np.linspace(0, 1, bench.models) if bench.models > 1 else np.array([0.5])
        rows: Any = np.column_stack([1 - ends, ends])
    else:
        rows = np.random.default_rng(bench.seed).dirichlet(np.ones(len(bench.values)), bench.models)
    return [dict(zip(bench.values, row.tolist(), strict=True)) for row in rows]


def _named(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:.0%} {value}" for value, share in shares.items())


def _run(bench: Bench, method: str, setting: str, tuned: Tuned) -> Run:
    """What a trained model says to the unseen prompts, judged."""
    _, out = bench.study.prompts()
    assert out is not None, "a comparison needs prompts held out"
    answers = bench.study.answers_of(tuned, out, tuned.folder / "answers", bench.answers, quiet=bench.quiet)
    tokens = float(np.mean(np.asarray(answers.table["tokens"])))
    cost = Cost(tokens, tuned.tokens, tuned.seconds / 60)
    return Run(method, setting, bench.judge(answers, bench.held_out), cost)


def _or_left_out(run: Callable[[Bench], Iterator[Run]]) -> Callable[[Bench], Iterator[Run]]:
    """A trainer's refusal, such as of a truncated pilot, leaves the method out and says why."""

    def guarded(bench: Bench) -> Iterator[Run]:
        try:
            yield from run(bench)
        except Infeasible as proof:
            raise LeftOutError(f"what it is trained for cannot be had: {proof}") from None
        except ValueError as refusal:
            raise LeftOutError(str(refusal)) from None

    return guarded


PREFERRED = ("dpo", "dpo-soup")
"""Those that learn from preferences."""
_METHODS: Sequence[tuple[str, Callable[[Bench], Iterator[Run]]]] = (
    ("map-f", _palette("finetuning", "map-f")),
    ("distill", _palette("distilling", "distill")),
    ("morl-f", _morl),
    ("soup", _soup),
    ("dpo", _dpo),
    ("dpo-soup", _dpo_soup),
)
TRAINED: Mapping[str, Callable[[Bench], Iterator[Run]]] = {
    name: _or_left_out(method) for name, method in _METHODS
}
"""Methods that train, by the name that `--methods` takes."""
