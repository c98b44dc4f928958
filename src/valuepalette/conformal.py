# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Are new numbers like the old ones? A bet against it, whose winnings are evidence however often one looks.

If old and new come in an order that means nothing, the rank of each new one among all before it is uniform and tells
nothing of the next. A player who bets on ranks then plays a fair game, and has 1 / alpha times the stake at any time
with probability alpha at most (Ville). Nothing else is assumed: no moments, no number of old ones that would be enough.

The ranks are conformal p-values, and the player is the Simple Jumper of Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and
Gammerman, "Retrain or not retrain: conformal test martingales for change-point detection" (COPA 2021).
"""

from __future__ import annotations

import numpy as np

from valuepalette.grouping import Array

__all__ = ["ranks", "winnings"]

_JUMP = 0.01
"""The share of the stake that changes its bet with each new number."""
_BLOCK = 512


def ranks(old: Array, new: Array, rng: np.random.Generator) -> Array:
    """Of each new number, the share of all numbers until then that are larger, ties at random, (n,).

    >>> ranks(np.array([1.0, 2.0, 3.0]), np.array([9.0, 0.0]), np.random.default_rng(0)).round(2)
    array([0.16, 0.85])
    """
    before, out = np.sort(old), np.empty(len(new))
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        apart = block[None, :] - block[:, None]  # [i, j]: how much larger the j-th is
        earlier = np.tri(len(block), k=-1, dtype=bool)
        larger = len(before) - np.searchsorted(before, block, "right") + ((apart > 0) & earlier).sum(axis=1)
        ties = np.searchsorted(before, block, "right") - np.searchsorted(before, block, "left")
        ties = ties + ((apart == 0) & earlier).sum(axis=1) + 1
        count = len(before) + 1 + np.arange(len(block))
        out[start : start + len(block)] = (larger + rng.random(len(block)) * ties) / count
        before = np.sort(np.concatenate([before, block]), kind="stable")
    return out


def winnings(shares: Array) -> Array:
    """The logarithm of what a stake of one has become after each rank, (n, m) for ranks (n, m).

    >>> winnings(np.full((100, 1), 0.02))[-1].round(1)
    array([37.5])
    """
    bets = np.array([-1.0, 0.0, 1.0])[:, None]
    stakes, scale = np.full((3, shares.shape[1]), 1 / 3), np.zeros(shares.shape[1])
    out = np.empty_like(shares)
    for i, rank in enumerate(shares):
        stakes = (1 - _JUMP) * stakes + _JUMP * stakes.mean(axis=0)
        stakes = stakes * (1 + bets * (rank - 0.5))
        whole = stakes.sum(axis=0)
        scale = scale + np.log(whole)
        stakes = stakes / whole
        out[i] = scale
    return out
