"""A bet that requests are not like the pilot's prompts: for changes that leave the mean where it was."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuepalette.conformal import ranks, winnings
from valuepalette.grouping import Array
from valuepalette.monitoring.reporting import Bet
from valuepalette.pilot import Pilot

__all__ = ["bets"]

_WHAT = ("mean", "spread")


def bets(
    pilot: Pilot, served: Pilot, groups: NDArray[np.intp], values: Sequence[str], confidence: float
) -> tuple[Bet, ...]:
    """Two bets on each value: on the mean of a prompt's candidates, and on their standard deviation.

    groups  of the served pilot, one to each request, in the order in which they came

    Under the base model that the pilot is of, on prompts like its own, any of all bets ever passes what is needed with
    probability 1 − confidence at most. As many candidates of a prompt are taken as every prompt has. Nothing where that
    is one, or there are no requests.
    """
    k = int(min(pilot.sizes.min(), served.sizes[groups].min(initial=np.iinfo(np.int64).max)))
    if k < 2 or not len(groups):
        return ()
    old = _scores(pilot, np.arange(pilot.prompts), values, k)
    new = _scores(served, groups, values, k)
    rng = np.random.default_rng(0)
    shares = np.column_stack([ranks(*pair, rng) for pair in zip(old.T, new.T, strict=True)])
    path = winnings(shares)
    needed = math.log(path.shape[1] / (1 - confidence))
    found: list[Bet] = []
    for i, (value, what) in enumerate((value, what) for value in values for what in _WHAT):
        past = np.flatnonzero(path[:, i] >= needed)
        most = float(path[:, i].max())
        found.append(
            Bet(
                name=value,
                what=what,
                evidence=most / math.log(10),
                needed=needed / math.log(10),
                at=int(past[0]) + 1 if len(past) else None,
            )
        )
    return tuple(found)


def _scores(pilot: Pilot, groups: NDArray[np.intp], values: Sequence[str], k: int) -> Array:
    """(G, 2 V): of each value the mean and the standard deviation of a group's first k candidates."""
    at = [pilot.values.index(name) for name in values]
    rows = pilot.order[pilot.starts[groups][:, None] + np.arange(k)]
    own = pilot.array[rows][:, :, at]
    return np.stack([own.mean(axis=1), own.std(axis=1, ddof=1)], axis=2).reshape(len(groups), -1)
