"""Candidates from any engine, for an event loop; and requests that are handed on to the model's server as they are.

An engine that is asynchronous itself, as `openai:` is, draws for many requests at a time, and a request that is
cancelled ends there too. Any other draws in a thread of its own, one request after another: one that has begun is
drawn to its end, one that waits is dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from valuepalette.engines import Candidate, Engine, Prompt, Sampling
from valuepalette.requesting import ServerError
from valuepalette.server.policies import Refusal

__all__ = ["Source"]


class Source:
    """An engine asked from an event loop; an async context manager. Whoever opened the engine closes it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._native: Any = engine if hasattr(engine, "draw") and hasattr(engine, "client") else None

    async def __aenter__(self) -> Source:
        if self._native is not None:
            await self._native.client.__aenter__()
        else:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._native is not None:
            await self._native.client.__aexit__(None, None, None)
        else:
            self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def forwards(self) -> bool:
        """Whether a request can be handed on as it is: the model is behind a server that speaks the same protocol."""
        return self._native is not None

    @property
    def chats(self) -> bool:
        """Whether prompts are put into a chat template; else texts are continued as they stand."""
        return self.engine.fingerprint.get("template") != "none"

    async def draw(self, prompt: Prompt, k: int, sampling: Sampling, seed: int) -> list[Candidate]:
        """k candidates. Raises Refusal where the model, or its server, gives fewer or none."""
        try:
            if self._native is not None:
                drawn = await self._native.draw(prompt, k, sampling=sampling, seed=seed)
            else:
                drawn = await asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: self.engine.sample([prompt], k, sampling=sampling, seed=seed)[0]
                )
        except ServerError as error:
            raise refused(error) from None
        except ValueError as error:
            raise Refusal(400, "prompt", str(error)) from None
        except Exception as error:
            raise Refusal(502, "engine", f"the model failed: {type(error).__name__}") from None
        if len(drawn) != k:
            raise Refusal(502, "engine", f"the model gave {len(drawn)} of {k} candidates")
        return drawn

    async def forward(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the model's server answers a request with."""
        try:
            return await self._native.client.post(path, {**content, "model": self._native.model})
        except ServerError as error:
            raise refused(error) from None

    async def stream(self, path: str, content: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks that the model's server answers with, as they come."""
        lines = self._native.client.stream(path, {**content, "model": self._native.model})
        try:
            async with aclosing(lines):
                async for line in lines:
                    data = line.removeprefix("data:").strip()
                    if not line.startswith("data:") or data == "[DONE]":
                        continue
                    try:
                        chunk = json.loads(data)
                    except ValueError:
                        chunk = None
                    if not isinstance(chunk, dict):
                        raise Refusal(502, "engine", "the model's server sent a chunk that is no JSON object")
                    yield chunk
        except ServerError as error:
            raise refused(error) from None


def refused(error: ServerError) -> Refusal:
    """What a client is told of a server that did not answer; its address stays here."""
    if error.status in (400, 404, 413, 422):
        said = str(error).partition(f"({error.status}): ")[2]
        return Refusal(400, "engine", f"the model's server refused the request: {said}")
    if error.status in (429, 503):
        after = 1 if error.after is None else max(1, round(error.after))
        return Refusal(503, "engine", "the model's server is busy", after=after)
    how = f"answered with status {error.status}" if error.status else "did not answer as it should"
    return Refusal(502, "engine", f"the model's server {how}")
