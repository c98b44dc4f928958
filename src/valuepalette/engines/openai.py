"""Sampling from any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, TGI, or a hosted one.

What a server can do is found out by asking: several candidates in one request, `top_k`, log-probabilities. What it
cannot do and the settings need is refused in one line; what can be had otherwise, is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from valuepalette.engines import Candidate, Prompt, Sampling
from valuepalette.engines.drawing import candidate_key
from valuepalette.requesting import Client, Limits, ServerError, run

__all__ = ["HOSTED", "OpenAIEngine", "tokens_used"]

HOSTED = "https://api.openai.com/v1"


class OpenAIEngine:
    """Draws candidates from a model behind a server.

    model     the server's name for it
    base_url  where the server is, `OPENAI_BASE_URL` where None, else the hosted one
    key       sent as a bearer token, `OPENAI_API_KEY` where None; never shown, kept or part of the fingerprint
    template  "own": the server's chat endpoint, which puts prompts into the model's own template; "none": its
              completions endpoint, which continues the text as it stands
    limits    what the server is asked to bear

    A candidate's seed depends on (seed, prompt, index); whether the server draws the same again for it is the
    server's affair. `logprob` is what the server says of the tokens it drew, which most do before temperature and
    truncation. Where it gives no log-probabilities, the tokens of a request with several candidates are divided
    evenly among them.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        key: str | None = None,
        template: str = "own",
        limits: Limits | None = None,
        transport: Any = None,
    ) -> None:
        if not model:
            raise ValueError("model must be openai:<the server's name of a model>, got openai:")
        if template not in ("own", "none"):
            raise ValueError(f'template must be "own" or "none" where a server applies it, got {template!r}')
        self.model, self.template = model, template
        url = base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
        key = key if key is not None else os.environ.get("OPENAI_API_KEY")
        self.client = Client(url, key=key, limits=limits, transport=transport)
        self._several = True  # until the server shows that it gives one candidate a request
        self._logprobs = True  # until it shows that it has none
        self._most = "max_tokens"  # until it asks for max_completion_tokens

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """The model, where it is served and how it is asked; a server does not tell more."""
        where = urlsplit(self.client.base_url)
        return {
            "model": f"openai:{self.model}",
            "revision": "the server's",
            "template": "the server's chat template" if self.template == "own" else "none",
            "dtype": "the server's",
            "server": f"{where.hostname}{f':{where.port}' if where.port else ''}{where.path}",
        }

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        """`k` candidates for each prompt, in order; see `valuepalette.engines.Engine`. All requests run together."""
        return run(self._sample(prompts, k, sampling, seed, logprobs))

    async def _sample(
        self, prompts: Sequence[Prompt], k: int, sampling: Sampling, seed: int, logprobs: bool
    ) -> list[list[Candidate]]:
        async with self.client:
            if not prompts:
                return []
            # The first one alone finds out what the server can do.
            first = await self.draw(prompts[0], k, sampling=sampling, seed=seed, logprobs=logprobs)
            rest = (
                self.draw(prompt, k, sampling=sampling, seed=seed, logprobs=logprobs)
                for prompt in prompts[1:]
            )
            return [first, *await asyncio.gather(*rest)]

    async def draw(
        self, prompt: Prompt, k: int, *, sampling: Sampling, seed: int, logprobs: bool = False
    ) -> list[Candidate]:
        """`k` candidates for one prompt, inside `async with engine.client`."""
        found: list[Candidate] = []
        while len(found) < k and self._several and k - len(found) > 1:
            own = candidate_key(seed, prompt, len(found))
            drawn = await self._request(prompt, k - len(found), sampling, own, logprobs)
            found += drawn[: k - len(found)]
            if len(drawn) < 2:
                self._several = False
        if len(found) < k:
            keys = [candidate_key(seed, prompt, index) for index in range(len(found), k)]
            rest = (self._request(prompt, 1, sampling, own, logprobs) for own in keys)
            found += [drawn[0] for drawn in await asyncio.gather(*rest)]
        return found

    async def _request(
        self, prompt: Prompt, n: int, sampling: Sampling, seed: int, logprobs: bool
    ) -> list[Candidate]:
        """Up to `n` candidates; leaves out of the request what the server has shown not to take."""
        while True:
            path, content = self._content(prompt, n, sampling, seed)
            try:
                answer = await self.client.post(path, content, used=tokens_used)
            except ServerError as error:
                if error.status not in (400, 422) or not self._give_way(
                    str(error), error.parameter, n, logprobs
                ):
                    raise _explained(error, sampling) from None
                if n > 1 and not self._several:
                    n = 1
                continue
            return _candidates(answer, self.client.base_url, logprobs)

    def _give_way(self, said: str, parameter: str | None, n: int, logprobs: bool) -> bool:
        """Whether the server refused something that can be done without."""
        if self._logprobs and not logprobs and (parameter or "logprobs") == "logprobs" and "logprob" in said:
            self._logprobs = False
            return True
        if self._most == "max_tokens" and "max_completion_tokens" in said:
            self._most = "max_completion_tokens"
            return True
        if n > 1 and self._several and (parameter == "n" or "'n'" in said or '"n"' in said or " n " in said):
            self._several = False
            return True
        return False

    def _content(self, prompt: Prompt, n: int, sampling: Sampling, seed: int) -> tuple[str, dict[str, Any]]:
        content: dict[str, Any] = {
            "model": self.model,
            "n": n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._most: sampling.max_new_tokens,
            "seed": seed % 2**31,
        }
        if sampling.top_k:
            content["top_k"] = sampling.top_k
        if sampling.stop:
            content["stop"] = list(sampling.stop)
        if self.template == "own":
            content["messages"] = _messages(prompt, sampling.system_prompt)
            if self._logprobs:
                content["logprobs"] = True
            return "chat/completions", content
        if not isinstance(prompt, str) or sampling.system_prompt is not None:
            raise ValueError('prompts must be texts without a system prompt where template = "none"')
        content["prompt"] = prompt
        if self._logprobs:
            content["logprobs"] = 0
        return "completions", content

    def close(self) -> None:
        """Nothing to free: connections end with each call."""


def _messages(prompt: Prompt, system_prompt: str | None) -> list[dict[str, str]]:
    turns = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [{**turn} for turn in prompt]
    )
    if system_prompt is not None and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system_prompt})
    return turns  # pyright: ignore[reportReturnType]


def tokens_used(answer: Mapping[str, Any]) -> int:
    """The tokens that an answer cost, as the server tells them; 0 where it does not."""
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else 0


def _candidates(answer: Mapping[str, Any], url: str, logprobs: bool) -> list[Candidate]:
    """What a server answered, or a ServerError where that is no completion."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ServerError(f"{url} answered without choices")
    usage = answer.get("usage")
    total = usage.get("completion_tokens") if isinstance(usage, dict) else None
    share = round(total / len(choices)) if isinstance(total, int) else None
    return [_candidate(choice, share, url, logprobs) for choice in choices]


def _candidate(choice: Any, share: int | None, url: str, logprobs: bool) -> Candidate:
    if not isinstance(choice, dict):
        raise ServerError(f"{url} answered with a choice that is no object: {choice!r:.80}")
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is None and isinstance(message, dict):
        text = ""  # an answer of no tokens
    if not isinstance(text, str):
        raise ServerError(f"{url} answered with a choice without text: {choice!r:.80}")
    chances = _chances(choice.get("logprobs"))
    if logprobs and chances is None:
        raise ServerError(f"{url} gives no log-probabilities, which logprobs = true needs")
    tokens = len(chances) if chances is not None else share
    if tokens is None:
        raise ServerError(f"{url} tells neither usage nor log-probabilities, so tokens cannot be counted")
    return Candidate(
        text=text,
        tokens=tokens,
        finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        logprob=sum(chances) if logprobs and chances is not None else None,
    )


def _chances(told: Any) -> list[float] | None:
    """Log-probabilities of the tokens drawn, in the shape of chat or of completions."""
    if not isinstance(told, dict):
        return None
    content = told.get("content")
    if isinstance(content, list):
        return [float(entry["logprob"]) for entry in content]
    listed = told.get("token_logprobs")
    return [float(entry) for entry in listed if entry is not None] if isinstance(listed, list) else None


def _explained(error: ServerError, sampling: Sampling) -> ServerError:
    """What to do where a setting is not taken."""
    if sampling.top_k and ("top_k" in str(error) or error.parameter == "top_k"):
        return ServerError(
            f"{error}; the server does not take top_k: set top_k = 0, and draw the pilot so too", error.status
        )
    return error
