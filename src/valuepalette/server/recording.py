"""Keeping what is served: a thread that writes parts and tells the watch, and never holds up a request.

Requests put what they served into a bounded queue and go on; where it is full, the group is dropped and counted. What
is killed loses the groups since the last part, and no file: a part is whole or absent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any
from weakref import WeakKeyDictionary

from valuepalette.monitoring import Monitoring, Watch
from valuepalette.server.deciding import CUSTOM
from valuepalette.server.selecting import Served
from valuepalette.solution import Solution
from valuepalette.traffic import Group, Layout, solution_id

__all__ = ["Parts", "Recorder", "group_of"]

log = logging.getLogger("valuepalette.server")

_IDLE = 0.2
"""Seconds for which groups are gathered, as many at a time cost little more than one; and after which a request that
brought nothing more is taken for whole, as its groups come all at once."""
_STALE = 600.0
"""Seconds after which a file that is half written is nobody's any more."""
_SOLUTIONS = 1000
"""Solutions that are kept in a folder. Of palettes that requests bring there may be more: those are kept without."""


class Parts:
    """The files of one folder of traffic, below `root`.

    groups, seconds  after so many groups, or so long after its first, a part is written
    megabytes        of all that is below `root`: beyond this the oldest parts are removed, never the newest
    clock            seconds since 1970
    """

    def __init__(
        self,
        root: Path,
        layout: Layout,
        *,
        groups: int = 2000,
        seconds: float = 300.0,
        megabytes: float = 1000.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root, self.folder, self._layout = root, root / layout.key, layout
        self._most, self._seconds, self._limit, self._clock = groups, seconds, megabytes * 1e6, clock
        self._waiting: list[Group] = []
        self._since = 0.0
        (self.folder / "solutions").mkdir(parents=True, exist_ok=True)
        self._saved = {path.stem for path in (self.folder / "solutions").glob("*.json")}
        for left in root.glob("*/.*.tmp"):
            if clock() - left.stat().st_mtime > _STALE:
                left.unlink(missing_ok=True)
        self.size = self._sizes(list(self._paths()))

    @property
    def waiting(self) -> int:
        """Groups that are not on the disk yet."""
        return len(self._waiting)

    def add(self, group: Group, solution: Solution) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        wanted = group.palette != CUSTOM or len(self._saved) < _SOLUTIONS
        if wanted and group.solution not in self._saved:
            solution.save(self.folder / "solutions" / f"{group.solution}.json")
            self._saved.add(group.solution)
        self._waiting.append(group)

    @property
    def due(self) -> bool:
        """Whether a part is to be written."""
        late = bool(self._waiting) and time.monotonic() - self._since >= self._seconds
        return late or len(self._waiting) >= self._most

    def flush(self) -> int:
        """Writes what waits, and says how many groups that were; whatever happens, they wait no more."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._layout.write(self.folder, waiting, self._clock())
            self._prune()
        return len(waiting)

    def _paths(self) -> list[Path]:
        """All parts, the oldest first."""
        parts = (path for path in self.root.glob("*/*.parquet") if not path.name.startswith("."))
        return sorted(parts, key=lambda path: path.name)

    def _sizes(self, paths: Sequence[Path]) -> int:
        return sum(path.stat().st_size for path in paths if path.exists())

    def _prune(self) -> None:
        paths = self._paths()
        self.size = self._sizes(paths)
        for path in paths[:-1]:
            if self.size <= self._limit:
                break
            self.size -= path.stat().st_size if path.exists() else 0
            path.unlink(missing_ok=True)


class Recorder:
    """What a gateway tells of each group; a context manager, and after it everything is on the disk.

    parts   where groups are kept; None to keep none
    watch   what is told of them; None for nothing
    sample  the share of requests that is kept; the watch is told of all
    queue   groups that may wait

    `fates` counts groups: kept, skipped by `sample`, dropped where the queue was full, lost where writing failed.
    """

    def __init__(
        self,
        parts: Parts | None,
        watch: Watch | None = None,
        *,
        sample: float = 1.0,
        queue: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.parts, self.watch, self.fates = parts, watch, Counter[str]()
        self._sample, self._clock = sample, clock
        self._queue: Queue[tuple[float, Served]] = Queue(queue)
        self._ids: WeakKeyDictionary[Solution, str] = WeakKeyDictionary()
        self._named: dict[str, Solution] = {}
        self._request: list[Group] = []
        self._looking, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="recording", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __call__(self, served: Served) -> None:
        """Takes a group, or drops it; at once."""
        try:
            self._queue.put_nowait((self._clock(), served))
        except Full:
            self.fates["dropped"] += 1

    def report(self) -> Monitoring | None:
        """How things stand by the requests since the gateway began."""
        if self.watch is None:
            return None
        with self._looking:
            return self.watch.report()

    def _work(self) -> None:
        while True:
            # Asked before the queue is looked at: what came until the stop is in it.
            stopped = self._stop.is_set()
            batch = self._batch()
            try:
                self._take(batch)
            except Exception as error:
                self._failed(error, 0)
            if not batch and stopped:
                break
            if self.parts is not None and self.parts.due:
                self._flush(self.parts)
        if self.parts is not None:
            self._flush(self.parts)

    def _batch(self) -> list[tuple[float, Served]]:
        """What came within a while; nothing where nothing did."""
        batch: list[tuple[float, Served]] = []
        try:
            batch.append(self._queue.get(timeout=_IDLE))
            self._stop.wait(_IDLE)
            batch.extend(self._queue.get_nowait() for _ in range(self._queue.qsize()))
        except Empty:
            pass
        return batch

    def _take(self, batch: Sequence[tuple[float, Served]]) -> None:
        found = self._request
        for at, served in batch:
            try:
                group = group_of(at, served, self._id(served.solution))
                found.append(group)
                if served.label != CUSTOM:
                    self._named[group.solution] = served.solution
                if self.parts is None:
                    continue
                if self._kept(group.request):
                    self.parts.add(group, served.solution)
                else:
                    self.fates["skipped"] += 1
            except Exception as error:  # costs this group, and none of the others
                self._failed(error, 1)
        # More of the last request may be on its way, unless nothing came for a while.
        last = found[-1].request if batch and found else None
        whole = [group for group in found if group.request != last]
        self._request = found[len(whole) :]
        if self.watch is not None and whole:
            with self._looking:
                self.watch.add(whole, self._named)

    def _id(self, solution: Solution) -> str:
        if solution not in self._ids:
            self._ids[solution] = solution_id(solution)
        return self._ids[solution]

    def _kept(self, request: str) -> bool:
        """By the request's name, so that all or none of its groups are."""
        return int(request[:8], 16) < self._sample * 2**32

    def _flush(self, parts: Parts) -> None:
        count = parts.waiting
        try:
            self.fates["kept"] += parts.flush()
        except Exception as error:
            self._failed(error, count)

    def _failed(self, error: Exception, groups: int) -> None:
        """What an error says may hold texts of a request: it is not logged."""
        self.fates["lost"] += groups
        log.error("recording failed: %s", type(error).__name__)


def group_of(at: float, served: Served, key: str) -> Group:
    """What is kept of what was served at a time, by the solution of that name."""
    chosen = served.chosen
    told: dict[str, Any] = {
        name: getattr(served, name)
        for name in (
            "request",
            "place",
            "answer",
            "turn",
            "seed",
            "aligned",
            "columns",
            "prompt",
            "candidates",
        )
    }
    return Group(
        **told,
        time=at,
        palette=served.label,
        solution=key,
        values=served.values,
        probabilities=chosen.probabilities,
        drawn=chosen.index,
    )
