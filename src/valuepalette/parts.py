"""Parts: what one file of a folder is drawn from and how it is scored, whoever does it, here or on a cluster.

A part is whole or absent: it is written beside its place, flushed to the disk and renamed. What it holds depends on
its shard alone, so two who make the same part make the same file, and neither harms the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.folders import replace_file
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score

__all__ = ["Shard", "draw_shard", "entry_of", "holds", "score_part", "without", "write_shard"]


@dataclass(frozen=True, eq=False)
class Shard:
    """What one part is drawn from.

    path      of the file
    first     number of the first prompt
    columns   of these prompts, by name
    metadata  of the pilot, with the fingerprint of the engine that the folder was begun with
    """

    path: Path
    first: int
    prompts: Sequence[Prompt]
    columns: Mapping[str, pa.Array]
    k: int
    sampling: Sampling
    seed: int
    logprobs: bool
    metadata: PilotMetadata


def draw_shard(engine: Engine, shard: Shard) -> None:
    """Draws the candidates of a shard and writes its part."""
    answers = engine.sample(
        shard.prompts, shard.k, sampling=shard.sampling, seed=shard.seed, logprobs=shard.logprobs
    )
    write_shard(shard, answers)


def write_shard(shard: Shard, answers: Sequence[Sequence[Candidate]]) -> None:
    """Writes the part of a shard: the candidates of each of its prompts, in order.

    Raises ValueError where there are too few, or one lacks the log-probability that was asked for.
    """
    _check_answers(answers, shard)
    _write(shard.path, _part(shard, answers))


def entry_of(reward: Reward) -> dict[str, Any]:
    """What is recorded of a reward, beside its line."""
    return {
        "version": reward.version,
        "columns": {c.name: {"definition": c.definition, "scale": c.scale} for c in reward.columns},
    }


def holds(path: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a part was scored by this very reward; its schema says so, no row is read."""
    rewards = PilotMetadata.from_schema(pq.read_schema(path).metadata, path.name).rewards
    return all(rewards.get(column) == about for column, about in _about(name, entry).items())


def score_part(path: Path, name: str, reward: Reward, entry: Mapping[str, Any]) -> None:
    """Writes a part anew, with the value that a reward measures; `entry` is what is recorded of the reward."""
    part = Pilot.read(path)
    numbers = checked_score(reward, name, cast("list[Prompt]", part.texts()), part.responses or [])
    stale = [column for column, about in part.metadata.rewards.items() if about["reward"] == name]
    if stale:
        part = without(part, stale)
    _write(path, part.with_values(dict(zip(entry["columns"], numbers.T, strict=True)), _about(name, entry)))


def without(part: Pilot, columns: Sequence[str]) -> Pilot:
    """A part that lacks some of its values."""
    kept = {column: about for column, about in part.metadata.rewards.items() if column not in columns}
    return Pilot.read(
        part.table.drop_columns(list(columns)),
        values=[value for value in part.values if value not in columns],
        columns=part.columns,
        metadata=part.metadata.with_rewards(kept),
    )


def _about(name: str, entry: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a part's metadata says of each column that a reward measured."""
    return {
        column: {**about, "version": entry["version"], "reward": name}
        for column, about in entry["columns"].items()
    }


def _part(shard: Shard, answers: Sequence[Sequence[Candidate]]) -> Pilot:
    rows = [candidate for candidates in answers for candidate in candidates]
    place = np.repeat(np.arange(len(shard.prompts)), shard.k)
    taken = {
        "candidate": np.tile(np.arange(shard.k), len(shard.prompts)),
        "tokens": [row.tokens for row in rows],
        "finish_reason": [row.finish_reason for row in rows],
        **{name: entries.take(pa.array(place)) for name, entries in shard.columns.items()},
    }
    if all(row.logprob is not None for row in rows):
        taken["logprob"] = [row.logprob for row in rows]
    return Pilot.from_arrays(
        {},
        prompt_id=shard.first + place,
        prompts=[prompt for prompt in shard.prompts for _ in range(shard.k)],
        responses=[row.text for row in rows],
        columns=taken,
        metadata=shard.metadata,
    )


def _check_answers(answers: Sequence[Sequence[Candidate]], shard: Shard) -> None:
    if len(answers) != len(shard.prompts):
        raise ValueError(
            f"the engine must answer each of {len(shard.prompts)} prompts, got {len(answers)} answers"
        )
    for number, drawn in enumerate(answers, start=shard.first):
        if len(drawn) != shard.k:
            raise ValueError(
                f"the engine must draw {shard.k} candidates for prompt {number}, got {len(drawn)}"
            )
        if shard.logprobs and any(candidate.logprob is None for candidate in drawn):
            raise ValueError(f"the engine must give the logprob of each candidate; prompt {number} lacks one")


def _write(path: Path, part: Pilot) -> None:
    replace_file(path, lambda to: pq.write_table(part.table, to, compression="zstd"))
