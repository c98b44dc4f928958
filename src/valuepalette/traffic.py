"""Served traffic as files: each request's groups of scored candidates, in Parquet parts that a Pilot can read.

    traffic/
      5f3a9c12b0d4e671/                 what was served with one model, settings and rewards: their digest
        20261124T164244123456-1a2b.parquet
        solutions/0c7e….json            what the groups were chosen by, `Solution.load`

A part is written beside its place, flushed to the disk and renamed, so that it is whole or absent; its name begins with
the time at which it was written. Rows are those of a pilot: a group of k candidates is a prompt, with the probability
of each and the one that was drawn.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from valuepalette.engines import Candidate, Prompt
from valuepalette.features import member
from valuepalette.folders import digest, replace_file
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.transcripts import MESSAGES

__all__ = ["Group", "Layout", "Traffic", "solution_id"]

_OWN = ("request", "time", "palette", "solution", "turn", "seed", "aligned")
_TYPES: Mapping[str, pa.DataType] = {
    "time": pa.timestamp("us", tz="UTC"),
    "turn": pa.int64(),
    "seed": pa.int64(),
    "aligned": pa.bool_(),
}


@dataclass(frozen=True, eq=False)
class Group:
    """One prompt's k scored candidates, and the one that was drawn.

    request, place, answer  which request, which of its prompts, which of its answers to that
    time                    when it was served, seconds since 1970
    palette                 its name; solution: what `solution_id` says of its solution
    turn                    how many turns the conversation has
    columns                 of the prompt
    values                  (k,) numbers by name
    """

    request: str
    place: int
    answer: int
    time: float
    palette: str
    solution: str
    turn: int
    seed: int
    aligned: bool
    columns: Mapping[str, Any]
    prompt: Prompt
    candidates: Sequence[Candidate]
    values: Mapping[str, Array]
    probabilities: Array
    drawn: int


def solution_id(solution: Solution) -> str:
    """What tells one solution from another: what it asks, its weights, k and the decoder that it is for."""
    told = solution.to_dict()
    parts = ("resolved", "weights", "faces", "candidates", "mode", "fingerprint", "aimed")
    return digest({part: told[part] for part in parts})[:16]


@dataclass(frozen=True)
class Layout:
    """The columns of the parts, the same in all of a folder.

    values    that are scored
    columns   of the prompts, kept as text
    metadata  of the pilot that is served
    texts     whether prompts and answers are kept

    Raises ValueError where a value or a column has a name that the traffic has a use for.
    """

    values: tuple[str, ...]
    columns: tuple[str, ...]
    metadata: PilotMetadata
    texts: bool = False

    def __post_init__(self) -> None:
        for name in (*self.values, *self.columns):
            if name in _OWN:
                raise ValueError(
                    f"values and columns of recorded traffic must not be named {name}: rename it"
                )

    @cached_property
    def key(self) -> str:
        """The name of the folder."""
        return digest([self.values, self.columns, self.metadata.to_dict(), self.texts])[:16]

    def table(self, groups: Sequence[Group]) -> pa.Table:
        """The rows of groups, in their order."""
        sizes = [len(group.candidates) for group in groups]

        def by_row(entries: Sequence[Any], kind: pa.DataType) -> pa.Array:
            at = np.repeat(np.arange(len(groups)), sizes)
            return pa.array(entries, kind).take(pa.array(at))

        text = pa.large_string()
        drawn = [candidate for group in groups for candidate in group.candidates]
        laid: dict[str, pa.Array] = {
            "prompt_id": by_row([f"{each.request}-{each.place}-{each.answer}" for each in groups], text),
            "candidate": pa.array(np.concatenate([np.arange(size) for size in sizes])),
        }
        if self.texts:
            said = [each.prompt if isinstance(each.prompt, str) else None for each in groups]
            turns = [None if isinstance(each.prompt, str) else [*each.prompt] for each in groups]
            laid |= {"prompt": by_row(said, text), "messages": by_row(turns, MESSAGES)}
            laid["response"] = pa.array([candidate.text for candidate in drawn], text)
        chosen = [j == each.drawn for each in groups for j in range(len(each.candidates))]
        laid |= {
            "drawn": pa.array(chosen, pa.bool_()),
            "tokens": pa.array([candidate.tokens for candidate in drawn], pa.int64()),
            "finish_reason": pa.array([candidate.finish_reason for candidate in drawn], text),
            "probability": pa.array(np.concatenate([each.probabilities for each in groups])),
        }
        for name in _OWN:
            entries = [getattr(each, name) for each in groups]
            if name == "time":
                entries = [datetime.fromtimestamp(entry, UTC) for entry in entries]
            laid[name] = by_row(entries, _TYPES.get(name, text))
        for name in self.columns:
            laid[name] = by_row([member(each.columns.get(name)) for each in groups], text)
        for name in self.values:
            laid[name] = pa.array(np.concatenate([each.values[name] for each in groups]), pa.float64())
        return pa.table(laid).replace_schema_metadata(
            self.metadata.to_schema(self.values, (*_OWN, *self.columns))
        )

    def write(self, folder: Path, groups: Sequence[Group], now: float) -> Path:
        """A new part of `folder`, whole or absent."""
        path = folder / f"{_stamp(now)}-{secrets.token_hex(2)}.parquet"
        table = self.table(groups)
        replace_file(path, lambda to: pq.write_table(table, to, compression="zstd"))
        return path


@dataclass(frozen=True, eq=False)
class Traffic:
    """What was served with one model, settings and rewards.

    pilot      every group; a prompt of it is one answer to one request
    solutions  what groups were chosen by, where it was kept
    """

    pilot: Pilot
    solutions: Mapping[str, Solution]

    @classmethod
    def read(
        cls,
        folder: str | os.PathLike[str],
        like: PilotMetadata | None = None,
        *,
        since: float | None = None,
    ) -> Traffic:
        """Reads what a gateway kept: the newest folder in `folder`, or `folder` where it holds parts itself.

        like   of several, only folders of this model, settings and rewards count
        since  only what was served from then on, in seconds since 1970

        A gateway may go on writing, and removing its oldest parts. Raises ValueError where there is nothing to read.
        """
        root = Path(folder)
        newest: dict[Path, str] = {}
        for path in sorted(root.glob("*.parquet")) + sorted(root.glob("*/*.parquet")):
            if not path.name.startswith("."):
                newest[path.parent] = max(newest.get(path.parent, ""), path.name)
        found = sorted(newest, key=lambda each: newest[each], reverse=True)
        if like is not None:
            found = [each for each in found if _metadata(each / newest[each]) == like.to_dict()]
        if not found:
            kind = "" if like is None or not newest else " of the present model, settings and rewards"
            raise ValueError(
                f"{root}: holds no traffic{kind}; a gateway keeps it where [monitor] record = true"
            )
        solutions: dict[str, Solution] = {}
        for path in sorted((found[0] / "solutions").glob("*.json")):
            with suppress(FileNotFoundError):
                solutions[path.stem] = Solution.load(path)
        pilot = Pilot.read(_joined(found[0], "" if since is None else _stamp(since)))
        return cls(pilot if since is None else _since(pilot, since), solutions)


def _joined(folder: Path, stamp: str) -> pa.Table:
    """The parts that were written from then on, and the newest whatever it is; what goes meanwhile is gone."""
    *others, newest = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    tables: list[pa.Table] = []
    for path in [*(path for path in others if path.name >= stamp), newest]:
        with suppress(FileNotFoundError):
            tables.append(pq.read_table(path, partitioning=None))  # pyright: ignore[reportArgumentType]
    return pa.concat_tables(tables)


def _since(pilot: Pilot, seconds: float) -> Pilot:
    times = np.asarray(pilot.table["time"].cast(pa.int64()))
    rows = times >= round(seconds * 1e6)
    if not rows.any():
        last = datetime.fromtimestamp(int(times.max()) / 1e6, UTC).isoformat(timespec="seconds")
        raise ValueError(f"since must leave some traffic, which ends at {last}")
    return pilot.select(rows)


def _stamp(seconds: float) -> str:
    """What the name of a part begins with that is written then."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S%f")


def _metadata(part: Path) -> dict[str, Any]:
    return PilotMetadata.from_schema(pq.read_schema(part).metadata, part.name).to_dict()
