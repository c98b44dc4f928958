"""How far a pass is: one line that is rewritten on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

__all__ = ["Progress", "duration"]


class Progress:
    """Counts what is done of `total`, with the rate and the time left.

    What was `done` before has no part in the rate. On a terminal the line is rewritten; elsewhere a line is
    printed at the start, every `every` seconds and at the end. Nothing is printed when `quiet`, or when there
    was nothing left to do.

    >>> with Progress("scoring humor", 4, unit="parts", stream=sys.stdout, clock=lambda: 0.0) as progress:
    ...     progress.advance(4)
    scoring humor: 0 of 4 parts
    scoring humor: 4 of 4 parts in 0 s
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "prompts",
        quiet: bool = False,
        every: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._unit, self._every = label, total, unit, every
        self._before = self._done = done
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._silent = quiet or done >= total
        self._terminal = self._stream.isatty()
        self._start = self._shown = clock()

    def __enter__(self) -> Progress:
        self._print(self._count(), last=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._print(f"{self._count()} in {duration(self._clock() - self._start)}", last=True)
        elif self._terminal and not self._silent:
            self._stream.write("\n")  # what comes next, an error most likely, has a line of its own

    def advance(self, count: int) -> None:
        """So much more is done."""
        self._done += count
        now = self._clock()
        if self._done >= self._total or (not self._terminal and now - self._shown < self._every):
            return
        self._shown = now
        elapsed = now - self._start
        rate = (self._done - self._before) / elapsed if elapsed > 0 else 0.0
        left = f", {rate:.3g}/s, {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        self._print(self._count() + left, last=False)

    def _count(self) -> str:
        return f"{self._label}: {self._done} of {self._total} {self._unit}"

    def _print(self, text: str, *, last: bool) -> None:
        if self._silent:
            return
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
            self._stream.write(f"\r\x1b[K{text[:width]}" + ("\n" if last else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """A length of time as one reads it.

    >>> [duration(seconds) for seconds in (7.4, 200, 7500)]
    ['7 s', '3 min 20 s', '2 h 05 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
