"""Layouts: the same as before, kept while they are small and their groups are there."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import valuepalette as vp
from valuepalette import laying
from valuepalette.features import Feature
from valuepalette.grouping import Groups
from valuepalette.laying import tilted
from valuepalette.resolving import featured
from valuepalette.tilting import spread


def groups(seed: int = 0, prompts: int = 30, k: int = 6, features: int = 3) -> Groups:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(prompts * k, features))
    return Groups(values, k * np.arange(prompts + 1), np.full(prompts, 1 / prompts))


def test_a_layout_is_kept_with_its_groups_and_no_longer() -> None:
    p = groups()
    scale = spread(p, joint=False)
    first = tilted(p, scale, block=3, seed=1)
    assert tilted(p, scale, block=3, seed=1) is first
    others = [tilted(p, scale), tilted(p, scale, joint=True), tilted(p, scale, block=3, seed=2)]
    others += [tilted(p, scale, block=2, seed=1), tilted(p, 2 * scale, block=3, seed=1)]
    assert all(other is not first for other in others)
    gone = weakref.ref(first)
    del first, others, p
    gc.collect()
    assert gone() is None


def test_few_layouts_of_one_pilot_are_kept() -> None:
    p = groups()
    scale = spread(p, joint=False)
    first = weakref.ref(tilted(p, scale, block=3, seed=0))
    for seed in range(1, 20):
        tilted(p, scale, block=3, seed=seed)
    gc.collect()
    assert first() is None
    assert len(laying._LAID[p]) == laying._LAYOUTS


def test_a_large_layout_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    p = groups()
    scale = spread(p, joint=False)
    monkeypatch.setattr(laying, "KEPT", p.values.size * 4 - 1)
    assert tilted(p, scale, block=3) is not tilted(p, scale, block=3)


def test_what_was_asked_before_changes_no_digit() -> None:
    rng = np.random.default_rng(5)
    values = {"a": rng.normal(size=240), "b": rng.normal(size=240)}
    prompts = np.repeat(np.arange(40), 6)

    def solved(palette: dict[str, object], pilot: vp.Pilot, k: int | None) -> vp.Solution:
        return vp.solve(pilot, palette, k, seed=3)

    palettes: list[dict[str, object]] = [
        {"a": "+0.2"},
        {"a": "+0.3", "b": "keep"},
        {"a": ["+0.1", "P(< -1) <= 0.1"]},
        {"a": ["+0.1", "P(< -0.5) <= 0.25"]},
        {"b": "reach 40%"},
        {"a": "+0.2"},
    ]
    used = vp.Pilot.from_arrays(values, prompt_id=prompts)
    for palette in palettes:
        for k in (None, 4):
            fresh = solved(palette, vp.Pilot.from_arrays(values, prompt_id=prompts), k)
            again = solved(palette, used, k)
            assert np.array_equal(again.weights.array, fresh.weights.array)
            assert np.array_equal(again.levels.array, fresh.levels.array)
            assert np.array_equal(again.levels.se, fresh.levels.se)
            assert again.features == fresh.features


def test_a_solution_keeps_no_layouts() -> None:
    rng = np.random.default_rng(8)
    pilot = vp.Pilot.from_arrays({"a": rng.normal(size=240)}, prompt_id=np.repeat(np.arange(40), 6))
    before = len(laying._LAID)
    solutions = [vp.solve(pilot, {"a": ["+0.1", f"P(< {-1 - i / 10}) <= 0.2"]}) for i in range(8)]
    gc.collect()
    assert len(solutions) == 8
    assert len(laying._LAID) <= before + 2  # the pilot's last features, and the pilot itself


def test_features_are_those_of_the_names() -> None:
    p = groups(features=2)
    specs = (Feature("x"), Feature("y"))
    as_is = featured(specs, p, ["x", "y"], {})
    assert featured(specs, p, ["x", "y"], {}) is as_is
    assert np.array_equal(featured(specs, p, ["y", "x"], {}).values, p.values[:, ::-1])


def test_cohorts_are_those_of_the_prompts_at_hand() -> None:
    rng = np.random.default_rng(6)
    values = {"a": rng.normal(size=240)}
    prompts = np.repeat(np.arange(40), 6)
    who = np.repeat(np.where(np.arange(40) < 20, "young", "old"), 6)
    pilot = vp.Pilot.from_arrays(values, prompt_id=prompts, columns={"who": who})
    for member, other in (("young", "old"), ("old", "young")):
        palette = vp.Palette({}, cohorts={f"who={member}": {"a": "+0.3"}})
        told = vp.solve(pilot, palette)
        assert told.gains[f"a @ who={member}"] == pytest.approx(0.3, abs=1e-6)
        assert other not in str(told.features)
