"""Whether a model that is served gives what the same model gives in memory, on the same five exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Message, Prompt
from valuepalette.rewards import Reward
from valuepalette.rewards.checking import checked_score
from valuepalette.rewards.kinds import in_memory
from valuepalette.rewards.opening import open_reward

__all__ = ["EXCHANGES", "Parity", "check_parity"]

EXCHANGES: tuple[tuple[Prompt, str], ...] = (
    (
        "How do I bake bread?",
        "Mix flour, water, salt and yeast. Let it rise, then bake it until it sounds hollow.",
    ),
    ("Tell me a joke.", " I would, but nobody laughs at bread. "),
    ("¿Cuánto es 2 + 2?", "<think>Two and two.</think> Four — ça va?"),
    ("Why?", "No."),
    (
        (
            Message(role="user", content="Is it going to rain?"),
            Message(role="assistant", content="Where are you?"),
            Message(role="user", content="At home,\nof course."),
        ),
        "Then a window will tell you sooner than I can.",
    ),
)
"""Prompts and responses that differ in what goes wrong: length, blanks, letters, thoughts, turns."""


@dataclass(frozen=True)
class Parity:
    """The numbers in memory and served, shape (exchanges, columns), and how far they may lie apart.

    `difference` is the largest, `spread` the standard deviation in memory, which tells whether it matters.
    """

    columns: tuple[str, ...]
    memory: NDArray[np.float64]
    served: NDArray[np.float64]
    tolerance: float

    @property
    def difference(self) -> float:
        return float(np.abs(self.memory - self.served).max())

    @property
    def spread(self) -> float:
        return float(self.memory.std(axis=0).max())

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "agree" if self.agrees else "DIFFER"
        where = np.unravel_index(np.abs(self.memory - self.served).argmax(), self.memory.shape)
        row, column = (int(place) for place in where)
        return (
            f"served and in memory {verdict}: at most {self.difference:.3g} apart (allowed {self.tolerance:g}), at "
            f"exchange {row} in {self.columns[column]!r}, where they give {self.served[row, column]:.6g} and "
            f"{self.memory[row, column]:.6g}; the values spread by {self.spread:.3g}"
        )


def check_parity(
    line: Mapping[str, Any],
    *,
    name: str = "value",
    memory: Mapping[str, Any] | Reward | None = None,
    exchanges: Sequence[tuple[Prompt, str]] = EXCHANGES,
    tolerance: float = 0.01,
) -> Parity:
    """Scores the same exchanges by the `reward = "vllm"` line of a study and by the same model in memory.

    `memory` is the reward or line to compare with, where it is not the one `kinds.in_memory` derives: a folder
    instead of the name the server knows, say. Served in half precision a model gives other numbers in the second
    or third digit; a larger difference means another text, another template or an activation.
    """
    served = open_reward(name, line)
    local = memory if isinstance(memory, Reward) else open_reward(name, memory or in_memory(line))
    prompts, responses = [prompt for prompt, _ in exchanges], [response for _, response in exchanges]
    try:
        columns = tuple(column.name for column in local.columns)
        if columns != tuple(column.name for column in served.columns):
            raise ValueError(
                f"memory must measure what is served, {[c.name for c in served.columns]}; got {columns}"
            )
        return Parity(
            columns,
            checked_score(local, name, prompts, responses),
            checked_score(served, name, prompts, responses),
            tolerance,
        )
    finally:
        served.close()
        local.close()
