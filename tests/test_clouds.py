"""Weights at random: their law, their levels, and which of them lower nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test_regions import pilot
from valuepalette import Pilot, Solution, cloud


@pytest.mark.parametrize("per", ["unit", "deviation"])
@pytest.mark.parametrize("k", [None, 3])
def test_levels_are_those_of_the_weights(per: Any, k: int | None) -> None:
    found = cloud(pilot(), ["tone", "humor"], 5, k, per=per, radius=0.3, seed=3)
    for weights, levels in zip(found.weights, found.levels, strict=True):
        there = Solution.from_weights(pilot(), {"humor": 0.0}, k)
        spread = dict(zip(there.features, there.spread, strict=True))
        own = {
            name: float(weight / (spread[name] if per == "deviation" else 1.0))
            for name, weight in zip(found.values, weights, strict=True)
        }
        other = Solution.from_weights(pilot(), own, k, seed=3)
        assert levels == pytest.approx([other.levels[name] for name in found.values])
    assert found.base == pytest.approx([there.base[name] for name in found.values])
    assert found.candidates == (k or 5)


def test_their_sum_is_even_and_their_mixture_too() -> None:
    found = cloud(pilot(), ["humor", "tone", "wit"], 4000, radius=6.0)
    total = found.weights.sum(axis=1)
    assert total.max() <= 6
    assert np.quantile(total, [0.25, 0.5, 0.75]) == pytest.approx([1.5, 3, 4.5], abs=0.2)
    assert (found.weights / total[:, None]).mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_desirable_is_what_lowers_no_level() -> None:
    x, noise = np.random.default_rng(0).normal(size=(2, 20))
    rivals = Pilot.from_arrays({"a": x, "b": noise - x}, prompt_id=np.repeat(np.arange(4), 5))
    found = cloud(rivals, ["a", "b"], 200)
    lowered = (found.levels < found.base).any(axis=1)
    assert 0 < lowered.mean() < 1
    assert (found.desirable == ~lowered).all()
    assert found.share == pytest.approx(1 - lowered.mean())
    assert found.se == pytest.approx((found.share * (1 - found.share) / 200) ** 0.5)


def test_two_values_that_are_one_are_never_in_conflict() -> None:
    x = np.random.default_rng(0).normal(size=20)
    twin = Pilot.from_arrays({"a": x, "b": 3 * x + 1, "c": -x}, prompt_id=np.repeat(np.arange(4), 5))
    assert cloud(twin, ["a", "b"], 50).share == 1
    assert cloud(twin, ["a", "c"], 50).share == 0


def test_what_makes_no_sense_is_refused() -> None:
    for expected, changes in {
        "values must be a list": {"values": "humor"},
        "draws must be": {"draws": 0},
        "radius must be": {"radius": -1.0},
        "per must be": {"per": "sd"},
        "candidates must be": {"candidates": "limit"},
        "names 'wits'": {"values": ["wits"]},
    }.items():
        told: dict[str, Any] = {"values": ["humor"], **changes}
        with pytest.raises(ValueError, match=expected):
            cloud(pilot(), **told)
