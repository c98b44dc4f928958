"""How many requests are let in, and what becomes of one whose client hangs up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from valuepalette.server.policies import Refusal

__all__ = ["Gate", "HungUp", "Ticket", "kept_alive", "unless_gone"]

_T = TypeVar("_T")


class HungUp(Exception):  # noqa: N818 - nobody is left to tell
    """The client is gone, and the work for it was stopped."""


class Gate:
    """`concurrency` requests under way at a time, `queue` more in line, in order; beyond these 429."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency, self.queue = concurrency, queue
        self.inside = 0
        self.turn = asyncio.Semaphore(concurrency)
        self._seconds = 1.0  # that a request takes, a moving average

    def admit(self) -> Ticket:
        """A place, to be given back; raises Refusal with the seconds after which there should be one."""
        if self.inside >= self.concurrency + self.queue:
            wait = math.ceil(self._seconds * self.inside / self.concurrency)
            raise Refusal(429, "rate_limit_exceeded", "too many requests wait", after=max(1, min(wait, 60)))
        return Ticket(self)

    def took(self, seconds: float) -> None:
        self._seconds += 0.1 * (seconds - self._seconds)


class Ticket:
    """A place inside the gate, given back once."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._since, self._held = gate, monotonic(), True
        gate.inside += 1

    def release(self) -> None:
        if self._held:
            self._held = False
            self._gate.inside -= 1
            self._gate.took(monotonic() - self._since)


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` comes to; it is cancelled, and HungUp raised, where the client hangs up before that."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise HungUp
    finally:
        for each in (task, gone):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def kept_alive(events: AsyncIterator[bytes], every: float, sign: bytes) -> AsyncIterator[bytes]:
    """The events, with a sign of life whenever none has come for so many seconds."""
    waiting: asyncio.Future[bytes] | None = None
    try:
        while True:
            if waiting is None:
                waiting = asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=every)
            if not done:
                yield sign
                continue
            ended, waiting = waiting, None
            try:
                event = ended.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await waiting
        await events.aclose()  # pyright: ignore[reportAttributeAccessIssue]
