"""Requests to a server that may be busy, slow or gone: JSON out, JSON back, within limits, tried again where it helps.

A key is sent and never shown: no error, representation or log line holds it.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Client", "Limits", "ServerError", "run"]

_T = TypeVar("_T")
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_SAID = 300  # characters of what a server says that an error repeats


class ServerError(ValueError):
    """A server did not answer as it should; `status` is its HTTP status, None where there was no answer.

    `parameter` is the field of the request that it refused, where it says so; `after` how many seconds to wait.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        parameter: str | None = None,
        after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.parameter, self.after = status, parameter, after


@dataclass(frozen=True)
class Limits:
    """What a server is asked to bear.

    concurrency   requests under way at a time
    per_minute    requests begun in any minute; None for no budget
    tokens        tokens in any minute, as the server counts them; None for no budget
    timeout       seconds that one try may take
    tries         how often a request is sent before giving up: again after 429, 5xx, a timeout, a lost connection
    backoff       seconds before the second try; doubled each time, at most a minute, unless the server says when
    """

    concurrency: int = 16
    per_minute: int | None = None
    tokens: int | None = None
    timeout: float = 120.0
    tries: int = 6
    backoff: float = 0.5

    def __post_init__(self) -> None:
        for name in ("concurrency", "per_minute", "tokens", "tries"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        for name in ("timeout", "backoff"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")


class Client:
    """A server at `base_url`; an async context manager, one connection pool for all that is sent inside it.

    Raises ModuleNotFoundError with the command where httpx is missing.
    """

    def __init__(
        self, base_url: str, *, key: str | None = None, limits: Limits | None = None, transport: Any = None
    ) -> None:
        if find_spec("httpx") is None:
            raise ModuleNotFoundError(
                'a model or reward behind a server needs httpx: pip install "valuepalette[remote]"',
                name="httpx",
            )
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        if key is not None and not re.fullmatch(r"[!-~]*", key):
            # httpx would name the header it cannot send, and with it the key.
            raise ValueError("key must be printable ASCII, with no blank or line break in it or after it")
        self.base_url = base_url.rstrip("/")
        self.limits = limits or Limits()
        self._key, self._transport = key, transport
        self._budget = _Budget(self.limits)
        self._open: Any = None

    def __repr__(self) -> str:
        return f"Client({self.base_url!r})"

    async def __aenter__(self) -> Self:
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        most = self.limits.concurrency
        self._open = httpx.AsyncClient(
            headers=headers,
            timeout=self.limits.timeout,
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            transport=self._transport,
        )
        self._turn = asyncio.Semaphore(most)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()
        self._open = None

    async def post(
        self,
        path: str,
        content: Mapping[str, Any],
        *,
        used: Callable[[dict[str, Any]], int] = lambda _: 0,
    ) -> dict[str, Any]:
        """The JSON object that the server answers `content` with; `used(answer)` is how many tokens it cost.

        Raises ServerError, one line, where the server refuses, answers nonsense, or does not answer in all tries.
        """
        async with self._turn:
            for attempt in range(1, self.limits.tries + 1):
                await self._budget.wait()
                try:
                    answer = await self._once(path, content)
                except ServerError as error:
                    if attempt == self.limits.tries or error.status not in (None, *_AGAIN):
                        raise
                    await asyncio.sleep(self._pause(attempt, error.after))
                    continue
                self._budget.spend(used(answer))
                return answer
        raise AssertionError("a request is sent at least once")

    async def stream(self, path: str, content: Mapping[str, Any]) -> AsyncIterator[str]:
        """The lines that the server answers `content` with, as they come. Sent once: what has begun is not begun anew.

        Raises ServerError as `post` does. Whoever stops listening closes the connection with `aclose`.
        """
        import httpx

        async with self._turn:
            await self._budget.wait()
            url = self._url(path)
            try:
                async with self._open.stream("POST", url, json=content) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        raise self._refused(url, response)
                    async for line in response.aiter_lines():
                        yield line
            except httpx.HTTPError as error:
                raise self._lost(url, error) from None

    def _pause(self, attempt: int, after: float | None) -> float:
        if after is not None:
            return min(after, 60.0)
        return min(self.limits.backoff * 2 ** (attempt - 1), 60.0) * random.uniform(0.75, 1.25)

    def _hide(self, said: str) -> str:
        """What a server says, without the key that it may repeat."""
        return said.replace(self._key, "[key]") if self._key else said

    async def _once(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        url = self._url(path)
        try:
            response = await self._open.post(url, json=content)
        except httpx.HTTPError as error:
            raise self._lost(url, error) from None
        if response.status_code >= 400:
            raise self._refused(url, response)
        try:
            answer = response.json()
        except ValueError:
            raise ServerError(f"{url} did not answer in JSON: {_short(self._hide(response.text))}") from None
        if not isinstance(answer, dict):
            raise ServerError(f"{url} did not answer with a JSON object: {_short(self._hide(response.text))}")
        return answer

    def _url(self, path: str) -> str:
        return f"{self.base_url}/{path.lstrip('/')}"

    def _lost(self, url: str, error: Exception) -> ServerError:
        """What became of a request that got no answer."""
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return ServerError(f"{url} did not answer within {self.limits.timeout:g} s")
        return ServerError(f"{url} cannot be reached: {str(error) or type(error).__name__}")

    def _refused(self, url: str, response: Any) -> ServerError:
        """What a server says of a request that it does not take."""
        said, parameter = _complaint(response)
        return ServerError(
            f"{url} refused ({response.status_code}): {_short(self._hide(said))}",
            response.status_code,
            parameter,
            _seconds(response.headers.get("Retry-After")),
        )


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` comes to, also where an event loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@dataclass
class _Budget:
    """Requests and tokens of the last minute; `wait` returns when another request may begin."""

    limits: Limits
    begun: deque[float] = field(default_factory=deque)
    spent: deque[tuple[float, int]] = field(default_factory=deque)

    async def wait(self) -> None:
        while (pause := self._left()) > 0:
            await asyncio.sleep(pause)
        self.begun.append(_now())

    def spend(self, tokens: int) -> None:
        if tokens:
            self.spent.append((_now(), tokens))

    def _left(self) -> float:
        """Seconds until there is room in both budgets."""
        start = _now() - 60
        while self.begun and self.begun[0] <= start:
            self.begun.popleft()
        while self.spent and self.spent[0][0] <= start:
            self.spent.popleft()
        waits = [0.0]
        if self.limits.per_minute is not None and len(self.begun) >= self.limits.per_minute:
            waits.append(self.begun[-self.limits.per_minute] - start)
        if self.limits.tokens is not None:
            over = sum(tokens for _, tokens in self.spent) - self.limits.tokens
            for when, tokens in self.spent:
                if over < 0:
                    break
                waits.append(when - start)
                over -= tokens
        return max(waits)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _complaint(response: Any) -> tuple[str, str | None]:
    """What a server says is wrong, and the field it names, in OpenAI's shape or FastAPI's or none."""
    try:
        said = response.json()
    except ValueError:
        return response.text, None
    error = said.get("error", said) if isinstance(said, dict) else said
    if isinstance(error, dict):
        told = error.get("message") or error.get("detail") or error
        parameter = error.get("param")
        return str(told), parameter if isinstance(parameter, str) else None
    return str(error), None


def _seconds(given: str | None) -> float | None:
    try:
        return None if given is None else max(0.0, float(given))
    except ValueError:
        return None


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SAID else flat[: _SAID - 1] + "…"
