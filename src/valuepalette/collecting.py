"""Collecting: candidates are sampled and scored shard by shard; a killed run goes on where it stopped.

A folder holds `manifest.json`, the settings that decide its numbers, and `part-*.parquet`, one for each shard
of prompts. A part is whole or absent. Scoring rewrites each part with one more value. The parts say what is done;
a kill leaves no other trace. Who makes them is another matter: this process, or the workers of a `Crew`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from valuepalette.engines import Engine, Prompt, Sampling
from valuepalette.folders import MANIFEST, alone, begin, differences, digest, plain, read_json, write_json
from valuepalette.parts import Shard, draw_shard, entry_of, holds, score_part, without
from valuepalette.pilot import RESERVED, Pilot, PilotMetadata
from valuepalette.progress import Progress
from valuepalette.provenance import KEY
from valuepalette.rewards import Reward
from valuepalette.rewards.opening import SERVERS, open_reward

__all__ = ["Crew", "Drawer", "Line", "finished", "open_line", "sample", "score", "score_all", "unscored"]

T = TypeVar("T")

Line = Callable[[], Reward] | str | Mapping[str, object]
"""A function that opens a reward, or a line of a study's `[values]`."""

_FORMAT = 1


@runtime_checkable
class Drawer(Protocol):
    """Draws whole shards, wherever the model is."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """As an engine's."""
        ...

    def draw_shards(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Writes the part of each shard, in any order, and yields a shard once its part is there."""
        ...


class Crew(Protocol):
    """Workers that share a pass."""

    def each(
        self, opener: Callable[[], Callable[[T], object]], items: Sequence[T], shared: Collection[Path] = ()
    ) -> Iterator[T]:
        """Has `opener()(item)` done for each item, in any order, and yields an item once it is done.

        Each worker calls the opener once. `shared` are files that it must see as they are seen here.
        """
        ...


def sample(
    engine: Engine | Drawer,
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
    With `logprobs` the log-probability of each candidate under the base model is kept as well. `engine` may be on a
    cluster: see `valuepalette.clusters`.

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
        shards: list[Shard] = []
        for index, path in missing:
            rows = range(index * shard, min((index + 1) * shard, len(prompts)))
            shards.append(
                Shard(
                    path=path.resolve(),
                    first=rows.start,
                    prompts=prompts[rows.start : rows.stop],
                    # Taken and not sliced: a slice holds on to the whole, also on its way to another machine.
                    columns={name: entries.take(pa.array(rows)) for name, entries in arrays.items()},
                    k=k,
                    sampling=sampling,
                    seed=seed,
                    logprobs=logprobs,
                    metadata=metadata,
                )
            )
        drawn = len(prompts) - sum(len(waiting.prompts) for waiting in shards)
        with Progress(f"sampling {folder.name}", len(prompts), done=drawn, quiet=quiet) as progress:
            for done in engine.draw_shards(shards) if isinstance(engine, Drawer) else _drawn(engine, shards):
                progress.advance(len(done.prompts))
    return _pilot(folder, paths)


def _drawn(engine: Engine, shards: Sequence[Shard]) -> Iterator[Shard]:
    for shard in shards:
        draw_shard(engine, shard)
        yield shard


def score(
    folder: str | os.PathLike[str],
    rewards: Mapping[str, Line],
    *,
    model: str | None = None,
    again: Collection[str] = (),
    crew: Crew | None = None,
    quiet: bool = False,
) -> Pilot:
    """Scores the candidates of `folder` with each reward, in a pass of its own, and reads the pilot back.

    A reward is a line of a study's `[values]`, such as `"diversity"`, or a function that opens one. It is
    opened when its pass begins and closed when it ends: one is in memory at a time. What is scored already is
    left as it is: a value that is complete costs nothing, one that was stopped goes on, and a reward that
    fails loses no part scored before. `model` is the base model, for the rewards that measure by it. A `crew` shares
    the parts among its workers; rewards behind a server are asked from here all the same.

    Raises ValueError where candidates are missing, where a reward fails (naming value, prompt and response),
    and where a value was scored by another version of its reward; name it in `again` to score it anew.
    """
    folder = Path(folder)
    score_all([folder], rewards, model=model, again=again, crew=crew, quiet=quiet)
    return _pilot(folder, _paths(folder, read_json(folder / MANIFEST, _FORMAT)))


def score_all(
    folders: Sequence[Path],
    rewards: Mapping[str, Line],
    *,
    model: str | None = None,
    again: Collection[str] = (),
    crew: Crew | None = None,
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
                entry, paths = _begun(waiting, name, reward, spec, name in again)
                missing = [path for path in paths if not holds(path, name, entry)]
                if not quiet:
                    _announce(missing, name, reward)
                scored = (
                    _scored(missing, name, reward, entry)
                    if crew is None or _asks_a_server(line)
                    else crew.each(
                        _Scoring(name, line, model, entry), missing, [folder / MANIFEST for folder in waiting]
                    )
                )
                label = f"scoring {name} in {', '.join(folder.name for folder in waiting)}"
                done = len(paths) - len(missing)
                with Progress(label, len(paths), done=done, unit="parts", quiet=quiet) as progress:
                    for _ in scored:
                        progress.advance(1)
            finally:
                reward.close()


def _scored(paths: Sequence[Path], name: str, reward: Reward, entry: Mapping[str, Any]) -> Iterator[Path]:
    for path in paths:
        score_part(path, name, reward, entry)
        yield path


def _asks_a_server(line: Line) -> bool:
    kind = line.get("reward") if isinstance(line, Mapping) else line
    return kind in SERVERS


@dataclass(frozen=True)
class _Scoring:
    """Opens a reward where a worker is, and scores parts with it."""

    name: str
    line: Line
    model: str | None
    entry: Mapping[str, Any]

    def __call__(self) -> Callable[[Path], None]:
        reward = open_line(self.name, self.line, self.model)
        found = entry_of(reward)
        other = list(differences({key: self.entry[key] for key in found}, found))
        if other:
            raise ValueError(f"value {self.name!r} must be the same on every node, got {'; '.join(other)}")

        def work(path: Path) -> None:
            if not holds(path, self.name, self.entry):
                score_part(path, self.name, reward, self.entry)

        return work


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
        if name not in recorded or not all(holds(path, name, recorded[name]) for path in paths)
    ]


def _settled(folder: Path, name: str, spec: Mapping[str, Any] | None) -> bool:
    """Whether every part was scored by this line, so that there is no need to open the reward."""
    recorded = read_json(folder / MANIFEST, _FORMAT)["values"].get(name)
    return bool(recorded and spec and spec == recorded["spec"] and not unscored(folder, [name]))


def _announce(paths: Sequence[Path], name: str, reward: Reward) -> None:
    """Prints what a reward has to say before it scores, its cost for one, of all that it is still to score."""
    notice = getattr(reward, "notice", None)
    if notice is None or not paths:
        return
    prompts: list[Prompt] = []
    responses: list[str] = []
    for path in paths:
        part = Pilot.read(path)
        prompts += cast("list[Prompt]", part.texts())
        responses += part.responses or []
    print(f"scoring {name}: {notice(prompts, responses)}", file=sys.stderr, flush=True)


def _begun(
    folders: Sequence[Path], name: str, reward: Reward, spec: Mapping[str, Any] | None, again: bool
) -> tuple[dict[str, Any], list[Path]]:
    """Records a reward in the manifest of each folder, and gives what was recorded and all parts.

    Raises ValueError where a folder was scored by another version of it, or measures a column of its already.
    """
    entry = {"spec": spec, **entry_of(reward)}
    every: list[Path] = []
    for folder in folders:
        manifest = read_json(folder / MANIFEST, _FORMAT)
        paths, recorded = _paths(folder.resolve(), manifest), manifest["values"].get(name)
        if recorded and not again and any(holds(path, name, recorded) for path in paths):
            found = list(
                differences({key: recorded[key] for key in entry if key != "spec"}, entry_of(reward))
            )
            if found:
                raise ValueError(
                    f"value {name!r} in {folder} was scored otherwise ({'; '.join(found)}): "
                    f"give it another name, or name it in `again` to score it anew"
                )
        for other, taken in manifest["values"].items():
            shared = sorted(set(taken["columns"]) & set(entry["columns"]))
            if other != name and shared:
                raise ValueError(f"value {name!r} measures {shared[0]!r}, which {other!r} measures already")
        if entry != recorded:
            manifest["values"][name] = entry
            write_json(folder / MANIFEST, manifest)
        every += paths
    return entry, every


def _pilot(folder: Path, paths: Sequence[Path]) -> Pilot:
    """The folder as one pilot; a value that some part still lacks is left out."""
    if len({pq.read_schema(path).metadata[KEY] for path in paths}) == 1:
        return Pilot.read(folder)
    parts = [Pilot.read(path) for path in paths]
    about = [part.metadata.rewards for part in parts]
    shared = [value for value in parts[0].values if all(of.get(value) == about[0][value] for of in about)]
    bare = [without(part, [value for value in part.values if value not in shared]) for part in parts]
    table = pa.concat_tables([part.table.select(bare[0].table.column_names) for part in bare])
    return Pilot.read(table, values=shared, columns=bare[0].columns, metadata=bare[0].metadata)


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


def _paths(folder: Path, settings: Mapping[str, Any]) -> list[Path]:
    shards = -(-settings["prompts"]["count"] // settings["shard"])
    return [folder / f"part-{index:05d}.parquet" for index in range(shards)]
