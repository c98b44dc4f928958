"""Bets on ranks: fair where nothing changed, and won where something did."""

from __future__ import annotations

import numpy as np
import pytest

from valuepalette.conformal import ranks, winnings


def test_ranks_are_those_counted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 20, 50).astype(float), rng.integers(0, 20, 1300).astype(float)
    found = ranks(old, new, np.random.default_rng(1))
    before = list(old)
    for i, number in enumerate(new):
        larger, ties = sum(x > number for x in before), sum(x == number for x in before) + 1
        count = len(before) + 1
        assert larger / count <= found[i] <= (larger + ties) / count
        before.append(number)


def test_a_fair_game_is_fair() -> None:
    """The expectation of what a stake becomes on uniform ranks is the stake."""
    rng = np.random.default_rng(2)
    path = winnings(rng.random((50, 20_000)))
    for at in (0, 9, 49):
        won = np.exp(path[at])
        assert won.mean() == pytest.approx(1, abs=5 * won.std() / np.sqrt(len(won)))


def test_a_stake_by_hand() -> None:
    """Three thirds: on low ranks, on nothing, on high ranks."""
    first = (0.8 + 1.0 + 1.2) / 3
    assert winnings(np.array([[0.7]]))[0, 0] == pytest.approx(np.log(first))
    stakes = 0.99 * np.array([0.8, 1.0, 1.2]) / 3 + 0.01 * first / 3
    assert winnings(np.array([[0.7], [1.0]]))[1, 0] == pytest.approx(np.log(stakes @ [0.5, 1.0, 1.5]))


def test_nothing_is_won_where_nothing_changed() -> None:
    """Odds of 20 in hardly one of twenty runs of 1,000 looks, though the old ones are only fifty."""
    rng, won = np.random.default_rng(3), 0
    for _ in range(10):
        numbers = rng.lognormal(size=(1050, 20))
        shares = np.column_stack([ranks(own[:50], own[50:], rng) for own in numbers.T])
        won += int((winnings(shares).max(axis=0) >= np.log(20)).sum())
    assert won <= 200 * 0.05 + 3.7 * np.sqrt(200 * 0.05 * 0.95)


@pytest.mark.parametrize(("before", "within"), [(0, 200), (3000, 600)])
def test_a_change_is_found(before: int, within: int) -> None:
    """From the start, and after long peace, which makes what is new the rarer."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        new = np.concatenate([rng.normal(size=before), rng.normal(1.0, size=within)])
        path = winnings(ranks(rng.normal(size=1000), new, rng)[:, None])[:, 0]
        assert path[before:].max() >= np.log(200)
