"""Comparing: several ways to align, judged by one palette on the same unseen prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from valuepalette.baselines.choosing import asked_of
from valuepalette.comparing.bench import Bench, LeftOutError
from valuepalette.comparing.comparison import Comparison, Cost, Point, Run
from valuepalette.comparing.methods import METHODS
from valuepalette.comparing.trained import PREFERRED, TRAINED
from valuepalette.folders import alone, digest, read_json, write_json
from valuepalette.solution import Infeasible, Solution
from valuepalette.study import Study

__all__ = ["SCALES", "Comparison", "Cost", "Point", "Run", "compare"]

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""What a palette's weights are multiplied by for the over-optimisation curve."""

_FORMAT = 1


def compare(
    study: Study,
    palette: str,
    methods: Sequence[str] = ("map-d", "equal", "best", "joint", "morl-d", "map-d-random"),
    *,
    runs: int = 20,
    bound: float = 6.0,
    answers: int = 4,
    steps: int | None = None,
    models: int = 3,
    quiet: bool = False,
) -> Comparison:
    """Aligns the study's model in several ways and judges all by `palette` on the prompts held out.

    methods  names out of `METHODS`; the paper's Section 3.3 and B.5, and what a sceptic asks for
    runs     how many λ are drawn for a method that draws them
    bound    of their sum, raw units (the paper's 6)
    answers  how many answers to each prompt are drawn from a model that is not decoded, so that its levels are sure
    steps    of the optimiser for each model that is trained, in place of the study's [finetune]; 100 where it says none
    models   how many models a method trains that draws its weights or mixes

    Writes `compare/<palette>.json` in the run folder. What a method has found is kept in `compare/<palette>/`, so that
    a run that was stopped goes on, and another method costs only itself; with other settings it is found anew, but for
    a model that was begun with others, which is left out. Raises
    Infeasible where the palette cannot be had, and ValueError for a method that is not known.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {unknown[0]!r}")
    if not methods:
        raise ValueError(f"methods must name at least one of {', '.join(METHODS)}, got none")
    for name, number in {"runs": runs, "answers": answers, "steps": steps, "models": models}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    measured = study.pilot().values
    if strange := [name for name in study.settings.preferences if name not in measured]:
        raise ValueError(f"[preferences] {strange[0]} must be a value of the pilot, {', '.join(measured)}")
    solution = study.solve(palette)
    if solution.certificate is not None:
        raise Infeasible(solution)
    judged = study.evaluate(palette)
    values = tuple(row.name for row in asked_of(judged))
    folder = study.folder / "compare" / palette
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Run] = []
    left_out: dict[str, str] = {}
    with alone(folder):
        for name in dict.fromkeys(methods):
            bench = Bench(
                study=study,
                palette=palette,
                solution=solution,
                values=values,
                folder=folder / name,
                runs=runs,
                bound=bound,
                seed=study.settings.seed,
                answers=answers,
                training=_training(study, steps),
                models=models,
                quiet=quiet,
            )
            try:
                found += _kept(bench, name)
            except LeftOutError as why:
                left_out[name] = str(why)
        if not found:
            raise ValueError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
        compared = Comparison(
            palette, values, tuple(bench.checks), tuple(found), left_out, _curve(bench), solution
        )
        compared.save(folder.parent / f"{palette}.json")
    return compared


def _kept(bench: Bench, method: str) -> list[Run]:
    """The runs of a method: those that were kept, where nothing that they depend on has changed."""
    path = bench.folder.with_suffix(".json")
    told = {
        "solution": digest(bench.solution.to_dict()),
        "held_out": digest(bench.held_out.array.tolist()),
        "settings": [bench.runs, bench.bound, bench.seed, bench.answers, bench.models],
    }
    if method in TRAINED:
        table = bench.study.settings.distill if method == "distill" else bench.training
        told["training"] = {name: entry for name, entry in table.items() if name != "save_every"}
    if method in PREFERRED and bench.study.settings.preferences:
        told["preferences"] = digest(bench.preferences)
    if path.is_file():
        recorded = read_json(path, _FORMAT)
        if recorded["of"] == told:
            return [Run.from_dict(run) for run in recorded["runs"]]
    found = list(METHODS[method](bench))
    write_json(path, {"format": _FORMAT, "of": told, "runs": [run.to_dict() for run in found]})
    return found


def _training(study: Study, steps: int | None) -> dict[str, Any]:
    told = {"steps": 100, **study.settings.finetune}
    return told if steps is None else {**told, "steps": steps}


def _curve(bench: Bench) -> tuple[Point, ...]:
    """What scaling the palette's weights does to every value: the optimised rise, a second opinion may not."""
    weights = {name: weight for name, weight in bench.solution.weights.items() if weight}
    if any(name not in bench.pilot.values for name in weights):
        return ()
    points: list[Point] = []
    for scale in SCALES:
        scaled = {name: float(scale * weight) for name, weight in weights.items()}
        other = Solution.from_weights(
            bench.pilot, scaled, bench.k, weighting=bench.solution.weighting, seed=bench.seed
        )
        judged = bench.choice(other)
        gains = {row.name: float(np.float64(row.gain)) for row in judged.rows}
        points.append(Point(scale, gains, judged.kl))
    return tuple(points)
