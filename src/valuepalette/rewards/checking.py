"""A reward's numbers, checked: what fails stops with one line; nothing is ever scored 0 in silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Reward
from valuepalette.rewards.exchange import last_turn

__all__ = ["RewardError", "RowError", "checked_score"]

_SHOWN = 60


class RewardError(ValueError):
    """A reward raised, or returned something other than one finite number per response and column."""


class RowError(ValueError):
    """A reward cannot score the response at `row` of those it was handed, and knows which one it is."""

    def __init__(self, message: str, row: int = 0) -> None:
        super().__init__(message)
        self.row = row


def checked_score(
    reward: Reward, name: str, prompts: Sequence[Prompt], responses: Sequence[str]
) -> NDArray[np.float64]:
    """The reward's numbers for these responses, shape (responses, columns), all finite.

    `name` is the value's name in the study, for the message. Raises RewardError with one line that names the
    value, the prompt and the response where the reward raises, where a number is NaN or infinite, and where the
    count is wrong; ValueError where prompts and responses differ in number. Where a reward raises on a batch and
    does not say by a RowError at which response, it is called again on halves of the batch to find it.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"prompts and responses must be as many; got {len(prompts)} and {len(responses)}")
    if not responses:
        return np.empty((0, len(reward.columns)))
    try:
        returned = reward.score(prompts, responses)
    except RowError as error:
        raise RewardError(
            f"value {name!r} failed {_where(prompts, responses, error.row)}: {' '.join(str(error).split())}"
        ) from error
    except Exception as error:
        row = _culprit(reward, prompts, responses)
        reason = f"{type(error).__name__}: {_line(str(error))}" if str(error) else type(error).__name__
        raise RewardError(f"value {name!r} failed {_where(prompts, responses, row)}: {reason}") from error
    try:
        numbers = np.asarray(returned, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"value {name!r} returned something other than numbers {_where(prompts, responses, 0)}"
        ) from error
    wanted = (len(responses), len(reward.columns))
    if numbers.shape == wanted[:1] and wanted[1] == 1:
        numbers = numbers[:, None]
    if numbers.shape != wanted:
        raise RewardError(
            f"value {name!r} returned an array of shape {numbers.shape} where {wanted[0]} responses and "
            f"{wanted[1]} columns need {wanted}, {_where(prompts, responses, 0)}"
        )
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        head = reward.columns[column].name
        what = repr(name) if head == name else f"{name!r} (column {head!r})"
        raise RewardError(f"value {what} is {numbers[row, column]} {_where(prompts, responses, row)}")
    return numbers


def _culprit(reward: Reward, prompts: Sequence[Prompt], responses: Sequence[str]) -> int:
    """The first response that the reward fails on by itself; 0 where it fails on the batch alone."""
    first, last = 0, len(responses)
    while last - first > 1:
        middle = (first + last) // 2
        if _raises(reward, prompts[first:middle], responses[first:middle]):
            last = middle
        elif _raises(reward, prompts[middle:last], responses[middle:last]):
            first = middle
        else:
            return 0
    return first


def _raises(reward: Reward, prompts: Sequence[Prompt], responses: Sequence[str]) -> bool:
    try:
        reward.score(prompts, responses)
    except Exception:
        return True
    return False


def _where(prompts: Sequence[Prompt], responses: Sequence[str], row: int) -> str:
    return f"at prompt {_line(last_turn(prompts[row]))!r}, response {_line(responses[row])!r}"


def _line(text: str) -> str:
    """A text on one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
