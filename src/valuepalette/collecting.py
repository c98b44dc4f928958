"""Collecting: candidates are sampled and scored shard by shard; a killed run goes on where it stopped.

A folder holds `manifest.json`, the settings that decide its numbers, and `part-*.parquet`, one for each shard
of prompts. A part is whole or absent: it is written beside its place, flushed to the disk and renamed.
Scoring rewrites each part with one more value. The parts say what is done; a kill leaves no other trace.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.folders import (
    MANIFEST,
    alone,
    begin,
    differences,
    digest,
    plain,
    read_json,
    replace_file,
    write_json,
)
from valuepalette.pilot import RESERVED, Pilot, PilotMetadata
from valuepalette.progress import Progress
from valuepalette.provenance import KEY
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.opening import open_reward

__all__ = ["Line", "finished", "open_line", "sample", "score", "score_all", "unscored"]

Line = Callable[[], Reward] | str | Mapping[str, object]
"""A function that opens a reward, or a line of a study's `[values]`."""

_FORMAT = 1


def sample(
    engine: Engine,
    prompts: Sequence[Prompt],
    folder: str | os.PathLike[str],
    *,
    k: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    columns: Mapping[str, Sequence[Any]] | None = None,
    shard: int = 32,
    logprobs: bool = False,
    quiet: bool = False,
) -> Pilot:
    """Draws `k` candidates for each prompt into `folder`, `shard` prompts at a time, and reads them back.

    Called again on the same folder it draws only the shards that are missing; the finished files equal, byte
    for byte, those of a run that was never stopped. `columns` gives one entry per prompt: a cohort, a weight.
    With `logprobs` the log-probability of each candidate under the base model is kept as well.

    Raises ValueError, naming each setting as old -> new, where the folder was begun with settings that give
    other candidates; and where two prompts are equal, since their candidates would be too.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if shard < 1:
        raise ValueError(f"shard must be at least 1, got {shard}")
    columns = {name: list(entries) for name, entries in (columns or {}).items()}
    _check_prompts(prompts, columns)
    sampling = sampling or Sampling()
    settings: dict[str, Any] = {
        "engine": dict(engine.fingerprint),
        "sampling": {**asdict(sampling), "stop": list(sampling.stop)},
        "candidates": k,
        "seed": seed,
        "shard": shard,
        "logprobs": logprobs,
        "prompts": {"count": len(prompts), "sha256": digest([list(prompts), columns])},
    }
    metadata = PilotMetadata(
        model=settings["engine"],
        sampling={name: entry for name, entry in settings["sampling"].items() if name != "system_prompt"},
        system_prompt=sampling.system_prompt,
        seed=seed,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(entries) for name, entries in columns.items()}
    with alone(folder):
        if any(folder.glob("part-*.parquet")) and not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} holds parts but no {MANIFEST}: give a new folder")
        begin(folder, settings, _FORMAT, values={})
        paths = _paths(folder, settings)
        missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
        drawn = len(prompts) - sum(len(prompts[i * shard : (i + 1) * shard]) for i, _ in missing)
        with Progress(f"sampling {folder.name}", len(prompts), done=drawn, quiet=quiet) as progress:
            for index, path in missing:
                first = index * shard
                batch = prompts[first : first + shard]
                answers = engine.sample(batch, k, sampling=sampling, seed=seed, logprobs=logprobs)
                _check_answers(answers, first, len(batch), k, logprobs)
                _write_part(path, _part(batch, answers, first, arrays, metadata))
                progress.advance(len(batch))
    return _pilot(folder, paths)


def score(
    folder: str | os.PathLike[str],
    rewards: Mapping[str, Line],
    *,
    model: str | None = None,
    again: Collection[str] = (),
    quiet: bool = False,
) -> Pilot:
    """Scores the candidates of `folder` with each reward, in a pass of its own, and reads the pilot back.

    A reward is a line of a study's `[values]`, such as `"diversity"`, or a function that opens one. It is
    opened when its pass begins and closed when it ends: one is in memory at a time. What is scored already is
    left as it is: a value that is complete costs nothing, one that was stopped goes on, and a reward that
    fails loses no part scored before. `model` is the base model, for the rewards that measure by it.

    Raises ValueError where candidates are missing, where a reward fails (naming value, prompt and response),
    and where a value was scored by another version of its reward; name it in `again` to score it anew.
    """
    folder = Path(folder)
    score_all([folder], rewards, model=model, again=again, quiet=quiet)
    return _pilot(folder, _paths(folder, read_json(folder / MANIFEST, _FORMAT)))


def score_all(
    folders: Sequence[Path],
    rewards: Mapping[str, Line],
    *,
    model: str | None = None,
    again: Collection[str] = (),
    quiet: bool = False,
) -> None:
    """As `score`, for folders that share their values: each reward is opened once for all of them."""
    unknown = [name for name in again if name not in rewards]
    if unknown:
        raise ValueError(f"again must name values among {', '.join(rewards)}; got {unknown[0]!r}")
    with ExitStack() as locks:
        for folder in folders:
            if not (folder / MANIFEST).is_file():
                raise ValueError(f"folder must hold a {MANIFEST}, as `sample` writes it; {folder} has none")
            locks.enter_context(alone(folder))
            paths = _paths(folder, read_json(folder / MANIFEST, _FORMAT))
            absent = sum(not path.exists() for path in paths)
            if absent:
                raise ValueError(
                    f"{folder} lacks {absent} of its {len(paths)} parts: sample it to its end first"
                )
        for name, line in rewards.items():
            spec = {"line": plain(line), "model": model} if isinstance(line, str | Mapping) else None
            waiting = [folder for folder in folders if not _settled(folder, name, spec)]
            if not waiting:
                continue
            reward = open_line(name, line, model)
            try:
                if not quiet:
                    _announce(waiting, name, reward)
                for folder in waiting:
                    _score_value(folder, name, reward, spec, name in again, quiet)
            finally:
                reward.close()


def finished(folder: str | os.PathLike[str]) -> bool:
    """Whether every shard of `folder` has been sampled."""
    manifest = Path(folder) / MANIFEST
    return manifest.is_file() and all(p.exists() for p in _paths(Path(folder), read_json(manifest, _FORMAT)))


def open_line(name: str, line: Line, model: str | None) -> Reward:
    """The reward that a line names, or that a function opens."""
    return open_reward(name, line, model=model) if isinstance(line, str | Mapping) else line()


def unscored(folder: str | os.PathLike[str], names: Collection[str]) -> list[str]:
    """The values among `names` that some part of `folder` still lacks."""
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST, _FORMAT)
    paths, recorded = _paths(folder, manifest), manifest["values"]
    return [
        name
        for name in names
        if name not in recorded or not all(_holds(path, name, recorded[name]) for path in paths)
    ]


def _settled(folder: Path, name: str, spec: Mapping[str, Any] | None) -> bool:
    """Whether every part was scored by this line, so that there is no need to open the reward."""
    recorded = read_json(folder / MANIFEST, _FORMAT)["values"].get(name)
    return bool(recorded and spec and spec == recorded["spec"] and not unscored(folder, [name]))


def _announce(folders: Sequence[Path], name: str, reward: Reward) -> None:
    """Prints what a reward has to say before it scores, its cost for one, of all that it is still to score."""
    notice = getattr(reward, "notice", None)
    if notice is None:
        return
    entry = _entry(reward)
    prompts: list[Prompt] = []
    responses: list[str] = []
    for folder in folders:
        manifest = read_json(folder / MANIFEST, _FORMAT)
        for path in _paths(folder, manifest):
            if not _holds(path, name, entry):
                part = Pilot.read(path)
                prompts += cast("list[Prompt]", part.texts())
                responses += part.responses or []
    if responses:
        print(f"scoring {name}: {notice(prompts, responses)}", file=sys.stderr, flush=True)


def _entry(reward: Reward) -> dict[str, Any]:
    """What is recorded of a reward, beside its line."""
    return {
        "version": reward.version,
        "columns": {c.name: {"definition": c.definition, "scale": c.scale} for c in reward.columns},
    }


def _score_value(
    folder: Path, name: str, reward: Reward, spec: Mapping[str, Any] | None, again: bool, quiet: bool
) -> None:
    manifest = read_json(folder / MANIFEST, _FORMAT)
    paths, recorded = _paths(folder, manifest), manifest["values"].get(name)
    entry = _entry(reward)
    if recorded and not again and any(_holds(path, name, recorded) for path in paths):
        found = list(differences({key: recorded[key] for key in entry}, entry))
        if found:
            raise ValueError(
                f"value {name!r} in {folder} was scored otherwise ({'; '.join(found)}): "
                f"give it another name, or name it in `again` to score it anew"
            )
    for other, taken in manifest["values"].items():
        shared = sorted(set(taken["columns"]) & set(entry["columns"]))
        if other != name and shared:
            raise ValueError(f"value {name!r} measures {shared[0]!r}, which {other!r} measures already")
    entry = {"spec": spec, **entry}
    if entry != recorded:
        manifest["values"][name] = entry
        write_json(folder / MANIFEST, manifest)
    missing = [path for path in paths if not _holds(path, name, entry)]
    done = len(paths) - len(missing)
    label = f"scoring {name} in {folder.name}"
    with Progress(label, len(paths), done=done, unit="parts", quiet=quiet) as progress:
        for path in missing:
            _score_part(path, name, reward, entry)
            progress.advance(1)


def _score_part(path: Path, name: str, reward: Reward, entry: Mapping[str, Any]) -> None:
    part = Pilot.read(path)
    numbers = checked_score(reward, name, cast("list[Prompt]", part.texts()), part.responses or [])
    stale = [column for column, about in part.metadata.rewards.items() if about["reward"] == name]
    if stale:
        part = _without(part, stale)
    _write_part(
        path, part.with_values(dict(zip(entry["columns"], numbers.T, strict=True)), _about(name, entry))
    )


def _without(part: Pilot, columns: Sequence[str]) -> Pilot:
    kept = {column: about for column, about in part.metadata.rewards.items() if column not in columns}
    return Pilot.read(
        part.table.drop_columns(list(columns)),
        values=[value for value in part.values if value not in columns],
        columns=part.columns,
        metadata=part.metadata.with_rewards(kept),
    )


def _pilot(folder: Path, paths: Sequence[Path]) -> Pilot:
    """The folder as one pilot; a value that some part still lacks is left out."""
    if len({pq.read_schema(path).metadata[KEY] for path in paths}) == 1:
        return Pilot.read(folder)
    parts = [Pilot.read(path) for path in paths]
    about = [part.metadata.rewards for part in parts]
    shared = [value for value in parts[0].values if all(of.get(value) == about[0][value] for of in about)]
    bare = [_without(part, [value for value in part.values if value not in shared]) for part in parts]
    table = pa.concat_tables([part.table.select(bare[0].table.column_names) for part in bare])
    return Pilot.read(table, values=shared, columns=bare[0].columns, metadata=bare[0].metadata)


def _about(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a part's metadata says of each column that a reward measured."""
    return {
        column: {**about, "version": entry["version"], "reward": name}
        for column, about in entry["columns"].items()
    }


def _holds(path: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a part was scored by this very reward; its schema says so, no row is read."""
    rewards = PilotMetadata.from_schema(pq.read_schema(path).metadata, path.name).rewards
    return all(rewards.get(column) == about for column, about in _about(name, entry).items())


def _part(
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Candidate]],
    first: int,
    columns: Mapping[str, pa.Array],
    metadata: PilotMetadata,
) -> Pilot:
    k = len(answers[0])
    rows = [candidate for candidates in answers for candidate in candidates]
    number = np.repeat(np.arange(first, first + len(prompts)), k)
    taken = {
        "candidate": np.tile(np.arange(k), len(prompts)),
        "tokens": [row.tokens for row in rows],
        "finish_reason": [row.finish_reason for row in rows],
        **{name: entries.take(pa.array(number)) for name, entries in columns.items()},
    }
    if all(row.logprob is not None for row in rows):
        taken["logprob"] = [row.logprob for row in rows]
    return Pilot.from_arrays(
        {},
        prompt_id=number,
        prompts=[prompt for prompt in prompts for _ in range(k)],
        responses=[row.text for row in rows],
        columns=taken,
        metadata=metadata,
    )


def _check_prompts(prompts: Sequence[Prompt], columns: Mapping[str, Sequence[Any]]) -> None:
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError("prompts must be a list of at least one text or conversation")
    texts = [isinstance(prompt, str) for prompt in prompts]
    if len(set(texts)) > 1:
        odd = texts.index(not texts[0])
        raise ValueError(
            f"prompts must be all texts or all conversations; prompts 0 and {odd} differ in that"
        )
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts):
        other = seen.setdefault(digest(prompt), number)
        if other != number:
            raise ValueError(
                f"prompts must differ, since equal ones get equal candidates; {other} and {number} do not"
            )
    for name, entries in columns.items():
        if name in RESERVED:
            raise ValueError(f"columns: {name} is reserved for a column of the pilot's own")
        if len(entries) != len(prompts):
            raise ValueError(
                f"columns[{name!r}] must have one entry per prompt, {len(prompts)}; got {len(entries)}"
            )


def _check_answers(
    answers: Sequence[Sequence[Candidate]], first: int, prompts: int, k: int, logprobs: bool
) -> None:
    if len(answers) != prompts:
        raise ValueError(f"the engine must answer each of {prompts} prompts, got {len(answers)} answers")
    for number, drawn in enumerate(answers, start=first):
        if len(drawn) != k:
            raise ValueError(f"the engine must draw {k} candidates for prompt {number}, got {len(drawn)}")
        if logprobs and any(candidate.logprob is None for candidate in drawn):
            raise ValueError(f"the engine must give the logprob of each candidate; prompt {number} lacks one")


def _paths(folder: Path, settings: Mapping[str, Any]) -> list[Path]:
    shards = -(-settings["prompts"]["count"] // settings["shard"])
    return [folder / f"part-{index:05d}.parquet" for index in range(shards)]


def _write_part(path: Path, part: Pilot) -> None:
    replace_file(path, lambda to: pq.write_table(part.table, to, compression="zstd"))
