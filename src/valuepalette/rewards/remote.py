"""What rewards behind a server share: the key, the address, the limits, and numbers that are numbers.

A study names the environment variable that holds a key, never the key: a study and its manifest may be read by
anyone.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

from valuepalette.engines import Message, Prompt
from valuepalette.requesting import Client, Limits, ServerError, run
from valuepalette.rewards.checking import RowError

__all__ = ["Source", "address", "batches", "key_from", "number", "plain_prompt", "shown"]

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def key_from(variable: str | None) -> str | None:
    """The key that an environment variable holds; None where no variable is named.

    Raises ValueError where it is not set, and where what is given cannot be a variable's name; that may be the key
    itself, and is not repeated.
    """
    if variable is None:
        return None
    if not isinstance(variable, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
        raise ValueError(
            "key must be the name of an environment variable in capitals, such as REWARD_KEY, and never the key "
            "itself; got something else"
        )
    if not os.environ.get(variable):
        raise ValueError(f"key must name an environment variable that is set; {variable} is not")
    return os.environ[variable]


def address(url: str, argument: str) -> tuple[str, str]:
    """A URL as the server's part and the path's. Raises ValueError where it is none, or may hold a secret."""
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{argument} must be http://… or https://… of a server")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            f"{argument} must be a server and a path, with no user, query or fragment: a key belongs in the "
            "environment, in the variable that `key` names"
        )
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


class Source:
    """A server that scores, asked within `limits`; one caller at a time, as many requests at once as these allow."""

    def __init__(self, url: str, *, key: str | None, limits: Limits) -> None:
        self.client = Client(url, key=key, limits=limits)
        self._alone = Lock()

    def each(
        self, items: Sequence[_Item], work: Callable[[Client, _Item], Coroutine[Any, Any, _Found]]
    ) -> list[_Found]:
        """`work(client, item)` of every item, in order; the first that fails stops the others."""
        if not items:
            return []
        with self._alone:
            return run(self._each(items, work))

    async def _each(
        self, items: Sequence[_Item], work: Callable[[Client, _Item], Coroutine[Any, Any, _Found]]
    ) -> list[_Found]:
        async with self.client as client:
            tasks = [asyncio.create_task(work(client, item)) for item in items]
            try:
                return await asyncio.gather(*tasks)
            except BaseException:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    def post(self, requests: Sequence[tuple[int, str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """What the server answers to each (first row, path, content). Raises RowError of that row where it fails."""

        async def ask(client: Client, request: tuple[int, str, dict[str, Any]]) -> dict[str, Any]:
            first, path, content = request
            try:
                return await client.post(path, content)
            except ServerError as error:
                raise RowError(str(error), first) from error

        return self.each(requests, ask)


def batches(rows: int, size: int) -> list[range]:
    """All rows in order, at most `size` at a time.

    >>> batches(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    return [range(first, min(first + size, rows)) for first in range(0, rows, size)]


def number(found: Any, row: int) -> float:
    """A number that a server gave for a row, NaN among them, or a RowError that shows what it gave instead."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise RowError(f"the server answered {shown(found)} where a number should be", row)
    try:
        return float(found)
    except OverflowError:
        raise RowError(f"the server answered {shown(found)}, too large for a number", row) from None


def shown(found: Any) -> str:
    """What a server said, short enough for an error."""
    text = " ".join(repr(found).split())
    return text if len(text) <= 80 else text[:79] + "…"


def plain_prompt(prompt: Prompt) -> str | list[Message]:
    """A prompt as JSON has it."""
    return prompt if isinstance(prompt, str) else [Message(**turn) for turn in prompt]
