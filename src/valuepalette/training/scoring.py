"""Rewards as a trainer calls them: a function for each feature, all values measured once for a batch of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from valuepalette.engines.transformers import TransformersEngine
from valuepalette.grouping import Array
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score
from valuepalette.solution import Solution
from valuepalette.training import Task

__all__ = ["Scorer"]


class Scorer:
    """The features of fresh answers, worded and measured as the pilot's were: what was solved is what is trained.

    features  their names, those that the rewards measure
    """

    def __init__(
        self, rewards: Mapping[str, Reward], solution: Solution, task: Task, engine: TransformersEngine
    ) -> None:
        self._rewards, self._solution, self._task, self._engine = rewards, solution, task, engine
        self._values = [column.name for reward in rewards.values() for column in reward.columns]
        self._measured = solution.resolved.measured(self._values, task.columns)
        self.features = [name for name, there in zip(solution.features, self._measured, strict=True) if there]
        self._read = [engine.encode(prompt, task.sampling) for prompt in task.prompts]
        self._last: tuple[object, Array] | None = None

    def functions(self) -> list[Callable[..., list[float]]]:
        """A function of `completion_ids` and `row` for each of `features`, in order, by its name."""
        return [self._function(column, name) for column, name in enumerate(self.features)]

    def _function(self, column: int, name: str) -> Callable[..., list[float]]:
        def feature(*, completion_ids: Sequence[list[int]], row: Sequence[int], **_: Any) -> list[float]:
            return self._of(completion_ids, row)[:, column].tolist()

        feature.__name__ = name
        return feature

    def _of(self, answers: Sequence[list[int]], rows: Sequence[int]) -> Array:
        # The trainer hands the same list to each function in turn.
        if self._last is None or self._last[0] is not answers:
            self._last = answers, self.measure(answers, rows)
        return self._last[1]

    def measure(self, answers: Sequence[list[int]], rows: Sequence[int]) -> Array:
        """The features (answers, features) of answers in tokens to the prompts that `rows` number."""
        texts = [self._engine.decode(self._read[row], ids) for row, ids in zip(rows, answers, strict=True)]
        prompts = [self._task.prompts[row] for row in rows]
        parts = [checked_score(reward, name, prompts, texts) for name, reward in self._rewards.items()]
        columns = {name: [entries[row] for row in rows] for name, entries in self._task.columns.items()}
        features = self._solution.resolved.features_of(
            np.concatenate(parts, axis=1), self._values, columns, partial=True
        )
        return features[:, self._measured]
