"""Two lanes: sliders are answered at once, in this process; what takes longer waits its turn in another one.

Python computes one thing at a time. Were ranges and plans computed beside the sliders, each movement would wait for
them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from valuepalette.studio.atelier import Atelier
from valuepalette.studio.opening import Opened

__all__ = ["Busy", "Lanes"]

_WAITING = 64
"""Requests of a lane at most."""

_here: Atelier | None = None
"""Of the worker's process alone: what it was given when it began."""


class Busy(RuntimeError):  # noqa: N818 - a state, not a fault
    """More requests wait than a page sends."""


class Lanes:
    """An atelier, and where its questions are answered.

    apart  whether the slow lane is a process of its own; a thread else
    """

    def __init__(self, opened: Opened, *, apart: bool = True) -> None:
        self.atelier = Atelier(opened)
        self._apart = apart
        self._fast = ThreadPoolExecutor(1, "studio")
        self._slow: Executor = self._worker()
        self._waiting = {"fast": 0, "slow": 0}

    def _worker(self) -> Executor:
        if not self._apart:
            return ThreadPoolExecutor(1, "studio-slow")
        method = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, method, initializer=_begin, initargs=(self.atelier.opened,))

    def warm(self) -> None:
        """Starts the slow lane, so that its first question need not wait for it."""
        if self._apart:
            self._slow.submit(_ready)

    async def fast(self, question: str, *given: Any) -> Any:
        return await self._ask("fast", self._fast, getattr(self.atelier, question), *given)

    async def slow(self, question: str, *given: Any) -> Any:
        if not self._apart:
            return await self._ask("slow", self._slow, getattr(self.atelier, question), *given)
        asked = self._slow
        try:
            return await self._ask("slow", asked, _answer, question, *given)
        except BrokenProcessPool:  # somebody ended it
            if self._slow is asked:  # the first to find out; others wait for the same new one
                self._slow = self._worker()
            return await self._ask("slow", self._slow, _answer, question, *given)

    async def _ask(self, lane: str, executor: Executor, question: Any, *given: Any) -> Any:
        if self._waiting[lane] >= _WAITING:
            raise Busy("too many requests wait")
        self._waiting[lane] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, question, *given)
        finally:
            self._waiting[lane] -= 1

    def close(self) -> None:
        self._fast.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=True, cancel_futures=True)


def _begin(opened: Opened) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    if hasattr(os, "nice"):
        os.nice(10)  # the sliders come first
    _here = Atelier(opened)


def _ready() -> None:
    """Nothing; whoever asks for it starts the worker."""


def _answer(question: str, *given: Any) -> Any:
    return getattr(_here, question)(*given)
