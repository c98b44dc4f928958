"""An engine and rewards that cost nothing; a candidate depends on (seed, prompt, index) alone."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Candidate, Prompt, Sampling
from valuepalette.rewards import Column

WORDS = ["the", "sun", "rose", "over", "a", "quiet", "hill", "and", "nobody", "laughed", "at", "goat", "sang"]


class FakeEngine:
    """Words drawn by a hash. `delay` is how long a call takes; `calls` lists the prompts of each."""

    def __init__(self, *, delay: float = 0.0, model: str = "fake") -> None:
        self.delay = delay
        self.calls: list[list[Prompt]] = []
        self.closed = False
        self._model = model

    @property
    def fingerprint(self) -> Mapping[str, str]:
        return {"model": self._model, "revision": "1", "template": "none", "dtype": "float32"}

    def sample(
        self,
        prompts: Sequence[Prompt],
        k: int,
        *,
        sampling: Sampling,
        seed: int,
        logprobs: bool = False,
    ) -> list[list[Candidate]]:
        self.calls.append(list(prompts))
        time.sleep(self.delay)
        return [
            [self._draw(prompt, index, sampling, seed, logprobs) for index in range(k)] for prompt in prompts
        ]

    def close(self) -> None:
        self.closed = True

    def _draw(self, prompt: Prompt, index: int, sampling: Sampling, seed: int, logprobs: bool) -> Candidate:
        source = hashlib.sha256(f"{seed}|{prompt}|{index}|{sampling.temperature}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(source[:8], "little"))
        length = int(rng.integers(1, sampling.max_new_tokens + 1))
        return Candidate(
            text=" ".join(rng.choice(WORDS, length)),
            tokens=length,
            finish_reason="length" if length == sampling.max_new_tokens else "stop",
            logprob=-2.5 * length if logprobs else None,
        )


class FakeReward:
    """One number from each response; `fail_on` makes a call raise when a response holds that word."""

    reads: Literal["answer"] = "answer"

    def __init__(
        self,
        name: str,
        rule: Callable[[str], float] = len,
        *,
        version: str = "1",
        delay: float = 0.0,
        open_now: list[str] | None = None,
    ) -> None:
        self.columns = (Column(name, f"the fake value {name}"),)
        self.version = version
        self.calls = 0
        self._rule, self._delay, self._open = rule, delay, open_now
        if open_now is not None:
            assert not open_now, f"{name} is opened while {open_now} is open"
            open_now.append(name)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        assert len(prompts) == len(responses)
        self.calls += 1
        time.sleep(self._delay)
        return np.array([[self._rule(response)] for response in responses], dtype=float)

    def close(self) -> None:
        if self._open is not None:
            self._open.remove(self.columns[0].name)


def goats(response: str) -> float:
    """How often the goat comes up."""
    return float(response.split().count("goat"))


def variety(response: str) -> float:
    """The share of different words."""
    words = response.split()
    return len(set(words)) / (len(words) + 1)
