"""Scoring across requests: whatever waits while the rewards are busy is scored with the next batch.

One thread, since rewards need not bear several. A batch that fails is scored again request by request, so that one
text that a reward cannot score costs nobody else an answer. What a reward says when it fails may hold the texts of
other requests, so it is neither told nor logged: only which value failed, and how.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from valuepalette.engines import Prompt
from valuepalette.grouping import Array
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.exchange import Reads

__all__ = ["Scorer", "ScoringError"]

Values = dict[str, Array]
_ROWS = 1024
"""Answers in a batch, unless one request alone has more."""


class ScoringError(Exception):
    """A reward gave no numbers; says which value and what kind of error, and nothing of the texts."""


@dataclass(eq=False)
class _Job:
    prompts: Sequence[Prompt]
    responses: Sequence[str]
    done: asyncio.Future[Values]


class Scorer:
    """Rewards that are open, asked from an event loop; an async context manager.

    rewards  by the name in the study
    columns  which columns to keep; all where None
    """

    def __init__(self, rewards: Mapping[str, Reward], columns: Sequence[str] | None = None) -> None:
        self._rewards = dict(rewards)
        heads = [column.name for reward in self._rewards.values() for column in reward.columns]
        self.columns = tuple(heads if columns is None else (name for name in heads if name in columns))
        self._waiting: list[_Job] = []
        self._work: asyncio.Task[None] | None = None
        self.batches = 0

    async def __aenter__(self) -> Scorer:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._work is not None:
            self._work.cancel()
        for job in self._waiting:
            job.done.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Values:
        """Every column's numbers, (n,) by name. Raises ScoringError."""
        job = _Job(prompts, responses, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain())
        return await job.done

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._batch()
            if not batch:
                continue
            self.batches += 1
            results = await loop.run_in_executor(self._thread, self._together, batch)
            for job, result in zip(batch, results, strict=True):
                if job.done.done():
                    continue
                if isinstance(result, ScoringError):
                    job.done.set_exception(result)
                else:
                    job.done.set_result(result)

    def _batch(self) -> list[_Job]:
        """The jobs that wait, as many as fit; those that nobody waits for any more are dropped."""
        batch: list[_Job] = []
        rows = 0
        while self._waiting and (not batch or rows + len(self._waiting[0].responses) <= _ROWS):
            job = self._waiting.pop(0)
            if not job.done.done():
                batch.append(job)
                rows += len(job.responses)
        return batch

    def _together(self, jobs: Sequence[_Job]) -> list[Values | ScoringError]:
        prompts = [prompt for job in jobs for prompt in job.prompts]
        responses = [response for job in jobs for response in job.responses]
        whole = self._values(prompts, responses)
        if isinstance(whole, ScoringError):
            if len(jobs) == 1:
                return [whole]
            return [self._values(job.prompts, job.responses) for job in jobs]
        ends = np.cumsum([len(job.responses) for job in jobs])
        parts = {name: np.split(numbers, ends[:-1]) for name, numbers in whole.items()}
        return [{name: split[i] for name, split in parts.items()} for i in range(len(jobs))]

    def _values(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Values | ScoringError:
        values: Values = {}
        for name, reward in self._rewards.items():
            try:
                numbers = checked_score(_Once(reward), name, prompts, responses)
            except Exception as error:
                cause = error.__cause__ if error.__cause__ is not None else error
                return ScoringError(f"the reward of {name} failed: {type(cause).__name__}")
            heads = (column.name for column in reward.columns)
            values |= dict(zip(heads, numbers.T, strict=True))
        return {name: values[name] for name in self.columns}


class _Once:
    """A reward that is asked once: a second call, in search of the text that it failed on, fails at once.

    A source that is down would make every look last as long as the first.
    """

    def __init__(self, reward: Reward) -> None:
        self._reward, self._asked = reward, False
        self.columns, self.version = reward.columns, reward.version
        self.reads: Reads = reward.reads

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Array:
        if self._asked:
            raise RuntimeError("it was asked before")
        self._asked = True
        return self._reward.score(prompts, responses)

    def close(self) -> None:
        """Whoever opened the reward closes it."""
