"""Cross-fitted levels, against folds written out by hand and against the truth over many pilots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import valuepalette as vp
from problems import many


def pilot(seed: int, prompts: int = 24, candidates: int = 6, **more: Any) -> vp.Pilot:
    rng = np.random.default_rng([451, seed])
    skill = rng.normal(size=(prompts, 1, 2))
    table = skill + rng.normal(size=(prompts, candidates, 2)) @ np.array([[1.0, -0.6], [0.0, 0.8]])
    columns = {
        "audience": np.repeat(np.where(np.arange(prompts) % 3, "adults", "children"), candidates),
        "traffic": np.repeat(0.5 + rng.random(prompts), candidates),
    }
    return vp.Pilot.from_arrays(
        {"humor": table[..., 0].ravel(), "tone": table[..., 1].ravel()},
        prompt_id=np.repeat(np.arange(prompts), candidates),
        columns=columns,
        **more,
    )


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


@pytest.mark.parametrize("weighting", ["prompts", "traffic"])
def test_folds_by_hand(weighting: str) -> None:
    """Each prompt by the weights that were found without its fold; mean and error over prompts."""
    on = pilot(1)
    found = vp.crossfit(on, {"humor": "+0.3", "tone": "keep"}, folds=4, weighting=weighting)
    a = on.groups(weighting).weights
    levels, gains = np.zeros((24, 2)), np.zeros((24, 2))
    for g in range(24):
        others = on.select(found.fold[on.prompt_index] != found.fold[g])
        alone = vp.solve(others, {"humor": "+0.3", "tone": "keep"}, weighting=weighting)
        assert found.weights[found.fold[g]] == pytest.approx(alone.weights.array)
        rows = on.array[on.prompt_index == g]
        levels[g] = softmax(rows @ alone.weights.array) @ rows
        gains[g] = levels[g] - rows.mean(axis=0)
    for figures, x in ((found.levels, levels), (found.gains, gains)):
        assert figures.array == pytest.approx(a @ x)
        away = (x - a @ x) * a[:, None]
        assert figures.se == pytest.approx(np.sqrt((away**2).sum(axis=0) / (1 - a @ a)))
    assert np.bincount(found.fold).tolist() == [6, 6, 6, 6]


def test_of_a_cohort_it_is_the_level_among_its_own() -> None:
    on = pilot(2, prompts=40)
    palette = vp.Palette({"tone": "P(< -1) <= 0.2"}, cohorts={"audience=children": {"humor": "+0.3"}})
    found = vp.crossfit(on, palette, folds=2)
    children = on.column("audience") == "children"
    name, tail = "humor @ audience=children", "P(tone < -1)"
    at = found.solution.features.index(name)
    levels, tails = np.zeros(40), np.zeros(40)
    for g in range(40):
        others = vp.solve(on.select(found.fold[on.prompt_index] != found.fold[g]), palette)
        rows = on.array[on.prompt_index == g]
        features = others.resolved.features_of(
            rows, on.values, {"audience": np.repeat(on.column("audience")[g], 6)}
        )
        law = softmax(features @ others.weights.array)
        levels[g], tails[g] = law @ rows[:, 0], law @ (rows[:, 1] < -1)
    assert found.levels[name] == pytest.approx(levels[children].mean())
    assert found.levels.se[at] == pytest.approx(levels[children].std(ddof=1) / np.sqrt(children.sum()))
    assert found.levels[tail] == pytest.approx(tails.mean())


def test_on_average_it_says_what_fresh_prompts_have() -> None:
    """On its own pilot a number that binds is met exactly, whatever it is worth; cross-fitted it is free to miss."""
    fresh, cross = [], []
    every = pilot(9999, prompts=1000)
    for rng in many(452, 30):
        on = pilot(int(rng.integers(1 << 30)), prompts=12)
        found = vp.crossfit(on, {"humor": 0.4}, folds=6)
        if found.left_out or found.solution.weights["humor"] > 3:
            continue
        fresh.append(vp.levels(every, {"humor": found.solution.weights["humor"]}).levels["humor"])
        cross.append(found.levels["humor"])
    assert len(fresh) > 20
    assert np.mean(cross) == pytest.approx(np.mean(fresh), abs=4 * np.std(cross) / np.sqrt(len(cross)))


@pytest.mark.parametrize(
    ("candidates", "mode"), [(4, "prompt"), (3, "prompt"), ("limit", "prompt"), (None, "joint")]
)
def test_every_kind_of_solution(candidates: Any, mode: Any) -> None:
    found = vp.crossfit(
        pilot(3, prompts=60), {"humor": "+0.2", "tone": "keep"}, candidates=candidates, mode=mode
    )
    assert found.gains["humor"] == pytest.approx(0.2, abs=4 * found.gains.se[0] + 0.05)
    text = str(found)
    assert ("indicative" in text) == (mode == "joint")
    assert "5 folds of 60 prompts" in text
    assert max(map(len, text.splitlines())) <= 100


def test_folds_that_cannot_have_the_palette_are_left_out() -> None:
    """One prompt alone reaches far: without it nothing has the level, so its fold is in no figure."""
    rng = np.random.default_rng(453)
    table = rng.normal(size=(10, 4))
    table[0, 0] = 100.0
    on = vp.Pilot.from_arrays({"humor": table.ravel()}, prompt_id=np.repeat(np.arange(10), 4))
    found = vp.crossfit(on, {"humor": 5.0}, folds=10)
    assert found.left_out == (int(found.fold[0]),)
    assert np.isnan(found.weights[found.fold[0]]).all()
    assert found.levels["humor"] < 3
    assert "Without 1 of the folds" in str(found)


@pytest.mark.parametrize("folds", [1, 25, 2.5, True])
def test_folds_are_a_number_of_prompts(folds: Any) -> None:
    with pytest.raises(ValueError, match="folds must lie between 2 and the 24 prompts"):
        vp.crossfit(pilot(4), {"humor": "keep"}, folds=folds)
