"""The commands. What is heavy is imported by the command that needs it, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

if TYPE_CHECKING:
    from valuepalette.attainment import Evaluation
    from valuepalette.palette import Palette
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution
    from valuepalette.study import Study

__all__ = ["app", "main"]

app = App(
    name="valuepalette",
    help="Ask a language model for levels of several values at once, and get the weights that have them.",
    version=lambda: f"valuepalette {version('valuepalette')}",
    default_parameter=Parameter(show_default=False, negative=()),
    suppress_keyboard_interrupt=False,
)


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    json: bool = False
    """Print one line of JSON instead of text."""
    debug: bool = False
    """Show the traceback of an error."""

    def say(self, text: str, content: Mapping[str, Any]) -> None:
        if self.json or text:
            print(json.dumps(content, ensure_ascii=False) if self.json else text)


COMMON = Common()
STUDY = Path("study.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 where all went well, 1 after an error, which is one line on standard error."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            code = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        return _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it leaves
        return 1
    except Exception as error:
        if "--debug" in tokens:
            raise
        expected = isinstance(error, ValueError | TypeError | OSError | ModuleNotFoundError)
        kind = "" if expected else f"{type(error).__name__}: "
        return _fail(
            kind + (str(error) or type(error).__name__) + ("" if expected else " (--debug says where)")
        )


@app.command(sort_key=1)
def demo(*, debug: bool = False) -> None:
    """Show the whole of it on a real model: a palette, its weights, and the levels got on unseen prompts.

    Parameters
    ----------
    debug
        Show the traceback of an error.
    """
    from valuepalette import demo

    demo.run()


@app.command(sort_key=2)
def sample(study: Path = STUDY, /, *, common: Common = COMMON) -> None:
    """Draw the candidates of a study's prompts. Killed and run again, it goes on where it stopped.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    """
    run = _study(study)
    run.sample()
    own, out = run.prompts()
    drawn = {"pilot": len(own)} | ({} if out is None else {"held_out": len(out)})
    lines = [f"{run.folder / name}: candidates of {count} prompts" for name, count in drawn.items()]
    if own.repeated:
        lines.append(f"{own.repeated} prompts of the file were repeated and count once")
    common.say(
        "\n".join([*lines, f"Next: valuepalette score {study}"]),
        {"folder": str(run.folder), "prompts": drawn, "repeated": own.repeated},
    )


@app.command(sort_key=3)
def score(study: Path = STUDY, /, *, again: tuple[str, ...] = (), common: Common = COMMON) -> None:
    """Measure every value of a study on its candidates, one reward in memory at a time.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    again
        A value to measure anew, since its reward is another now; may be given several times.
    """
    run = _study(study)
    run.score(again=again)
    pilot = run.pilot()
    common.say(
        f"{run.folder / 'pilot'}\n{pilot.describe()}\nNext: valuepalette solve {study}",
        {"folder": str(run.folder), "values": list(pilot.values), "rows": pilot.rows},
    )


@app.command(sort_key=4)
def solve(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    ask: tuple[str, ...] = (),
    candidates: Annotated[str | None, Parameter(alias="-k")] = None,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str | None = None,
    seed: int | None = None,
    out: Path | None = None,
    common: Common = COMMON,
) -> int:
    """Find the weights of palettes, or the proof that a palette cannot be had.

    Takes a study, or a scored pilot with what is asked of its values:

        valuepalette solve pilot.parquet --ask "humor=q60" --ask "harmlessness=keep" -k 8

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or a pilot: Parquet, a folder of parts, CSV, JSONL.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    ask
        What is asked of a value of the pilot, "humor=q60", "length <= 60", "humor=P(< -2) <= 0.02" or, of some of
        the prompts, "humor @ audience=children = q95"; may be given several times, also of one value.
    candidates
        How many candidates the decoder will draw, or "limit" for fine-tuning; the pilot's number where not given.
    mode
        Re-weight answers (prompt) or prompts too (joint).
    weighting
        Of the prompts: "prompts", "rows", or a column of the pilot.
    seed
        Of the random blocks that calibrate a number of candidates below the pilot's.
    out
        Where to save the solution of a pilot; a study has its run folder.
    """
    if not _is_study(source):
        _refuse("a pilot", {"--palette": palette}, "a study")
        settings = {"candidates": _candidates(candidates), "mode": mode}
        settings |= {} if weighting is None else {"weighting": weighting}
        solutions = [("", _solve_pilot(source, ask, {**settings, "seed": seed or 0}), out)]
        if out is not None:
            solutions[0][1].save(out)
    else:
        given = {"--ask": ask, "--candidates": candidates, "--mode": mode, "--weighting": weighting}
        _refuse("a study", {**given, "--seed": seed, "--out": out}, "a pilot")
        run = _study(source)
        solutions = [
            (name, run.solve(name), run.folder / "solutions" / f"{name}.json")
            for name in _named(run, palette)
        ]
    text = "\n\n".join(_titled(name, str(solution), path) for name, solution, path in solutions)
    common.say(text, {"solutions": [_solved(*entry) for entry in solutions]})
    impossible = [name or "what is asked" for name, solution, _ in solutions if solution.certificate]
    return _fail(f"cannot be had: {', '.join(impossible)}") if impossible else 0


@app.command(sort_key=5)
def plan(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    ask: tuple[str, ...] = (),
    k: Annotated[tuple[int, ...], Parameter(name=["-k", "--candidates"])] = (),
    weighting: str | None = None,
    seed: int | None = None,
    answer_tokens: float | None = None,
    prompt_tokens: float | None = None,
    score_price: float = 0.0,
    finetune_tokens: float | None = None,
    train_price: float = 3.0,
    common: Common = COMMON,
) -> int:
    """Say how many candidates a palette takes: the smallest k, and levels, KL and cost at each.

    Takes a study, or a scored pilot with what is asked of its values:

        valuepalette plan pilot.parquet --ask "humor=+0.5" --ask "harmlessness=keep"

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or a pilot: Parquet, a folder of parts, CSV, JSONL.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    ask
        What is asked of a value of the pilot, as for `solve`; may be given several times.
    k
        A number of candidates to plan for; may be given several times. 2, 4, 8, … where none is.
    weighting
        Of a pilot's prompts: "prompts", "rows", or a column.
    seed
        Of the random blocks that calibrate a number of candidates below the pilot's.
    answer_tokens
        Tokens of an answer on average; the mean of the pilot's tokens where not given.
    prompt_tokens
        Tokens of a prompt, read once for all its candidates.
    score_price
        What scoring a token of a candidate costs, in generated tokens.
    finetune_tokens
        Tokens that fine-tuning would train on, times epochs: then from how many answers on it is cheaper.
    train_price
        What a trained token costs, in generated tokens.
    """
    costs = {
        "answer_tokens": answer_tokens,
        "prompt_tokens": prompt_tokens,
        "score_price": score_price,
        "finetune_tokens": finetune_tokens,
        "train_price": train_price,
        "ks": k or None,
    }
    if not _is_study(source):
        from valuepalette.planner import plan

        _refuse("a pilot", {"--palette": palette}, "a study")
        more = {} if weighting is None else {"weighting": weighting}
        plans = {"": plan(_scored(source, ask), _palette(ask), seed=seed or 0, **more, **costs)}
    else:
        _refuse("a study", {"--ask": ask, "--weighting": weighting, "--seed": seed}, "a pilot")
        run = _study(source)
        plans = {name: run.plan(name, **costs) for name in _named(run, palette)}
    common.say(
        "\n\n".join(_titled(name, str(found), None) for name, found in plans.items()),
        {"plans": [{"palette": name or None, **found.to_dict()} for name, found in plans.items()]},
    )
    impossible = [name or "what is asked" for name, found in plans.items() if found.smallest is None]
    return _fail(f"cannot be had: {', '.join(impossible)}") if impossible else 0


@app.command(sort_key=6)
def decode(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    solution: Path | None = None,
    out: Path | None = None,
    seed: int | None = None,
    common: Common = COMMON,
) -> int:
    """Answer the prompts held out as palettes ask: of each prompt's candidates one is drawn.

    Takes a study, or scored candidates, a solution, and where the answers go:

        valuepalette decode candidates.parquet --solution solution.json --out answers.parquet

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or scored candidates.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    solution
        A solution's file, for candidates.
    out
        Where the answers to candidates go, as Parquet.
    seed
        Of the draw from candidates.
    """
    impossible: list[str] = []
    if not _is_study(source):
        _refuse("candidates", {"--palette": palette}, "a study")
        if solution is None or out is None:
            raise ValueError("candidates must come with --solution and --out")
        _choose(source, solution, seed or 0).write(out)
        written = {"": out}
    else:
        _refuse("a study", {"--solution": solution, "--out": out, "--seed": seed}, "candidates")
        run = _study(source)
        answers = run.folder / "answers" / "decoding"
        names = [name for name, _ in _each(_named(run, palette), impossible, run.decode)]
        written = {name: answers / f"{name}.parquet" for name in names}
    common.say(
        "\n".join(_titled(name, "", path) for name, path in written.items()),
        {"answers": [{"palette": name or None, "path": str(path)} for name, path in written.items()]},
    )
    return _left_out(impossible)


@app.command(sort_key=7)
def evaluate(
    source: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    method: Literal["decoding", "finetuning", "distilling"] = "decoding",
    solution: Path | None = None,
    common: Common = COMMON,
) -> int:
    """Compare what was asked with what was got, on prompts that had no part in solving.

    Takes a study, or answers and the solution that they follow:

        valuepalette evaluate answers.parquet --solution solution.json

    Parameters
    ----------
    source
        The study's file, study.toml where none is named; or answers: scored candidates with their probabilities.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    method
        How the study's answers are made: by the decoder, or by a model that was trained, which answers first.
    solution
        A solution's file, for answers.
    """
    impossible: list[str] = []
    if not _is_study(source):
        _refuse("answers", {"--palette": palette}, "a study")
        if solution is None:
            raise ValueError("answers must come with --solution")
        judged = [("", _evaluate(source, solution))]
        paths: dict[str, Path | None] = {"": None}
    else:
        _refuse("a study", {"--solution": solution}, "answers")
        run = _study(source)

        def step(name: str) -> Evaluation:
            return run.evaluate(name, method, quiet=False)

        judged = list(_each(_named(run, palette), impossible, step))
        paths = {name: run.folder / "evaluation" / method / f"{name}.json" for name, _ in judged}
    text = "\n\n".join(_titled(name, str(found), paths[name]) for name, found in judged)
    common.say(
        text, {"evaluations": [{"palette": name or None, **found.to_dict()} for name, found in judged]}
    )
    return _left_out(impossible)


@app.command(sort_key=8)
def finetune(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    beta: float = 0.1,
    steps: int = 200,
    prompts: int = 8,
    answers: int = 8,
    batch: int = 8,
    learning_rate: float | None = None,
    lora: int = 16,
    whole: bool = False,
    correct: bool = False,
    save_every: int = 25,
    report_to: tuple[str, ...] | None = None,
    common: Common = COMMON,
) -> int:
    """Train the model of a study towards palettes by reinforcement. Killed and run again, it goes on.

    The study's [model] must say top_k = 0, since the model that is trained is not truncated. What was asked is compared
    with what was got where the study holds prompts out.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    beta
        The KL coefficient; what is learned does not depend on it.
    steps
        Of the optimiser.
    prompts
        In a step.
    answers
        To each of them.
    batch
        Answers in memory at a time.
    learning_rate
        At the start; 1e-4 for an adapter and 1e-6 for a whole model where not given.
    lora
        Rank of the adapter that is trained.
    whole
        Train every weight instead of an adapter.
    correct
        Ask the trained model's answers for better weights, and train on with those, once.
    save_every
        Steps between checkpoints: what a kill can cost.
    report_to
        "tensorboard" or "wandb"; those that are set up where not given.
    """
    options: dict[str, Any] = {
        "beta": beta,
        "steps": steps,
        "prompts": prompts,
        "answers": answers,
        "batch": batch,
        "learning_rate": learning_rate,
        "lora": None if whole else lora,
        "save_every": save_every,
        "report_to": report_to,
    }
    run = _study(study)
    return _train(
        run, "finetuning", palette, lambda name: run.finetune(name, correct=correct, **options), common
    )


@app.command(sort_key=9)
def distill(
    study: Path = STUDY,
    /,
    *,
    palette: tuple[str, ...] = (),
    epochs: int = 3,
    rows: int = 32,
    batch: int = 8,
    learning_rate: float | None = None,
    lora: int = 16,
    whole: bool = False,
    save_every: int = 25,
    report_to: tuple[str, ...] | None = None,
    common: Common = COMMON,
) -> int:
    """Train the model of a study on its pilot, each answer weighted as a palette has it. No reward is in memory.

    Killed and run again, it goes on.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    palette
        A palette of the study; may be given several times. All of them where none is named.
    epochs
        Passes over the pilot.
    rows
        Answers in a step of the optimiser.
    batch
        Of them in memory at a time.
    learning_rate
        At the start; 2e-4 for an adapter and 1e-5 for a whole model where not given.
    lora
        Rank of the adapter that is trained.
    whole
        Train every weight instead of an adapter.
    save_every
        Steps between checkpoints: what a kill can cost.
    report_to
        "tensorboard" or "wandb"; those that are set up where not given.
    """
    options: dict[str, Any] = {
        "epochs": epochs,
        "rows": rows,
        "batch": batch,
        "learning_rate": learning_rate,
        "lora": None if whole else lora,
        "save_every": save_every,
        "report_to": report_to,
    }
    run = _study(study)
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
    if not _is_study(source):
        _refuse("a pilot", {"--palette": palette}, "a study")
        if solution is None or out is None:
            raise ValueError("a pilot must come with --solution and --out")
        _export(source, solution, out, kind, {**options, "seed": seed or 0})
        written = {"": out}
    else:
        _refuse("a study", {"--solution": solution, "--out": out, "--seed": seed}, "a pilot")
        run = _study(source)

        def step(name: str) -> Path:
            return run.export(name, kind, **options)

        written = dict(_each(_named(run, palette), impossible, step))
    common.say(
        "\n".join(_titled(name, "", path) for name, path in written.items()),
        {"exports": [{"palette": name or None, "path": str(path)} for name, path in written.items()]},
    )
    return _left_out(impossible)


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
    steps: int = 100,
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
        Of the optimiser for each model that is trained.
    models
        How many models a method trains that draws its weights or mixes.
    """
    from valuepalette import comparing

    impossible: list[str] = []
    run = _study(study)
    chosen = [name.strip() for name in methods.split(",") if name.strip()]

    def step(name: str) -> comparing.Comparison:
        return comparing.compare(
            run, name, chosen, runs=runs, bound=bound, answers=answers, steps=steps, models=models
        )

    found = list(_each(_named(run, palette), impossible, step))
    paths = {name: run.folder / "compare" / f"{name}.json" for name, _ in found}
    common.say(
        "\n\n".join(_titled("", str(compared), paths[name]) for name, compared in found),
        {"comparisons": [compared.to_dict() for _, compared in found]},
    )
    return _left_out(impossible)


@app.command(sort_key=12)
def serve(
    study: Path = STUDY, /, *, host: str | None = None, port: int | None = None, debug: bool = False
) -> None:
    """Serve a study's palettes behind OpenAI's protocol: the model's name carries the palette.

    The key that clients must bring is in the environment, VALUEPALETTE_KEY unless the study names another.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    host
        Where to listen; the study's, else 127.0.0.1.
    port
        The study's, else 8000.
    debug
        Show the traceback of an error.
    """
    from valuepalette.server.running import serve

    serve(_study(study), host=host, port=port)


@app.command(sort_key=13)
def values(source: Path | None = None, /, *, common: Common = COMMON) -> None:
    """List the values that can be measured, and how each is written in a study.

    Parameters
    ----------
    source
        A folder of rewards learned from data, or a study that names some: those alone, with their quality.
    """
    from dataclasses import asdict

    from valuepalette.rewards.listing import list_learned, list_rewards, listing

    found = list_rewards() if source is None else list_learned(source)
    common.say(listing(found), {"values": [asdict(entry) for entry in found]})


@app.command(sort_key=14)
def doctor(*, common: Common = COMMON) -> None:
    """Say what is installed, what is missing, and the command it comes with."""
    from dataclasses import asdict

    from valuepalette.doctor import examine, report

    findings = examine()
    common.say(report(findings), {"packages": [{**asdict(found), "fits": found.fits} for found in findings]})


def _train(run: Study, method: str, palette: Sequence[str], step: Any, common: Common) -> int:
    """Trains for each palette, and compares what was asked with what was got where prompts are held out."""
    impossible: list[str] = []
    lines: list[str] = []
    told: list[dict[str, Any]] = []
    for name, tuned in _each(_named(run, palette), impossible, step):
        about: dict[str, Any] = {"palette": name, "model": str(tuned.model), "seconds": tuned.seconds}
        text = f"trained in {tuned.seconds:.0f} s, {tuned.steps} steps"
        if run.prompts()[1] is not None:
            judged = run.evaluate(name, method, quiet=False)
            text += f"\n\n{judged}\n{judged.attained_text}"
            about |= {"attained": judged.attained, "evaluation": judged.to_dict()}
        lines.append(_titled(name, text, tuned.model))
        told.append(about)
    common.say("\n\n".join(lines), {"models": told})
    return _left_out(impossible)


def _study(path: Path) -> Study:
    from valuepalette.study import Study

    return Study.read(path)


def _is_study(path: Path) -> bool:
    return path.suffix == ".toml"


def _named(run: Study, palettes: Sequence[str]) -> Sequence[str]:
    if not run.palettes:
        raise ValueError(f"{run.settings.path}: has no palette; add one as [palettes.NAME]")
    for name in palettes:
        if name not in run.palettes:
            raise ValueError(f"--palette must be one of {', '.join(run.palettes)}, got {name!r}")
    return palettes or run.palettes


def _each(names: Iterable[str], impossible: list[str], step: Any) -> Iterable[tuple[str, Any]]:
    """A step for each palette; one that cannot be had is put aside and does not stop the others."""
    from valuepalette.solution import Infeasible

    for name in names:
        try:
            yield name, step(name)
        except Infeasible:
            impossible.append(name)


def _scored(source: Path, asks: Sequence[str]) -> Pilot:
    """A pilot of which something is asked."""
    from valuepalette.pilot import Pilot

    pilot = Pilot.read(source)
    if not asks:
        raise ValueError(
            f'a pilot must come with --ask, such as --ask "{(pilot.values or ("humor",))[0]}=q60"'
        )
    return pilot


def _solve_pilot(source: Path, asks: Sequence[str], settings: Mapping[str, Any]) -> Solution:
    from valuepalette.solving import solve

    return solve(_scored(source, asks), _palette(asks), on_infeasible="return", **settings)


def _choose(source: Path, solution: Path, seed: int) -> Pilot:
    from valuepalette.decoding import choose
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution

    return choose(Pilot.read(source), Solution.load(solution), seed=seed)


def _evaluate(source: Path, solution: Path) -> Evaluation:
    from valuepalette.evaluation import evaluate
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution

    return evaluate(Pilot.read(source), Solution.load(solution))


def _export(source: Path, solution: Path, out: Path, kind: str, options: Mapping[str, Any]) -> None:
    from valuepalette.exporting import export_pairs, export_sft, write_rows
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution

    make = export_pairs if kind == "pairs" else export_sft
    write_rows(make(Pilot.read(source), Solution.load(solution), **options), out)


def _palette(asks: Sequence[str]) -> Palette:
    """`humor=q60`, `humor = >= q60`, `length <= 60` or `humor @ audience=children = q95`, one entry each."""
    from valuepalette.palette import Palette

    entries: dict[str, list[str]] = {}
    cohorts: dict[str, dict[str, list[str]]] = {}
    for ask in asks:
        match = re.fullmatch(r"\s*([^=<>@]+?)\s*(?:@\s*([^=<>]+=[^=<>]+?)\s*)?(>=|<=|==|=)\s*(.+?)\s*", ask)
        if match is None:
            raise ValueError(f'--ask must be NAME=ENTRY, such as "humor=q60", got {ask!r}')
        name, cohort, relation, entry = match.groups()
        of = entries if cohort is None else cohorts.setdefault(cohort, {})
        of.setdefault(name, []).append(entry if relation == "=" else f"{relation} {entry}")
    return Palette(entries, cohorts=cohorts)


def _candidates(given: str | None) -> int | str | None:
    if given is None or given == "limit":
        return given
    if not given.isdecimal():
        raise ValueError(f'--candidates must be a whole number or "limit", got {given!r}')
    return int(given)


def _refuse(what: str, options: Mapping[str, object], where: str) -> None:
    given = [name for name, entry in options.items() if entry not in (None, ())]
    if given:
        raise ValueError(f"{given[0]} goes with {where}, got {what}")


def _titled(name: str, text: str, path: Path | None) -> str:
    lines = [f"{name}:" if name else "", text, f"written to {path}" if path else ""]
    return "\n".join(line for line in lines if line)


def _solved(name: str, solution: Solution, path: Path | None) -> dict[str, Any]:
    """A solution as one line of JSON can hold it; the file has the rest."""
    whole = solution.to_dict()
    features = list(solution.features)

    def named(numbers: Sequence[float | None]) -> dict[str, float | None]:
        return dict(zip(features, numbers, strict=True))

    return {
        "palette": name or None,
        "path": None if path is None else str(path),
        "status": solution.status.name,
        "asked": solution.asked,
        "weights": named(whole["weights"]),
        "levels": named(whole["levels"]),
        "levels_se": named(whole["levels_se"]),
        "base": dict(solution.base),
        "candidates": solution.candidates,
        "mode": solution.mode,
        "kl": solution.kl,
        "certificate": None if solution.certificate is None else str(solution.certificate),
    }


def _left_out(impossible: Sequence[str]) -> int:
    if not impossible:
        return 0
    return _fail(f"cannot be had: {', '.join(impossible)}; `valuepalette solve` says why")


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"valuepalette: {' '.join(message.split())}", file=sys.stderr)
    return 1
