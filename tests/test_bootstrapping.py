"""The bootstrap on pilots: bounds taken anew, errors beside the sandwich's, and what a user reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import valuepalette as vp
from valuepalette.bootstrapping import Ranges, _bounds
from valuepalette.posing import pose
from valuepalette.resampling import draw
from valuepalette.resolving import resolve

INF = np.inf


def pilot(seed: int, prompts: int = 40, candidates: int = 8, **more: Any) -> vp.Pilot:
    """Two values that pull against each other, a third of its own; skill depends on the prompt."""
    rng = np.random.default_rng([441, seed])
    skill = rng.normal(size=(prompts, 1, 3))
    table = skill + rng.normal(size=(prompts, candidates, 3)) @ np.array(
        [[1.0, -0.6, 0.0], [0.0, 0.8, 0.0], [0.0, 0.2, 1.0]]
    )
    columns = {
        "audience": np.repeat(np.where(np.arange(prompts) % 3, "adults", "children"), candidates),
        "traffic": np.repeat(0.5 + rng.random(prompts), candidates),
    }
    return vp.Pilot.from_arrays(
        dict(zip(("humor", "tone", "care"), table.reshape(-1, 3).T, strict=True)),
        prompt_id=np.repeat(np.arange(prompts), candidates),
        columns=columns,
        **more,
    )


ENTRIES: dict[str, object] = {
    "humor": ["+0.2", "q60", "reach 20%", "<= reach 60%"],
    "tone": ["q40 within", "<= 0.4", "P(< -1) <= 0.3"],
    "care": ["base-0.5", "P(> 1) <= x1.1"],
}
COHORTS = {"audience=children": {"humor": ["q55", "keep"], "care": ["reach 10%", "<= 1.5"]}}


@pytest.mark.parametrize("weighting", ["prompts", "traffic"])
@pytest.mark.parametrize(("mode", "cohorts"), [("prompt", COHORTS), ("joint", None)])
def test_bounds_are_those_of_a_pilot_that_was_drawn_so(weighting: str, mode: Any, cohorts: Any) -> None:
    on = pilot(1, prompts=15)
    entries = ENTRIES if mode == "prompt" else ENTRIES | {"humor": ["+0.2", "q60"]}
    palette = vp.Palette(entries, cohorts=cohorts)
    setup = pose(on, palette, None, mode, weighting, 0)
    times = draw(15, 6, seed=1)
    shares = times * setup.groups.weights
    shares /= shares.sum(axis=1, keepdims=True)
    lower, upper = _bounds(setup, times, shares)
    anchor = setup.resolved.reported(np.zeros(len(lower[0])))
    for b in range(6):
        who = np.repeat(np.arange(15), times[b].astype(int))
        rows = np.concatenate([np.flatnonzero(on.prompt_index == g) for g in who])
        table = on.table.drop_columns(
            ["prompt_id", *(c for c in ("candidate",) if c in on.table.column_names)]
        )
        copy = vp.Pilot.from_arrays(
            {name: np.asarray(table[name])[rows] for name in on.values},
            prompt_id=np.repeat(np.arange(15), 8),
            columns={name: np.asarray(table[name])[rows] for name in ("audience", "traffic")},
        )
        columns = {"audience": copy.column("audience")} if cohorts else {}
        want = resolve(
            palette,
            copy.groups(weighting),
            copy.values,
            candidates=8,
            joint=mode == "joint",
            scales={},
            columns=columns,
        )
        # Features of cohorts are anchored where the pilot's is; a user reads both alike.
        there = shares[b] @ (
            np.ones((15, len(anchor))) if setup.resolved.inside is None else setup.resolved.inside
        )
        for mine, its in ((lower[b], want.lower), (upper[b], want.upper)):
            assert anchor + mine / there == pytest.approx(want.reported(its), abs=1e-9)


def test_the_largest_row_of_all_is_taken_as_given() -> None:
    """In joint mode the reach is an extreme of the pilot, which no resample exceeds; the base level moves."""
    on = pilot(1, prompts=15)
    setup = pose(on, vp.Palette({"humor": ["reach 20%", "<= reach 60%"]}), None, "joint", "prompts", 0)
    times = draw(15, 6, seed=1)
    lower, upper = _bounds(setup, times, times / 15)
    base = times / 15 @ setup.groups.means[:, 0]
    humor = on.array[:, 0]
    assert lower[:, 0] == pytest.approx(0.8 * base + 0.2 * humor.max())
    assert upper[:, 0] == pytest.approx(0.4 * base + 0.6 * humor.min())


@pytest.mark.parametrize("weighting", ["prompts", "traffic"])
def test_its_errors_are_those_of_the_sandwich(weighting: str) -> None:
    """Two ways to the same thing that share no formula: equal within what 500 resamples can tell."""
    on = pilot(2, prompts=300)
    found = vp.bootstrap(on, {"humor": "+0.3", "tone": "keep", "care": 0.5}, 500, weighting=weighting)
    solution = found.solution
    assert found.infeasible == 0
    assert found.residual <= 1e-6
    for ranges, figures in (
        (found.levels, solution.levels),
        (found.gains, solution.gains),
        (found.weights, solution.weights),
    ):
        assert ranges.se == pytest.approx(figures.se, rel=0.15)
        assert np.all((ranges.low < figures.array) & (figures.array < ranges.high))
        assert ranges.high - ranges.low == pytest.approx(2 * 1.96 * figures.se, rel=0.2)
    assert np.abs(found.optimism.array) == pytest.approx(0, abs=0.02)


def test_a_bound_taken_as_a_number_would_scatter_otherwise() -> None:
    """What "keep" moves with the pilot hardly moves its weight; a number at the same place does."""
    on = pilot(3, prompts=200)
    keep = vp.bootstrap(on, {"humor": "+0.3"}, 200)
    number = vp.bootstrap(on, {"humor": float(keep.solution.levels["humor"])}, 200)
    assert number.solution.weights["humor"] == pytest.approx(keep.solution.weights["humor"], rel=1e-6)
    assert number.weights.se[0] > 2.5 * keep.weights.se[0]


def test_a_weight_of_zero_has_an_interval_from_zero() -> None:
    on = pilot(4, prompts=60)
    start = vp.solve(on, {"humor": "+0.3", "tone": "free"})
    found = vp.bootstrap(on, {"humor": "+0.3", "tone": float(start.levels["tone"]) - 0.05}, 300)
    assert found.solution.weights["tone"] == 0
    low, high = found.weights["tone"]
    assert low == 0
    assert high > 0
    limit = found.solution.slack["tone"].limit
    assert np.quantile(found.weights.draws[:, 1], 0.95) == pytest.approx(limit, rel=0.4)


def test_resamples_that_cannot_have_the_palette_are_counted() -> None:
    on = pilot(5, prompts=25)
    found = vp.bootstrap(on, {"humor": float(vp.reach(on, None, "humor").high) - 0.05}, 100)
    assert 0.2 < found.infeasible < 0.7
    assert np.isnan(found.weights.draws).any(axis=1).mean() == pytest.approx(found.infeasible)
    assert "of the resamples the palette cannot be had" in str(found)


@pytest.mark.parametrize("candidates", [4, "limit", None])
@pytest.mark.parametrize("mode", ["prompt", "joint"])
def test_every_kind_ofsolution_of(candidates: Any, mode: Any) -> None:
    if mode == "joint":
        candidates = None
    on = pilot(6, prompts=50)
    cohorts = None if mode == "joint" else {"audience=children": {"care": "+0.1"}}
    palette = vp.Palette(
        {"humor": "+0.2", "tone": ["keep", "P(< -2) <= 0.2"], "care": "free"}, cohorts=cohorts
    )
    found = vp.bootstrap(on, palette, 60, candidates=candidates, mode=mode)
    solution = found.solution
    if candidates != "limit":
        assert found.weights.se == pytest.approx(solution.weights.se, rel=0.6, abs=0.1)
    assert found.levels.se == pytest.approx(solution.levels.se, rel=0.5)
    text = str(found)
    assert ("indicative" in text) == (mode == "joint")
    assert max(map(len, text.splitlines())) <= 100


def test_the_same_seed_is_the_same_bootstrap() -> None:
    on = pilot(7)
    a, b, c = (vp.bootstrap(on, {"humor": "+0.2"}, 30, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.weights.draws, b.weights.draws)
    assert not np.array_equal(a.weights.draws, c.weights.draws)


def test_max_is_held_where_it_was_found() -> None:
    found = vp.bootstrap(pilot(8), vp.Palette({"humor": "max", "tone": "keep"}, kl=0.2), 30)
    assert found.weights.draws[:, 0].std() > 0


def test_ranges_are_a_mapping() -> None:
    ranges = Ranges(("humor", "tone"), np.array([[0.0, 1.0], [1.0, 1.0], [np.nan, np.nan]]), 1.0)
    assert dict(ranges) == {"humor": (0.0, 1.0), "tone": (1.0, 1.0)}
    assert ranges.se == pytest.approx([0.5**0.5, 0])
    assert len(ranges) == 2
    with pytest.raises(KeyError, match="'care' is none of humor, tone"):
        ranges["care"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"resamples": 1}, "resamples must be a whole number, 2 or more, got 1"),
        ({"confidence": 95}, "confidence must lie"),
    ],
)
def test_what_makes_no_sense_is_one_line(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        vp.bootstrap(pilot(9), {"humor": "keep"}, **more)
    assert "\n" not in str(error.value)


def test_what_cannot_be_had_has_no_bootstrap() -> None:
    with pytest.raises(vp.Infeasible):
        vp.bootstrap(pilot(9), {"humor": 50})
