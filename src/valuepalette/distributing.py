"""Shards on Ray: each worker holds its own, and a pass sends a task out and gets a few numbers for each piece back.

Results are taken in the order of the shards, whatever order they arrive in, so that they do not depend on it. A worker
that dies in a pass is started anew, reads its shards again and repeats the pass; the others are not asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from valuepalette.shards import MEMORY, Head, ParquetShards, Piece, bytes_of, head_of, open_shards, tables

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["RayShards", "connected", "is_dataset", "on_ray"]

T = TypeVar("T")

ATTEMPTS = 3
"""How often the shards of one worker are tried in a pass."""


def is_dataset(source: object) -> bool:
    """Whether something is a Ray dataset, without importing Ray."""
    return any(kind.__module__.startswith("ray.data") for kind in type(source).__mro__)


def on_ray(
    source: str | PathLike[str] | Dataset,
    *,
    values: Sequence[str] | None = None,
    workers: int | None = None,
    memory: int | str = MEMORY,
) -> RayShards:
    """Parquet files, or the blocks of a Ray dataset, held by workers, for `solve`.

    source   what `open_shards` takes, at the same path on every node; or a dataset. The rows of a prompt stand
             together in one file, or block
    values   which columns are values; else as `open_shards`
    workers  how many; None for as many as the cluster has CPUs, and no more than there are shards
    memory   what all workers together may take: what fits into half of it they keep, else they read it in each pass

    Raises ModuleNotFoundError, with the command, where Ray is not installed.
    """
    ray = _ray()
    budget = bytes_of(memory)
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers must be a whole number, 1 or more, or None, got {workers!r}")
    connected()
    if isinstance(source, str | PathLike):
        opened = open_shards(source, values=values, memory=budget)
        shards, head, rows = opened.files, opened.head, opened.rows
    else:
        refs = source.to_arrow_refs()
        told = ray.get([ray.remote(_told).remote(ref) for ref in refs])
        kept = [(ref, schema, rows) for ref, (schema, rows) in zip(refs, told, strict=True) if rows]
        if not kept:
            raise ValueError("the dataset holds no rows")
        shards = tuple(_Block(f"block {number}", (ref,)) for number, (ref, _, _) in enumerate(kept))
        named = zip((shard.name for shard in shards), (schema for _, schema, _ in kept), strict=True)
        head, rows = head_of(named, values), sum(rows for _, _, rows in kept)
    count = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(shards))
    parts = [len(shards) * i // count for i in range(count + 1)]
    own = [_Own(shards[a:b], head, rows // count, budget // count, a) for a, b in pairwise(parts)]
    return RayShards(head, rows, budget, tuple(own), [_start(one) for one in own])


def connected() -> Any:
    """Ray, connected to the cluster that it finds (RAY_ADDRESS, or one on this machine), else to one started here.

    Raises ModuleNotFoundError, with the command, where Ray is not installed.
    """
    ray = _ray()
    if not ray.is_initialized():
        ray.init()
    return ray


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError('Ray is not installed: pip install "valuepalette[ray]"') from None
    return ray


@dataclass(frozen=True)
class _Block:
    """A block of a dataset; its reference is wrapped, so that Ray passes it on as it is."""

    name: str
    ref: tuple[Any, ...]


@dataclass(frozen=True)
class _Own:
    """What a worker is made from, and made from again."""

    shards: tuple[Any, ...]
    head: Head
    rows: int
    memory: int
    first: int


def _told(block: pa.Table) -> tuple[pa.Schema, int]:
    return block.schema, block.num_rows


def _tables_of(block: _Block, head: Head, columns: tuple[str, ...], rows: int) -> Iterator[pa.Table]:
    """A block, so many rows at a time; it stays where Ray keeps it, on disk if need be."""
    import ray

    whole: Any = ray.get(block.ref[0])
    table: pa.Table = whole.select(list(dict.fromkeys((head.key, *columns, *head.values))))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


class _Worker:
    """Lives on a node of the cluster: the pieces of some shards, and what tasks say of each."""

    def __init__(self, own: _Own) -> None:
        read = _tables_of if isinstance(own.shards[0], _Block) else tables
        self.shards = ParquetShards(own.shards, own.head, own.rows, own.memory, own.first, read)

    def run(self, task: Callable[[Piece], T], columns: tuple[str, ...]) -> list[T]:
        return list(self.shards.map(task, columns))


def _start(own: _Own) -> Any:
    import ray

    # It reserves no CPU: a worker lives on between passes, and would keep others from theirs, even its own data set.
    return ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_Worker).remote(own)


@dataclass(frozen=True, eq=False)
class RayShards:
    """`Shards` that workers hold; they end with this object, or by `close`."""

    head: Head
    rows: int
    memory: int
    own: tuple[_Own, ...]
    workers: list[Any] = field(repr=False)

    def map(self, task: Callable[[Piece], T], columns: tuple[str, ...] = ()) -> Iterator[T]:
        """What `task` returns for each piece, in the order of the shards; a dead worker's part is asked for again."""
        asked = [worker.run.remote(task, columns) for worker in self.workers]
        for i, answer in enumerate(asked):
            yield from self._settled(i, answer, task, columns)

    def _settled(
        self, i: int, answer: Any, task: Callable[[Piece], T], columns: tuple[str, ...]
    ) -> Sequence[T]:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        for left in reversed(range(ATTEMPTS)):
            try:
                return ray.get(answer)
            except RayActorError:
                if not left:
                    raise
                self.workers[i] = _start(self.own[i])
                answer = self.workers[i].run.remote(task, columns)
            except RayTaskError as error:
                # What the task said, without the tale of where it ran.
                raise error.cause from None
        raise AssertionError

    def close(self) -> None:
        """Ends the workers."""
        import ray

        for worker in self.workers:
            ray.kill(worker)
