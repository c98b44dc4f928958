"""A study: one file that says what, one folder that holds what came of it; each step can be killed and run again."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from valuepalette import collecting
from valuepalette.attainment import Evaluation
from valuepalette.clusters.actors import ActorEngine, Cluster
from valuepalette.clusters.llm import ProcessorEngine
from valuepalette.decoding import choose
from valuepalette.engines import Engine, Prompt
from valuepalette.evaluation import evaluate
from valuepalette.exporting import Row, export_pairs, export_sft, read_pairs, write_rows
from valuepalette.folders import alone, begin, digest
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot, read_prompts
from valuepalette.planner import plan
from valuepalette.plans import Plan
from valuepalette.rewards import Reward
from valuepalette.settings import Settings, read_settings
from valuepalette.solution import Infeasible, Solution
from valuepalette.solving import solve
from valuepalette.training import Task, Tuned

__all__ = ["Prompts", "Study"]

_FORMAT = 1
_METHOD = "decoding"
_TRAINED = ("finetuning", "distilling")


class Prompts(list[Prompt]):
    """Prompts, all different, with the columns that belong to them; `repeated` of the file's were left out."""

    def __init__(
        self, prompts: Sequence[Prompt], columns: Mapping[str, Sequence[Any]], repeated: int = 0
    ) -> None:
        super().__init__(prompts)
        self.columns, self.repeated = columns, repeated

    def chosen(self, rows: Sequence[int]) -> Prompts:
        """Some of them, in the order given."""
        columns = {name: [entries[row] for row in rows] for name, entries in self.columns.items()}
        return Prompts([self[row] for row in rows], columns, self.repeated)


class Study:
    """The steps of a study. What takes long, sampling and scoring, goes on where it stopped; the rest is redone.

        study = Study.read("study.toml")
        study.sample()
        study.score()
        for name in study.palettes:
            print(study.evaluate(name))

    `open_engine` and `rewards` stand in for what the file names: a function that opens the engine, and functions that
    open rewards, by the name of the value.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_engine: Callable[[], Engine] | None = None,
        rewards: Mapping[str, collecting.Line] | None = None,
    ) -> None:
        self.settings = settings
        self.folder = settings.folder
        self._open_engine = open_engine
        self._rewards = {**settings.values, **(rewards or {})}

    @classmethod
    def read(cls, path: str | os.PathLike[str], **stand_ins: Any) -> Study:
        """Reads and checks the file; see `settings.read_settings` for what is refused."""
        return cls(read_settings(path), **stand_ins)

    @property
    def palettes(self) -> tuple[str, ...]:
        return tuple(self.settings.palettes)

    def prompts(self) -> tuple[Prompts, Prompts | None]:
        """The pilot's prompts, and those held out: a share drawn by the seed, or a file of their own."""
        settings = self.settings
        own = self._read_prompts(settings.prompts_path)
        if settings.held_out_path is not None:
            return own, self._read_prompts(settings.held_out_path)
        if settings.held_out is None:
            return own, None
        out = round(settings.held_out * len(own))
        if not 0 < out < len(own):
            raise ValueError(
                f"[prompts] held_out must leave a prompt on both sides, got {settings.held_out} of {len(own)} prompts"
            )
        order = np.random.default_rng(settings.seed).permutation(len(own)).tolist()
        return own.chosen(sorted(order[out:])), own.chosen(sorted(order[:out]))

    def task(self) -> Task:
        """What a trainer is to learn on: the pilot's prompts, and everything else as the study says."""
        settings, (own, _) = self.settings, self.prompts()
        return Task(
            model=settings.model,
            prompts=own,
            sampling=settings.sampling,
            rewards=self._rewards,
            columns=own.columns,
            template=settings.template,
            dtype=settings.dtype,
            device=settings.device,
            seed=settings.seed,
        )

    def sample(self, *, ray: bool | None = None, actors: int | None = None, quiet: bool = False) -> None:
        """Draws the candidates of the pilot and of the prompts held out; opens the model only if some are missing.

        ray     on a Ray cluster (docs/cluster.md); None for what the study says
        actors  how many there; None for what the study says, else one for each device
        """
        cluster = self._cluster(ray, actors)
        settings = self.settings
        own, out = self.prompts()
        sampling = {**asdict(settings.sampling), "stop": list(settings.sampling.stop)}
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            begin(
                self.folder,
                {
                    "model": {
                        "id": settings.model,
                        "template": settings.template,
                        "dtype": settings.dtype,
                        **sampling,
                    },
                    "prompts": _told(own),
                    "held_out": _told(out),
                    "pilot": {
                        "candidates": settings.candidates,
                        "held_out_candidates": self._held_out_candidates if out else None,
                        "shard": settings.shard,
                        "logprobs": settings.logprobs,
                    },
                    "run": {"seed": settings.seed},
                },
                _FORMAT,
            )
        wanted = [("pilot", own, settings.candidates)]
        if out is not None:
            wanted.append(("held_out", out, self._held_out_candidates))
        if all(collecting.finished(self.folder / name) for name, _, _ in wanted):
            return
        self._check_values()
        engine = self.engine() if cluster is None else self._spread(cluster)
        try:
            for name, prompts, k in wanted:
                collecting.sample(
                    engine,
                    prompts,
                    self.folder / name,
                    k=k,
                    sampling=settings.sampling,
                    seed=settings.seed,
                    columns=prompts.columns,
                    shard=settings.shard,
                    logprobs=settings.logprobs,
                    quiet=quiet,
                )
        finally:
            engine.close()

    def score(
        self,
        *,
        again: Collection[str] = (),
        ray: bool | None = None,
        actors: int | None = None,
        quiet: bool = False,
    ) -> None:
        """Measures every value on both sets of candidates, one reward at a time; `again` names those to redo.

        `ray` and `actors` are as for `sample`.
        """
        cluster = self._cluster(ray, actors)
        folders = [self._sampled("pilot")]
        if self._holds_out:
            folders.append(self._sampled("held_out"))
        collecting.score_all(
            folders, self._rewards, model=self.settings.model, again=again, crew=cluster, quiet=quiet
        )

    def score_folder(self, folder: Path, *, quiet: bool = False) -> Pilot:
        """Other candidates, as `collecting.sample` left them, with every value of the study."""
        return collecting.score(folder, self._rewards, model=self.settings.model, quiet=quiet)

    def pilot(self) -> Pilot:
        """The scored pilot."""
        return self._scored("pilot")

    def held_out(self) -> Pilot:
        """The scored candidates of the prompts held out."""
        if not self._holds_out:
            raise ValueError(
                "[prompts] must have held_out or held_out_path, since palettes are tried on other prompts"
            )
        return self._scored("held_out")

    def preferences(self, value: str) -> list[Row]:
        """The pairs of a value's file under `[preferences]`, but those that answer a prompt held out."""
        _, out = self.prompts()
        return read_pairs(
            self.settings.preferences[value],
            self._scored("pilot").metadata,
            without=out or (),
            seed=self.settings.seed,
        )

    def engine(self) -> Engine:
        """Opens the engine; whoever asks closes it."""
        return self._opener()()

    def _opener(self) -> Callable[[], Engine]:
        """Opens the engine wherever it is called."""
        if self._open_engine is not None:
            return self._open_engine
        from valuepalette.engines.opening import open_engine

        told = self.settings
        return partial(
            open_engine,
            told.model,
            dtype=told.dtype,
            device=told.device,
            template=told.template,
            base_url=told.base_url,
            limits=told.limits,
        )

    def _cluster(self, ray: bool | None, actors: int | None) -> Cluster | None:
        told = self.settings
        if not (told.engine == "ray" if ray is None else ray):
            if actors is not None:
                raise ValueError(f"actors go with ray, got {actors} without it")
            return None
        return Cluster(actors or told.actors, told.device)

    def _spread(self, cluster: Cluster) -> ActorEngine | ProcessorEngine:
        """The engine, wherever the cluster has a device for it."""
        told = self.settings
        scheme, _, rest = told.model.partition(":")
        if self._open_engine is None and scheme == "openai":
            raise ValueError(
                f"ray must be left out with {told.model}: its server is asked from one process, within [model] limits"
            )
        if self._open_engine is None and scheme == "vllm":
            return ProcessorEngine(rest, cluster, template=told.template, dtype=told.dtype)
        return ActorEngine(self._opener(), cluster)

    def reward(self, name: str) -> Reward:
        """Opens the reward of a value; whoever asks closes it."""
        return collecting.open_line(name, self._rewards[name], self.settings.model)

    @property
    def rewards(self) -> tuple[str, ...]:
        """The values as the file names them, second opinions among them."""
        return tuple(self._rewards)

    def solve(self, palette: str) -> Solution:
        """Solves a palette of the study and writes `solutions/<palette>.json`, also where it is infeasible."""
        settings = self.settings
        pilot, wanted = self._posed(palette)
        solution = solve(pilot, wanted, seed=settings.seed, on_infeasible="return", **settings.solve)
        path = self.folder / "solutions" / f"{palette}.json"
        path.parent.mkdir(exist_ok=True)
        solution.save(path)
        return solution

    def plan(self, palette: str, **more: Any) -> Plan:
        """A palette of the study at every number of candidates; `more` is told to `plan` as it is. Writes nothing."""
        pilot, wanted = self._posed(palette)
        told = {key: entry for key, entry in self.settings.solve.items() if key != "candidates"}
        return plan(pilot, wanted, seed=self.settings.seed, **told, **more)

    def decode(self, palette: str) -> Pilot:
        """Answers the prompts held out as the palette asks, from the candidates that are there.

        Writes `answers/decoding/<palette>.parquet`: every candidate with its probability, and the one drawn. Raises
        Infeasible where the palette cannot be had.
        """
        return self._decoded(palette)[0]

    def finetune(self, palette: str, *, correct: bool = False, quiet: bool = False, **options: Any) -> Tuned:
        """Trains the model towards a palette by reinforcement, in `models/finetuning/<palette>`.

        The palette is solved for k → ∞, whatever `[solve]` says. With `correct`, the trained model answers the pilot's
        prompts anew, and training goes on from it with the weights that its answers ask for. `options` are those of
        `valuepalette.training.finetuning.finetune`; what they leave out is as the study's [finetune] says.
        """
        from valuepalette.training.correcting import corrected
        from valuepalette.training.finetuning import finetune

        options = _training(self.settings.finetune, options)
        folder, solution = self._trained_for("finetuning", palette, "limit")
        tuned = finetune(self.task(), solution, folder, quiet=quiet, **options)
        if not correct:
            return tuned
        own, _ = self.prompts()
        fresh = self.answers_of(tuned, own, folder / "fresh", self.settings.candidates, quiet=quiet)
        better = corrected(solution, fresh)
        return finetune(self.task(), better, folder / "corrected", start=tuned, quiet=quiet, **options)

    def distill(self, palette: str, *, quiet: bool = False, **options: Any) -> Tuned:
        """Trains the model on the pilot's candidates, weighted by the palette, in `models/distilling/<palette>`.

        The palette is solved for the pilot's K, whatever `[solve]` says. `options` are those of
        `valuepalette.training.distilling.distill`; what they leave out is as the study's [distill] says.
        """
        from valuepalette.training.distilling import distill

        options = _training(self.settings.distill, options)
        folder, solution = self._trained_for("distilling", palette, None)
        return distill(self.task(), solution, self.pilot(), folder, quiet=quiet, **options)

    def export(self, palette: str, kind: Literal["pairs", "sft"], **options: Any) -> Path:
        """What other trainers read, written to `exports/<palette>-<kind>.jsonl`.

        Pairs are of the palette solved for k → ∞, answers of the palette solved for the pilot's K; `options` are those
        of `export_pairs` and `export_sft`.
        """
        rows = (
            export_pairs(self.pilot(), self._solved(palette, "limit"), seed=self.settings.seed, **options)
            if kind == "pairs"
            else export_sft(self.pilot(), self._solved(palette, None), seed=self.settings.seed, **options)
        )
        path = self.folder / "exports" / f"{palette}-{kind}.jsonl"
        write_rows(rows, path)
        return path

    def tuned(self, method: str, palette: str) -> Tuned:
        """The model that "finetuning" or "distilling" left, the corrected one where there is one."""
        folder = self._models(method, palette)
        return Tuned.load(folder / "corrected" if (folder / "corrected" / "tuned.json").is_file() else folder)

    def answer(self, method: str, palette: str, *, quiet: bool = False) -> Pilot:
        """What a trained model says to the prompts held out, as many answers to each as the base model gave.

        Writes `answers/<method>/<palette>.parquet`, scored.
        """
        tuned, out = self.tuned(method, palette), self.held_out()
        _, prompts = self.prompts()
        assert prompts is not None
        k = int(out.sizes.max())
        answers = self.answers_of(tuned, prompts, tuned.folder / "answers", k, quiet=quiet)
        answers.write(self.folder / "answers" / method / f"{palette}.parquet")
        return answers

    def answers_of(
        self, tuned: Tuned, prompts: Prompts, folder: Path, k: int, *, quiet: bool = False
    ) -> Pilot:
        """Scored answers of a trained model; what is there already stays."""
        settings, sampling = self.settings, self.settings.sampling
        if tuned.method == "distilling":  # it learned what was drawn, truncation and all
            sampling = replace(sampling, temperature=1.0, top_k=0, top_p=1.0)
        if not collecting.finished(folder):
            from valuepalette.engines.opening import open_engine

            engine = open_engine(
                str(tuned.model), dtype=settings.dtype, device=settings.device, template=settings.template
            )
            try:
                collecting.sample(
                    engine,
                    prompts,
                    folder,
                    k=k,
                    sampling=sampling,
                    seed=settings.seed + 1,
                    columns=prompts.columns,
                    shard=settings.shard,
                    quiet=quiet,
                )
            finally:
                engine.close()
        return collecting.score(folder, self._rewards, model=settings.model, quiet=quiet)

    def evaluate(self, palette: str, method: str = _METHOD, *, quiet: bool = True) -> Evaluation:
        """What was asked against what was got on the prompts held out; writes `evaluation/<method>/<palette>.json`.

        method  "decoding"; or "finetuning" or "distilling", whose model answers where it has not yet
        """
        if method == _METHOD:
            answers, solution = self._decoded(palette)
            judged = evaluate(answers, solution, checks=self.checks(answers))
        else:
            answers = self.answer(method, palette, quiet=quiet)
            solution = Solution.load(self._models(method, palette) / "solution.json")
            judged = evaluate(answers, solution, self.held_out(), checks=self.checks(answers))
        judged.save(self.folder / "evaluation" / method / f"{palette}.json")
        return judged

    def _models(self, method: str, palette: str) -> Path:
        if method not in _TRAINED:
            raise ValueError(f"method must be one of {_METHOD}, {', '.join(_TRAINED)}, got {method!r}")
        if palette not in self.settings.palettes:
            raise ValueError(f"palette must be one of {', '.join(self.palettes) or 'none'}, got {palette!r}")
        return self.folder / "models" / method / palette

    def _trained_for(self, method: str, palette: str, candidates: Any) -> tuple[Path, Solution]:
        """Where a model is trained, and the solution it is trained for, which is kept there."""
        folder = self._models(method, palette)
        solution = self._solved(palette, candidates)
        folder.mkdir(parents=True, exist_ok=True)
        solution.save(folder / "solution.json")
        return folder, solution

    def _solved(self, palette: str, candidates: Any) -> Solution:
        """A palette solved for another number of candidates than the study's; raises where it cannot be had."""
        told = {**self.settings.solve, "candidates": candidates}
        pilot, wanted = self._posed(palette)
        return solve(pilot, wanted, seed=self.settings.seed, **told)

    def _decoded(self, palette: str) -> tuple[Pilot, Solution]:
        out = self.held_out()
        solution = self.solve(palette)
        if solution.certificate is not None:
            raise Infeasible(solution)
        k = None if isinstance(solution.candidates, int) else out.candidates
        answers = choose(out, solution, seed=self.settings.seed, candidates=k)
        answers.write(self.folder / "answers" / _METHOD / f"{palette}.parquet")
        return answers, solution

    def _posed(self, palette: str) -> tuple[Pilot, Palette]:
        """The scored pilot, and a palette of the study that asks nothing of a check."""
        if palette not in self.settings.palettes:
            raise ValueError(f"palette must be one of {', '.join(self.palettes) or 'none'}, got {palette!r}")
        pilot, wanted = self.pilot(), self.settings.palettes[palette]
        for value in wanted.values:
            if value in self.checks(pilot):
                raise ValueError(f"[palettes.{palette}] {value} is a check: measured, never optimised")
        return pilot, wanted

    def _check_values(self) -> None:
        """Opens each reward once, which costs little, so that what cannot be scored is known before hours are spent."""
        measured: dict[str, str] = {}
        for name, line in self._rewards.items():
            reward = collecting.open_line(name, line, self.settings.model)
            measured |= {column.name: name for column in reward.columns}
            reward.close()
        for palette, wanted in self.settings.palettes.items():
            for value in wanted.values:
                if value not in measured:
                    raise ValueError(
                        f"[palettes.{palette}] {value} is not measured; [values] measures {', '.join(measured)}"
                    )
                if measured[value] in self.settings.checks:
                    raise ValueError(f"[palettes.{palette}] {value} is a check: measured, never optimised")

    @property
    def _holds_out(self) -> bool:
        return self.settings.held_out is not None or self.settings.held_out_path is not None

    @property
    def _held_out_candidates(self) -> int:
        """What a decoder draws: the k that is solved for."""
        k = self.settings.solve.get("candidates")
        return k if isinstance(k, int) else self.settings.candidates

    def _read_prompts(self, path: Path) -> Prompts:
        return _distinct(
            read_prompts(path, self.settings.prompts_format, self.settings.columns).to_pylist(), path
        )

    def _sampled(self, name: str) -> Path:
        folder = self.folder / name
        if not collecting.finished(folder):
            raise ValueError(f"{folder} is not sampled to its end: sample the study first")
        return folder

    def _scored(self, name: str) -> Pilot:
        folder = self._sampled(name)
        missing = collecting.unscored(folder, self._rewards)
        if missing:
            raise ValueError(f"{folder} is not scored by {', '.join(missing)}: score the study first")
        return Pilot.read(folder)

    def checks(self, pilot: Pilot) -> list[str]:
        """The columns of the rewards that are second opinions."""
        about = pilot.metadata.rewards
        return [value for value in pilot.values if about[value]["reward"] in self.settings.checks]


def _told(prompts: Prompts | None) -> dict[str, Any] | None:
    if prompts is None:
        return None
    return {"count": len(prompts), "sha256": digest([list(prompts), prompts.columns])}


def _distinct(rows: Sequence[Mapping[str, Any]], path: Path) -> Prompts:
    """Each prompt once: equal prompts would get equal candidates, and count for two where there is one."""
    prompts: list[Prompt] = []
    columns: dict[str, list[Any]] = {name: [] for name in rows[0] if name not in ("prompt", "messages")}
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        text = row.get("prompt")
        prompt: Prompt = row["messages"] if text is None else text
        place = first.setdefault(digest(prompt), len(prompts))
        if place == len(prompts):
            prompts.append(prompt)
            for name, entries in columns.items():
                entries.append(row[name])
            continue
        for name, entries in columns.items():
            if entries[place] != row[name]:
                raise ValueError(
                    f"{path.name}: row {number} (from 0), column {name}: differs from an equal prompt's before, "
                    f"{row[name]!r} and {entries[place]!r}"
                )
    return Prompts(prompts, columns, len(rows) - len(prompts))


def _training(table: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a study says of training, and what is said now, which counts; a learning rate is for an adapter or not."""
    switched = "lora" in options and (options["lora"] is None) != (table.get("lora", 0) is None)
    kept = {name: entry for name, entry in table.items() if not (switched and name == "learning_rate")}
    return {**kept, **options}
