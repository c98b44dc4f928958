"""The commands that train, that write what other trainers read, and that compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valuepalette.cli.shared import (
    COMMON,
    STUDY,
    Common,
    app,
    each,
    is_study,
    left_out,
    named,
    open_study,
    refuse,
    titled,
)

if TYPE_CHECKING:
    from valuepalette.study import Study

__all__ = [
    "compare",
    "distill",
    "export",
    "finetune",
]


@app.command(sort_key=8)
def finetune(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    beta: float | None = None,
    steps: int | None = None,
    prompts: int | None = None,
    answers: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    lora: int | None = None,
    whole: bool = False,
    correct: bool = False,
    save_every: int | None = None,
    report_to: tuple[str, ...] | None = None,
    common: Common = COMMON,
) -> int:
    """Train the model of a study towards palettes by reinforcement. Killed and run again, it goes on.

    The study's [model] must say top_k = 0, since the model that is trained is not truncated. What was asked is compared
    with what was got where the study holds prompts out. What is not said here is as the study's [finetune] says, or as
    below.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    beta
        The KL coefficient, 0.1; what is learned does not depend on it.
    steps
        Of the optimiser, 200.
    prompts
        In a step, 8.
    answers
        To each of them, 8.
    batch
        Answers in memory at a time, 8.
    learning_rate
        At the start: 1e-4 for an adapter and 1e-6 for a whole model.
    lora
        Rank of the adapter that is trained, 16.
    whole
        Train every weight instead of an adapter.
    correct
        Ask the trained model's answers for better weights, and train on with those, once.
    save_every
        Steps between checkpoints, 25: what a kill can cost.
    report_to
        "tensorboard" or "wandb"; those that are set up where not given.
    """
    options = _given(
        beta=beta,
        steps=steps,
        prompts=prompts,
        answers=answers,
        batch=batch,
        learning_rate=learning_rate,
        lora=lora,
        whole=whole,
        save_every=save_every,
        report_to=report_to,
    )
    run = open_study(study)
    return _train(
        run, "finetuning", palette, lambda name: run.finetune(name, correct=correct, **options), common
    )


@app.command(sort_key=9)
def distill(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    epochs: int | None = None,
    rows: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    lora: int | None = None,
    whole: bool = False,
    save_every: int | None = None,
    report_to: tuple[str, ...] | None = None,
    common: Common = COMMON,
) -> int:
    """Train the model of a study on its pilot, each answer weighted as a palette has it. No reward is in memory.

    Killed and run again, it goes on. What is not said here is as the study's [distill] says, or as below.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    epochs
        Passes over the pilot, 3.
    rows
        Answers in a step of the optimiser, 32.
    batch
        Of them in memory at a time, 8.
    learning_rate
        At the start: 2e-4 for an adapter and 1e-5 for a whole model.
    lora
        Rank of the adapter that is trained, 16.
    whole
        Train every weight instead of an adapter.
    save_every
        Steps between checkpoints, 25: what a kill can cost.
    report_to
        "tensorboard" or "wandb"; those that are set up where not given.
    """
    options = _given(
        epochs=epochs,
        rows=rows,
        batch=batch,
        learning_rate=learning_rate,
        lora=lora,
        whole=whole,
        save_every=save_every,
        report_to=report_to,
    )
    run = open_study(study)
    return _train(run, "distilling", palette, lambda name: run.distill(name, **options), common)


@app.command(sort_key=10)
def export(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    solution: Path | None = None,
    out: Path | None = None,
    kind: Literal["pairs", "sft"] = "pairs",
    layout: Literal["trl", "distilabel"] = "trl",
    count: int | None = None,
    beta: float = 0.1,
    labels: Literal["drawn", "score"] = "drawn",
    seed: int | None = None,
    common: Common = COMMON,
) -> int:
    """Write what other trainers read: preference pairs for DPO, or answers for SFT.

    Takes a study, or a scored pilot, a solution, and where the rows go:

        valuepalette export pilot.parquet --solution limit.json --out pairs.jsonl --beta 0.1

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or scored candidates with their responses.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    solution
        A solution's file, for a pilot: of --candidates limit for pairs, of the pilot's own number for answers.
    out
        Where the rows of a pilot go: .jsonl or .parquet.
    kind
        Pairs by rejection sampling, or answers drawn as the decoder draws them.
    layout
        What is to read them.
    count
        Pairs of a prompt at most, 4 where not given; answers of a prompt, 1 where not given.
    beta
        Of the DPO that reads the pairs.
    labels
        Draw the better of two by its chance, so that DPO's optimum is the palette's; or always take the better score.
    seed
        Of every draw from a pilot.
    """
    options: dict[str, Any] = {"layout": layout}
    options |= (
        {"beta": beta, "labels": labels, "pairs": count or 4} if kind == "pairs" else {"answers": count or 1}
    )
    impossible: list[str] = []
    if not is_study(source):
        refuse("a pilot", {"--palette": palette}, "a study")
        if solution is None or out is None:
            raise ValueError("a pilot must come with --solution and --out")
        _export(source, solution, out, kind, {**options, "seed": seed or 0})
        written = {"": out}
    else:
        refuse("a study", {"--solution": solution, "--out": out, "--seed": seed}, "a pilot")
        run = open_study(source)

        def step(name: str) -> Path:
            return run.export(name, kind, **options)

        written = dict(each(named(run, palette), impossible, step))
    common.say(
        "\n".join(titled(name, "", path) for name, path in written.items()),
        {"exports": [{"palette": name or None, "path": str(path)} for name, path in written.items()]},
    )
    return left_out(impossible)


@app.command(sort_key=11)
def compare(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    methods: str = "map-d,equal,best,joint,morl-d,map-d-random",
    runs: int = 20,
    bound: float = 6.0,
    answers: int = 4,
    steps: int | None = None,
    models: int = 3,
    common: Common = COMMON,
) -> int:
    """Align a study's model in several ways and judge all by its palette, on prompts that had no part in it.

    map-d: the palette's weights. equal, best, joint: what one would do without levels, on the same candidates.
    morl-d: weights at random; map-d-random: palettes at random. prompted: a system prompt that names the values, and
    prompted+map-d both. guided: the weights on every token. map-f, distill: the palette trained into the model.
    morl-f: weights at random, trained. soup, dpo, dpo-soup: models of one value each, mixtures of preferences, both.
    What a method has found is kept.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    methods
        Which, parted by commas.
    runs
        How many weights a method draws that draws them.
    bound
        Of the sum of such weights.
    answers
        How many answers to each prompt are drawn from a model that is not decoded.
    steps
        Of the optimiser for each model that is trained, in place of what [finetune] says; 100 where it says nothing.
    models
        How many models a method trains that draws its weights or mixes.
    """
    from valuepalette import comparing

    impossible: list[str] = []
    run = open_study(study)
    chosen = [name.strip() for name in methods.split(",") if name.strip()]

    def step(name: str) -> comparing.Comparison:
        return comparing.compare(
            run, name, chosen, runs=runs, bound=bound, answers=answers, steps=steps, models=models
        )

    found = list(each(named(run, palette), impossible, step))
    paths = {name: run.folder / "compare" / f"{name}.json" for name, _ in found}
    common.say(
        "\n\n".join(titled("", str(compared), paths[name]) for name, compared in found),
        {"comparisons": [compared.to_dict() for _, compared in found]},
    )
    return left_out(impossible)


def _given(*, lora: int | None, whole: bool, **options: Any) -> dict[str, Any]:
    """The options that were given; the rest is for the study to say, or for the trainer."""
    if whole and lora is not None:
        raise ValueError(f"--whole trains without an adapter, got --lora {lora} too")
    told = {name: option for name, option in options.items() if option is not None}
    return told | ({"lora": None} if whole else {} if lora is None else {"lora": lora})


def _train(run: Study, method: str, palette: Sequence[str], step: Any, common: Common) -> int:
    """Trains for each palette, and compares what was asked with what was got where prompts are held out."""
    impossible: list[str] = []
    lines: list[str] = []
    told: list[dict[str, Any]] = []
    for name, tuned in each(named(run, palette), impossible, step):
        about: dict[str, Any] = {"palette": name, "model": str(tuned.model), "seconds": tuned.seconds}
        text = f"trained in {tuned.seconds:.0f} s, {tuned.steps} steps"
        if run.prompts()[1] is not None:
            judged = run.evaluate(name, method, quiet=False)
            text += f"\n\n{judged}\n{judged.attained_text}"
            about |= {"attained": judged.attained, "evaluation": judged.to_dict()}
        lines.append(titled(name, text, tuned.model))
        told.append(about)
    common.say("\n\n".join(lines), {"models": told})
    return left_out(impossible)


def _export(source: Path, solution: Path, out: Path, kind: str, options: Mapping[str, Any]) -> None:
    from valuepalette.exporting import export_pairs, export_sft, write_rows
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution

    make = export_pairs if kind == "pairs" else export_sft
    write_rows(make(Pilot.read(source), Solution.load(solution), **options), out)
