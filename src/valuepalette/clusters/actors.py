"""Actors of Ray Data, one for each device: shards go in, each actor writes the parts of its own.

The folder is the record of what is done. An actor that dies is started anew by Ray and asked again for the one shard
that it had; a part that is there is not made twice, whoever is asked for it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from valuepalette.distributing import connected
from valuepalette.engines import Engine
from valuepalette.folders import MANIFEST, differences
from valuepalette.parts import Shard, draw_shard

__all__ = ["ATTEMPTS", "ActorEngine", "Cluster", "silent"]

T = TypeVar("T")

ATTEMPTS = 3
"""How often a shard is tried whose actor dies."""
_REFUSALS = {kind.__name__: kind for kind in (ValueError, TypeError, OSError, ModuleNotFoundError)}


@dataclass(frozen=True)
class Cluster:
    """A crew of actors on the Ray cluster that this process is connected to; one is started here where there is none.

    actors  how many; None for one on each GPU, or on each CPU where the cluster has no GPU
    device  "cpu" keeps actors off the GPUs, "cuda" waits for GPUs on a cluster that has none yet; None takes what is
            there
    """

    actors: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        told = self.actors
        if told is not None and (isinstance(told, bool) or not isinstance(told, int) or told < 1):
            raise ValueError(f"actors must be a whole number, 1 or more, or None, got {told!r}")

    def each(
        self, opener: Callable[[], Callable[[T], object]], items: Sequence[T], shared: Collection[Path] = ()
    ) -> Iterator[T]:
        """See `valuepalette.collecting.Crew`. The opener and the items are pickled.

        Raises what the work refuses, in its own words; ValueError where a node does not see what is shared;
        RuntimeError where the work fails otherwise, or an item killed its actor `ATTEMPTS` times.
        """
        if not items:
            return
        ray = connected()
        from ray.data import ActorPoolStrategy, from_items

        seen = {str(path.resolve()): _digest(path) for path in shared}
        size = min(self.count, len(items))
        tries: Any = ray.remote(num_cpus=0)(_Tries).remote()
        rows = [{"number": number, "item": ray.cloudpickle.dumps(item)} for number, item in enumerate(items)]
        with silent():
            done = from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Actor,
                fn_constructor_args=(opener, seen, os.getcwd(), tries),
                batch_size=1,
                compute=ActorPoolStrategy(size=size),
                **self._device,
            )
            for row in done.iter_rows():
                if row["kind"]:
                    error = _REFUSALS.get(row["kind"], RuntimeError)(row["words"])
                    error.add_note(row["tale"])
                    raise error
                yield items[row["number"]]

    def told(self, ask: Callable[[], T]) -> T:
        """What `ask` gives where a device is. Raises what it refuses."""
        ray = connected()
        try:
            return ray.get(ray.remote(**self._device)(_asked).remote(ask, os.getcwd()))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    @property
    def count(self) -> int:
        """How many actors are asked for."""
        found = connected().cluster_resources()
        return self.actors or max(1, int(found.get("GPU" if self.on_gpus else "CPU", 0)))

    @property
    def on_gpus(self) -> bool:
        """Whether each actor has a GPU to itself."""
        if self.device is not None:
            return self.device.startswith("cuda")
        return connected().cluster_resources().get("GPU", 0) > 0

    @property
    def _device(self) -> dict[str, Any]:
        return {"num_gpus": 1} if self.on_gpus else {"num_cpus": 1}


@dataclass(frozen=True)
class ActorEngine:
    """An engine that each actor of a cluster opens for itself; a `valuepalette.collecting.Drawer`."""

    open: Callable[[], Engine]
    cluster: Cluster

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """What the engine says of itself where a device is; it is opened there once to be asked."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> Mapping[str, str]:
        opener = self.open

        def ask() -> dict[str, str]:
            engine = opener()
            try:
                return dict(engine.fingerprint)
            finally:
                engine.close()

        return self.cluster.told(ask)

    def draw_shards(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Each shard is drawn and written by an actor. Raises ValueError where engines differ from node to node."""
        manifests = {shard.path.parent / MANIFEST for shard in shards}
        return self.cluster.each(_Drawing(self.open, self.fingerprint), shards, manifests)

    def close(self) -> None:
        """Nothing: actors end with their pass."""


@dataclass(frozen=True)
class _Drawing:
    open: Callable[[], Engine]
    fingerprint: Mapping[str, str]

    def __call__(self) -> Callable[[Shard], None]:
        engine = self.open()
        other = "; ".join(differences(dict(self.fingerprint), dict(engine.fingerprint)))
        if other:
            raise ValueError(
                f"the engine must be the same on every node, got {other} on {socket.gethostname()}: "
                f"say in [model] what differs"
            )

        def work(shard: Shard) -> None:
            if not shard.path.exists():
                draw_shard(engine, shard)

        return work


class _Tries:
    """Counts how often each item was begun. Ray would try it for ever."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def begin(self, number: int) -> int:
        self.counts[number] = self.counts.get(number, 0) + 1
        return self.counts[number]


class _Actor:
    """Lives on a device. What goes wrong comes back as a row: it is an answer, and no reason to try again."""

    def __init__(
        self,
        opener: Callable[[], Callable[[Any], object]],
        shared: Mapping[str, str],
        folder: str,
        tries: Any,
    ) -> None:
        self.opener, self.shared, self.folder, self.tries = opener, shared, folder, tries
        self.work: Callable[[Any], object] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        kind = words = tale = ""
        number = int(batch["number"][0])
        try:
            self._do(number, batch["item"][0])
        except Exception as error:
            known = (name for name, refusal in _REFUSALS.items() if isinstance(error, refusal))
            kind = next(known, type(error).__name__)
            words = str(error) if kind in (*_REFUSALS, "RuntimeError") else f"{kind}: {error}"
            tale = f"on {socket.gethostname()}: {traceback.format_exc()}"
        return {"number": [number], "kind": [kind], "words": [words], "tale": [tale]}

    def _do(self, number: int, item: bytes) -> None:
        ray = connected()
        begun: Any = ray.get(self.tries.begin.remote(number))
        if begun > ATTEMPTS:
            raise RuntimeError(
                f"an actor died {ATTEMPTS} times at one shard, for want of memory perhaps; Ray's logs say more"
            )
        if self.work is None:
            self.work = self._opened()
        self.work(ray.cloudpickle.loads(item))

    def _opened(self) -> Callable[[Any], object]:
        for name, digest in self.shared.items():
            if not os.path.isfile(name) or _digest(Path(name)) != digest:
                raise ValueError(
                    f"{name} must be on storage that every node shares; {socket.gethostname()} does not see it as "
                    "it was written"
                )
        return _asked(self.opener, self.folder)


def _asked(ask: Callable[[], T], folder: str) -> T:
    """What `ask` gives; relative paths begin as they do for the process that leads, if this node has the folder."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return ask()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def silent() -> Iterator[None]:
    """Keeps Ray Data off the terminal: how far a pass is we say ourselves, and its log has the rest."""
    from ray.data import DataContext

    context = DataContext.get_current()
    screens = [
        own for own in logging.getLogger("ray.data").handlers if isinstance(own, logging.StreamHandler)
    ]
    before = context.enable_progress_bars, [screen.level for screen in screens]
    context.enable_progress_bars = False
    for screen in screens:
        screen.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        for screen, level in zip(screens, before[1], strict=True):
            screen.setLevel(level)
