"""The commands from prompts to an evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from valuepalette.cli.shared import (
    COMMON,
    STUDY,
    Common,
    app,
    each,
    fail,
    is_study,
    left_out,
    named,
    open_study,
    refuse,
    titled,
)

if TYPE_CHECKING:
    from valuepalette.attainment import Evaluation
    from valuepalette.palette import Palette
    from valuepalette.pilot import Pilot
    from valuepalette.solution import Solution

__all__ = [
    "decode",
    "demo",
    "evaluate",
    "plan",
    "sample",
    "score",
    "solve",
]


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
def sample(
    study: Path = STUDY, /, *, ray: bool = False, actors: int | None = None, common: Common = COMMON
) -> None:
    """Draw the candidates of a study's prompts. Killed and run again, it goes on where it stopped.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    ray
        Draw on a Ray cluster, on one actor for each device; as `engine = "ray"` under `[run]`.
    actors
        How many actors.
    """
    run = open_study(study)
    run.sample(ray=ray or None, actors=actors)
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
def score(
    study: Path = STUDY,
    /,
    *,
    again: tuple[str, ...] = (),
    ray: bool = False,
    actors: int | None = None,
    common: Common = COMMON,
) -> None:
    """Measure every value of a study on its candidates, one reward in memory at a time.

    Parameters
    ----------
    study
        The study's file, study.toml where none is named.
    again
        A value to measure anew, since its reward is another now; may be given several times.
    ray
        Score on a Ray cluster, on one actor for each device; as `engine = "ray"` under `[run]`.
    actors
        How many actors.
    """
    run = open_study(study)
    run.score(again=again, ray=ray or None, actors=actors)
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
    if not is_study(source):
        refuse("a pilot", {"--palette": palette}, "a study")
        settings = {"candidates": _candidates(candidates), "mode": mode}
        settings |= {} if weighting is None else {"weighting": weighting}
        solutions = [("", _solve_pilot(source, ask, {**settings, "seed": seed or 0}), out)]
        if out is not None:
            solutions[0][1].save(out)
    else:
        given = {"--ask": ask, "--candidates": candidates, "--mode": mode, "--weighting": weighting}
        refuse("a study", {**given, "--seed": seed, "--out": out}, "a pilot")
        run = open_study(source)
        solutions = [
            (name, run.solve(name), run.folder / "solutions" / f"{name}.json") for name in named(run, palette)
        ]
    text = "\n\n".join(titled(name, str(solution), path) for name, solution, path in solutions)
    common.say(text, {"solutions": [_solved(*entry) for entry in solutions]})
    impossible = [name or "what is asked" for name, solution, _ in solutions if solution.certificate]
    return fail(f"cannot be had: {', '.join(impossible)}") if impossible else 0


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
    if not is_study(source):
        from valuepalette.planner import plan

        refuse("a pilot", {"--palette": palette}, "a study")
        more = {} if weighting is None else {"weighting": weighting}
        plans = {"": plan(_scored(source, ask), _palette(ask), seed=seed or 0, **more, **costs)}
    else:
        refuse("a study", {"--ask": ask, "--weighting": weighting, "--seed": seed}, "a pilot")
        run = open_study(source)
        plans = {name: run.plan(name, **costs) for name in named(run, palette)}
    common.say(
        "\n\n".join(titled(name, str(found), None) for name, found in plans.items()),
        {"plans": [{"palette": name or None, **found.to_dict()} for name, found in plans.items()]},
    )
    impossible = [name or "what is asked" for name, found in plans.items() if found.smallest is None]
    return fail(f"cannot be had: {', '.join(impossible)}") if impossible else 0


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
    if not is_study(source):
        refuse("candidates", {"--palette": palette}, "a study")
        if solution is None or out is None:
            raise ValueError("candidates must come with --solution and --out")
        _choose(source, solution, seed or 0).write(out)
        written = {"": out}
    else:
        refuse("a study", {"--solution": solution, "--out": out, "--seed": seed}, "candidates")
        run = open_study(source)
        answers = run.folder / "answers" / "decoding"
        names = [name for name, _ in each(named(run, palette), impossible, run.decode)]
        written = {name: answers / f"{name}.parquet" for name in names}
    common.say(
        "\n".join(titled(name, "", path) for name, path in written.items()),
        {"answers": [{"palette": name or None, "path": str(path)} for name, path in written.items()]},
    )
    return left_out(impossible)


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
    if not is_study(source):
        refuse("answers", {"--palette": palette}, "a study")
        if solution is None:
            raise ValueError("answers must come with --solution")
        judged = [("", _evaluate(source, solution))]
        paths: dict[str, Path | None] = {"": None}
    else:
        refuse("a study", {"--solution": solution}, "answers")
        run = open_study(source)

        def step(name: str) -> Evaluation:
            return run.evaluate(name, method, quiet=False)

        judged = list(each(named(run, palette), impossible, step))
        paths = {name: run.folder / "evaluation" / method / f"{name}.json" for name, _ in judged}
    text = "\n\n".join(titled(name, str(found), paths[name]) for name, found in judged)
    common.say(
        text, {"evaluations": [{"palette": name or None, **found.to_dict()} for name, found in judged]}
    )
    return left_out(impossible)


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
