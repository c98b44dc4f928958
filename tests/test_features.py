"""More than lower bounds: tails, cohorts, several entries on one value, and levels of human answers.

Closed forms first, then a cohort against its own prompts alone, then the cone solver, then what is written and read.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import valuepalette as vp
from oracles import Problem, cone, problem, tilt, violation
from problems import many
from valuepalette.dual import Status
from valuepalette.features import Feature, Resolved, member
from valuepalette.palette import Palette, Subject, parse
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Infeasible, Solution

INF = np.inf
CHILDREN = "audience=children"


def simulated(
    seed: int, prompts: int = 40, k: int = 6, scales: dict[str, str] | None = None, **columns: Any
) -> Pilot:
    """Two correlated values with an effect of the prompt; every third prompt is a child's, and its answers differ."""
    rng = np.random.default_rng(seed)
    children = np.arange(prompts) % 3 == 0
    mean = rng.normal(size=(prompts, 1, 2)) - 0.5 * children[:, None, None]
    values = mean + rng.normal(size=(prompts, k, 2)) @ np.array([[1.0, -0.4], [0.0, 0.8]])
    audience = np.where(children, "children", "adults")
    rewards = {name: {"scale": scale} for name, scale in (scales or {}).items()}
    return Pilot.from_arrays(
        {"humor": values[..., 0].ravel(), "care": values[..., 1].ravel()},
        prompt_id=np.repeat(np.arange(prompts), k),
        columns={"audience": np.repeat(audience, k), **columns},
        metadata=PilotMetadata(rewards=rewards),
    )


def one_line(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# ---- tails


def test_a_tail_in_closed_form() -> None:
    """Two of five answers are bad everywhere, 20 % are wanted: λ is the difference of the log odds."""
    values = np.tile([-3.0, -2.5, 0.0, 1.0, 2.0], 7)
    pilot = Pilot.from_arrays({"care": values}, prompt_id=np.repeat(np.arange(7), 5))
    solution = vp.solve(pilot, {"care": "P(< -2) <= 0.2"})
    assert solution.features == ("care", "P(care < -2)")
    assert solution.asked == {"care": "free", "P(care < -2)": "<= 0.2"}
    assert solution.base["P(care < -2)"] == pytest.approx(0.4)
    assert solution.levels["P(care < -2)"] == pytest.approx(0.2)
    assert solution.weights["P(care < -2)"] == pytest.approx(np.log(0.2 / 0.8) - np.log(0.4 / 0.6))
    assert solution.weights["care"] == 0
    assert solution.levels["care"] == pytest.approx(0.2 * -2.75 + 0.8 * 1.0)
    # Among bad answers, and among good ones, the choice is the base model's.
    chance = solution.probabilities(solution.resolved.features_of(values[:5, None], ["care"]))
    np.testing.assert_allclose(chance, [0.1, 0.1, 0.8 / 3, 0.8 / 3, 0.8 / 3])


@pytest.mark.parametrize(
    ("tail", "share"), [("<", 0.25), ("<=", 0.5), (">", 0.5), (">=", 0.75)], ids=["lt", "le", "gt", "ge"]
)
def test_ties_part_strict_from_weak(tail: str, share: float) -> None:
    pilot = Pilot.from_arrays({"care": [-1.0, 0.0, 1.0, 2.0]}, prompt_id=[0] * 4)
    solution = vp.solve(pilot, {"care": f"P({tail} 0) <= 1"})
    assert solution.base[f"P(care {tail} 0)"] == share


def test_a_threshold_may_be_a_quantile() -> None:
    pilot = simulated(1)
    q10 = float(np.quantile(pilot.array[:, 1], 0.1))
    by_quantile = vp.solve(pilot, {"care": "P(<= q10) <= 0.05"})
    by_number = vp.solve(pilot, {"care": f"P(<= {q10!r}) <= 0.05"})
    assert by_quantile.features[1] == "P(care <= q10)"
    assert by_quantile.base.array[1] == pytest.approx(0.1, abs=1 / 240)
    np.testing.assert_array_equal(by_quantile.weights.array, by_number.weights.array)


def test_a_tail_is_a_probability() -> None:
    pilot = simulated(2)
    half = vp.solve(pilot, {"care": "P(< -1) <= x0.5"})
    assert half.levels.array[1] == pytest.approx(half.base.array[1] / 2)
    kept = vp.solve(pilot, {"humor": "+0.4", "care": "P(< -1) <= keep"})
    assert kept.levels["P(care < -1)"] <= kept.base["P(care < -1)"] + 1e-9
    assert vp.solve(pilot, {"humor": "+0.4"}).levels["care"] < kept.levels["care"]


def test_a_tail_cannot_fall_below_the_share_of_prompts_whose_candidates_are_all_bad() -> None:
    """One prompt of four has bad candidates alone; of the others one in two or two in three is bad."""
    values = [-3.0, -3.0, -3.0, -3.0, 1.0, 1.0, -3.0, 1.0, 1.0, -3.0, -3.0, 1.0]
    pilot = Pilot.from_arrays({"care": values}, prompt_id=np.repeat(np.arange(4), 3))
    with pytest.raises(Infeasible) as caught:
        vp.solve(pilot, {"care": "P(< -2) <= 0.2"})
    assert str(caught.value) == (
        "Choosing among 3 candidates, on these 4 prompts, P(care < -2) cannot fall below 0.250; the palette asks 0.200 "
        "(standard error of the gap 0.25). P(care < -2) alone is beyond reach, which ends at 0.250: on that share of "
        "the prompts all candidates are below -2."
    )
    edge = vp.solve(pilot, {"care": "P(< -2) <= 0.25"})
    assert edge.status is Status.BOUNDARY
    assert edge.levels["P(care < -2)"] == pytest.approx(0.25)
    features = edge.resolved.features_of(np.array([[-3.0], [1.0], [1.0]]), ["care"])
    np.testing.assert_allclose(edge.probabilities(features), [0, 0.5, 0.5])
    # With two of the three drawn, the last prompt's are both bad one time in three.
    reach = vp.reach(pilot, {"care": ["P(< -2) <= 1", "keep"]}, "P(care < -2)", 2)
    bad = [[v < -2 for v in own] for own in np.reshape(values, (4, 3))]
    all_bad = np.mean([np.mean([all(pair) for pair in combinations(own, 2)]) for own in bad])
    assert all_bad == pytest.approx((1 + 1 / 3) / 4)
    assert vp.reach(pilot, {"care": "P(< -2) <= 1"}, "P(care < -2)", 2).low <= all_bad + 1e-6
    assert reach.low == pytest.approx(all_bad, abs=1e-5)
    said = str(vp.solve(pilot, {"care": "P(< -2) <= 0.3"}, 2, on_infeasible="return").certificate)
    assert said.endswith("which ends at 0.333: k is too small, k = 3 would reach it.")
    said = str(vp.solve(pilot, {"care": "P(< -2) <= 0.2"}, 2, on_infeasible="return").certificate)
    assert said.endswith("with k = 3 at 0.250: on that share of the prompts all candidates are below -2.")


def test_where_prompts_differ_in_number_the_share_is_of_draws() -> None:
    pilot = Pilot.from_arrays({"care": [-3.0, -3.0, 1.0, -3.0, -3.0]}, prompt_id=[0, 0, 0, 1, 1])
    said = str(vp.solve(pilot, {"care": "P(< -2) <= 0.1"}, 2, on_infeasible="return").certificate)
    assert said.endswith("which ends at 0.66: so often all k = 2 candidates drawn are below -2.")
    said = str(vp.solve(pilot, {"care": "P(> 0) >= 0.5"}, 2, on_infeasible="return").certificate)
    assert said.endswith("which ends at 0.34: else none of the k = 2 candidates drawn is above 0.")


def test_a_share_that_is_too_high_says_so_too() -> None:
    pilot = Pilot.from_arrays({"care": [-3.0, -3.0, 1.0, 0.0]}, prompt_id=[0, 0, 1, 1])
    said = str(vp.solve(pilot, {"care": "P(>= 1) >= 0.6"}, on_infeasible="return").certificate)
    assert "P(care >= 1) cannot rise above 0.50; the palette asks 0.60" in said
    assert said.endswith("which ends at 0.50: on the rest of the prompts no candidate is at or above 1.")
    said = str(vp.solve(pilot, {"care": "P(> 9) >= 0.6"}, mode="joint", on_infeasible="return").certificate)
    assert said.endswith("no answer of the pilot is above 9.")


def test_no_bad_answer_where_there_is_a_good_one() -> None:
    pilot = Pilot.from_arrays({"care": [-3.0, 1.0, 2.0, -3.0, -3.0, 1.0]}, prompt_id=[0] * 3 + [1] * 3)
    solution = vp.solve(pilot, {"care": "P(< -2) <= 0"})
    assert solution.status is Status.BOUNDARY
    for rows, chance in (([-3.0, 3.0, -2.5], [0, 1, 0]), ([-3.0, -3.0, -2.5], [1 / 3] * 3)):
        features = solution.resolved.features_of(np.array(rows)[:, None], ["care"])
        np.testing.assert_allclose(solution.probabilities(features), chance)
    # Half of none is none, and costs nothing.
    assert vp.solve(pilot, {"care": "P(< -5) <= x0.5"}).kl == 0


# ---- cohorts


def test_a_cohort_in_closed_form() -> None:
    """Answers of 0 and 1; the children's alone are tilted to 3 : 1."""
    pilot = Pilot.from_arrays(
        {"care": np.tile([0.0, 1.0], 4)},
        prompt_id=np.repeat(np.arange(4), 2),
        columns={"audience": np.repeat(["children", "adults", "all", "children"], 2)},
    )
    solution = vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"care": 0.75}}))
    name = "care @ audience=children"
    assert solution.features == (name, "care")
    assert solution.asked == {name: "0.75", "care": "free"}
    assert (solution.base[name], solution.lower[0]) == (0.5, 0.75)
    assert solution.levels[name] == pytest.approx(0.75)
    assert solution.gains[name] == pytest.approx(0.25)
    assert solution.levels["care"] == pytest.approx(0.625)
    assert solution.weights[name] == pytest.approx(np.log(3))
    kl = np.log(2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    assert solution.kl == pytest.approx(kl / 2)
    rows = np.array([[0.0], [1.0]])
    for audience, odds in (("children", 3.0), ("adults", 1.0), (None, 1.0)):
        features = solution.resolved.features_of(rows, ["care"], {"audience": [audience] * 2})
        chance = solution.probabilities(features)
        assert chance[1] / chance[0] == pytest.approx(odds)


@pytest.mark.parametrize("weighting", ["prompts", "traffic"])
@pytest.mark.parametrize(
    "entry",
    [
        0.0,
        "<= -0.9",
        "== 0.1",
        "q70",
        "q70 within",
        "+0.3",
        "base-0.3",
        "x1.3",
        "reach 40%",
        "<= reach 40%",
        ["keep", "q65"],
        "P(< -1) <= 0.2",
        "P(<= q20) <= x0.6",
    ],
)
def test_a_cohort_is_solved_as_its_prompts_alone_would_be(entry: object, weighting: str) -> None:
    traffic = np.repeat(np.random.default_rng(3).uniform(0.5, 2, 40), 6)
    pilot = simulated(3, scales={"humor": "log-probability"}, traffic=traffic)
    inside = np.asarray(pilot.table["audience"]) == "children"
    palette = Palette({"care": "free"}, cohorts={CHILDREN: {"humor": entry}})
    whole = vp.solve(pilot, palette, weighting=weighting)
    alone = vp.solve(pilot.select(inside), {"humor": entry}, weighting=weighting)
    share = whole.resolved.specs[1].share
    a = pilot.groups(weighting).weights[::3]
    assert share == pytest.approx(a.sum())
    at = 0 if alone.asked["humor"] != "free" else 1
    assert whole.features[1] == f"{alone.features[at]} @ audience=children"
    for name in ("weights", "levels", "gains", "base"):
        assert getattr(whole, name).array[1] == pytest.approx(getattr(alone, name).array[at], abs=1e-8)
    assert whole.lower[1] == pytest.approx(alone.lower[at], abs=1e-12)
    assert whole.upper[1] == pytest.approx(alone.upper[at], abs=1e-12)
    assert whole.kl == pytest.approx(share * alone.kl)
    for name in ("levels", "gains"):
        assert getattr(whole, name).se[1] == pytest.approx(getattr(alone, name).se[at])
    # Only the small-sample factors differ: 1 − Σa² over all prompts, and over the cohort's.
    every = pilot.groups(weighting).weights
    factor = (1 - (a / share) @ (a / share)) / (1 - every @ every)
    assert whole.weights.se[1] == pytest.approx(alone.weights.se[at] * factor**0.5, rel=1e-6)
    np.testing.assert_allclose(whole.resolved.quantiles[1], alone.resolved.quantiles[at])
    assert whole.spread[1] == pytest.approx(alone.spread[at] * share**0.5)


def test_a_cohort_that_cannot_be_had_is_proved_as_its_prompts_alone_are() -> None:
    pilot = simulated(4)
    inside = np.asarray(pilot.table["audience"]) == "children"
    asked = {"humor": "reach 70%", "care": "reach 70%"}
    whole = vp.solve(pilot, Palette({}, cohorts={CHILDREN: asked}), on_infeasible="return").certificate
    alone = vp.solve(pilot.select(inside), asked, on_infeasible="return").certificate
    assert whole is not None
    assert alone is not None
    np.testing.assert_allclose(whole.directions.array[:2], alone.directions.array, atol=1e-3)
    assert whole.gap == pytest.approx(alone.gap, rel=2e-2)
    assert whole.asked == pytest.approx(alone.asked, rel=1e-2)
    assert whole.asked - whole.reach == pytest.approx(whole.gap)
    assert whole.se == pytest.approx(alone.se, rel=0.03)  # of 14 prompts and of 40: the small-sample factor
    assert re.search(
        r"on these 40 prompts, 0\.\d+·humor @ audience=children \+ 0\.\d+·care @ audience=children cannot",
        str(whole),
    )
    for asks, cause in (
        ({"humor": 9}, "no answer of the pilot is as high as 9.0"),
        ({"humor": "P(< 0) <= 0.01"}, "of the cohort's prompts all candidates are below 0."),
        ({"humor": ["q80", "<= q20"]}, '"q80" asks for at least 0'),
    ):
        with pytest.raises(Infeasible) as caught:
            vp.solve(pilot, Palette({}, cohorts={CHILDREN: asks}))
        assert cause in str(caught.value)


def test_reach_speaks_of_features_in_the_levels_of_a_user() -> None:
    pilot = simulated(5)
    children = pilot.select(np.asarray(pilot.table["audience"]) == "children")
    palette = Palette({"care": "keep"}, cohorts={CHILDREN: {"humor": "q70", "care": "+0.1"}})
    alone = vp.reach(children, None, "humor")
    free = vp.reach(pilot, Palette({}, cohorts={CHILDREN: {"humor": "q70"}}), "humor @ audience=children")
    assert (free.base, free.low, free.high) == pytest.approx((alone.base, alone.low, alone.high))
    held = vp.reach(pilot, palette, "humor @ audience=children")
    beside = vp.reach(children, {"care": "+0.1"}, "humor")
    assert (held.low, held.high) == pytest.approx((beside.low, beside.high), abs=1e-4)
    with pytest.raises(ValueError) as error:
        vp.reach(pilot, palette, "humor @ audience=adults")
    one_line(
        error, "value must be one of humor, care, humor @ audience=children", "got 'humor @ audience=adults'"
    )


def test_entries_of_a_column_are_matched_as_they_are_spelt() -> None:
    for column, wanted in (
        ([1, 1, 2, 2], "2"),
        ([1.0, 1.0, 2.0, 2.0], "2"),
        ([False, False, True, True], "true"),
        (["a=b", "a=b", "c = d", "c = d"], "c = d"),
        ([None, None, "x", "x"], "x"),
    ):
        pilot = Pilot.from_arrays({"v": [0.0, 1.0] * 2}, prompt_id=[0, 0, 1, 1], columns={"c": column})
        solution = vp.solve(pilot, Palette({}, cohorts={f"c = {wanted}": {"v": 0.75}}))
        assert solution.features[0] == f"v @ c={wanted}"
        assert solution.levels["v"] == pytest.approx(0.625)
    assert member(float("nan")) is None
    assert member(np.float64(0.5)) == "0.5"
    assert member(np.datetime64("2024-01-01")) == "2024-01-01"


def test_what_a_cohort_needs_is_said() -> None:
    pilot = simulated(6)
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, Palette({}, cohorts={"reader=children": {"humor": "keep"}}))
    one_line(error, "columns must hold 'reader'", "reader=children needs, got none")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, Palette({}, cohorts={"audience=kids": {"humor": "keep"}}))
    one_line(error, "audience=kids must have prompts in the pilot", "adults, children")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"humor": "keep"}}), mode="joint")
    one_line(error, 'cohorts need mode="prompt"', 'got "joint"', "solve on its prompts alone, pilot.select(")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"humour": "keep"}}))
    one_line(error, "'humour'", "did you mean 'humor'")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"humor": "x2"}}))
    one_line(error, "palette['humor @ audience=children']", "needs a value whose scale")
    resolved = vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"humor": "keep"}})).resolved
    with pytest.raises(ValueError) as error:
        resolved.features_of(np.zeros((2, 2)), ["humor", "care"])
    one_line(error, "columns must hold 'audience'", "got none")
    with pytest.raises(ValueError) as error:
        resolved.features_of(np.zeros((2, 2)), ["humor", "care"], {"audience": ["children"]})
    one_line(error, "column 'audience' must have 2 entries, one per row, got 1")
    some = resolved.features_of(np.ones((2, 2)), ["humor", "care"], partial=True)
    np.testing.assert_array_equal(np.isnan(some), [[True, False, False]] * 2)
    twice = Pilot.from_arrays({"v": [0.0, 1.0], "P(v < 0)": [0.0, 1.0]}, prompt_id=[0, 0])
    with pytest.raises(ValueError) as error:
        vp.solve(twice, {"v": "P(< 0) <= 1"})
    one_line(error, "'P(v < 0)' has the name of a value")


def test_a_free_cohort_is_reported_and_moves_nothing() -> None:
    pilot = simulated(7)
    plain = vp.solve(pilot, {"humor": "+0.3"})
    told = vp.solve(pilot, Palette({"humor": "+0.3"}, cohorts={CHILDREN: {"humor": "free"}}))
    assert told.features == ("humor", "humor @ audience=children", "care")
    assert told.weights["humor"] == pytest.approx(plain.weights["humor"])
    children = pilot.select(np.asarray(pilot.table["audience"]) == "children")
    there = vp.levels(children, {"humor": plain.weights["humor"]})
    assert told.levels["humor @ audience=children"] == pytest.approx(there.levels["humor"])


def test_a_large_offset_costs_no_digits() -> None:
    near, palette = simulated(8), Palette({}, cohorts={CHILDREN: {"humor": "+0.3"}})
    far = Pilot.from_arrays(
        {"humor": near.array[:, 0] + 1e8, "care": near.array[:, 1]},
        prompt_id=near.prompt_index,
        columns={"audience": np.asarray(near.table["audience"])},
    )
    a, b = vp.solve(near, palette), vp.solve(far, palette)
    assert b.weights.array == pytest.approx(a.weights.array, rel=1e-6)
    assert b.gains.array == pytest.approx(a.gains.array, abs=1e-6)


def test_the_error_of_a_cohorts_weight_is_right() -> None:
    """Over 200 small pilots with a bound from the cohort's own quantile: predicted against real."""
    found, said = [], []
    for seed in range(200):
        solution = vp.solve(
            simulated([9, seed], prompts=90, k=4), Palette({}, cohorts={CHILDREN: {"humor": "q60"}})
        )
        found.append(solution.weights.array[0])
        said.append(solution.weights.se[0])
    assert 0.85 < np.mean(said) / np.std(found) < 1.25


# ---- several entries


def test_the_papers_row_is_a_list() -> None:
    """max(mean, quantile): the quantile of a symmetric value, the mean of one with a long tail."""
    rng = np.random.default_rng(10)
    pilot = Pilot.from_arrays(
        {"even": rng.normal(size=300), "skewed": np.exp(2 * rng.normal(size=300))},
        prompt_id=np.repeat(np.arange(50), 6),
    )
    solution = vp.solve(pilot, {"even": ["keep", "q60"], "skewed": ["keep", "q60"]}, on_infeasible="return")
    rows = np.maximum(pilot.array.mean(axis=0), np.quantile(pilot.array, 0.6, axis=0))
    assert solution.lower == pytest.approx(rows)
    assert solution.asked == {"even": "keep, q60", "skewed": "keep, q60"}
    assert solution.resolved.sources == (("q60", ""), ("keep", ""))
    # The influence is that of the entry which counts: one of them and not a mixture.
    one = vp.solve(pilot, {"even": "q60", "skewed": "keep"}, on_infeasible="return")
    np.testing.assert_array_equal(solution.resolved.influence_lower, one.resolved.influence_lower)
    np.testing.assert_array_equal(solution.weights.se, one.weights.se)


def test_entries_on_one_feature_make_one_interval() -> None:
    pilot = simulated(11)
    solution = vp.solve(
        pilot, {"humor": ["+0.2", "<= +0.3"], "care": ["P(< -1) <= 0.2", "P(< -1) >= 0.05", "keep"]}
    )
    assert solution.features == ("humor", "care", "P(care < -1)")
    base = solution.base.array
    assert solution.lower == pytest.approx([base[0] + 0.2, base[1], 0.05])
    assert solution.upper == pytest.approx([base[0] + 0.3, INF, 0.2])


def test_bounds_that_cross_name_both_entries() -> None:
    pilot = simulated(12)
    with pytest.raises(Infeasible) as caught:
        vp.solve(pilot, {"humor": ["keep", "+0.5", "<= q40", "<= 9"]})
    assert re.fullmatch(
        r'The bounds on humor contradict each other: "\+0\.5" asks for at least \S+ and "<= q40" asks '
        r"for at most \S+\.",
        str(caught.value),
    )


# ---- human answers, posteriors


def test_the_levels_of_human_answers_are_met_exactly() -> None:
    human = simulated(13, prompts=25, k=1)
    palette = Palette.from_human(human)
    assert list(palette.entries) == ["humor", "care"]
    pilot = simulated(14, prompts=60, k=8)
    solution = vp.solve(pilot, palette)
    np.testing.assert_array_equal(solution.lower, human.groups().base)
    np.testing.assert_array_equal(solution.upper, solution.lower)
    assert solution.levels.array == pytest.approx(human.array.mean(axis=0))
    p = Problem(pilot.array, pilot.starts, pilot.groups().weights, solution.lower, solution.upper)
    assert violation(p, solution.weights.array) < 1e-8
    assert Palette.from_human(human, ["care"]).entries == {"care": palette.entries["care"]}
    assert Palette(palette.entries) == palette
    weighed = simulated(13, prompts=25, k=1, traffic=np.arange(1.0, 26))
    by = Palette.from_human(weighed, weighting="traffic")
    np.testing.assert_allclose(
        [float(text[3:]) for text in by.entries.values()],  # type: ignore[arg-type]
        np.average(human.array, axis=0, weights=np.arange(1.0, 26)),
    )
    for wrong in ("humor", ["wit"], []):
        with pytest.raises(ValueError) as error:
            Palette.from_human(human, wrong)
        one_line(error, "values must be a list of names among humor, care", repr(wrong))


def test_log_probabilities_at_weight_one_give_the_posterior() -> None:
    """Eq. 25: p(y | x, v₁ … v_m) ∝ p0(y | x) ∏ p(v_i | x, y). Copies of an answer are its base probability."""
    rng = np.random.default_rng(15)
    copies = np.array([[3, 1, 4, 2], [1, 5, 2, 2]])
    likelihood = rng.uniform(0.05, 0.95, size=(2, 4, 3))
    prior = copies / copies.sum(axis=1, keepdims=True)
    posterior = prior * likelihood.prod(axis=2)
    posterior /= posterior.sum(axis=1, keepdims=True)
    rows = np.log(np.repeat(likelihood.reshape(8, 3), copies.ravel(), axis=0))
    names = ("kind", "true", "brief")
    pilot = Pilot.from_arrays(dict(zip(names, rows.T, strict=True)), prompt_id=np.repeat([0, 1], 10))
    ones = Solution.from_weights(pilot, dict.fromkeys(names, 1.0))
    for g in range(2):
        chance = ones.probabilities(rows[10 * g : 10 * g + 10])
        ends = np.cumsum(copies[g])[:-1]
        np.testing.assert_allclose([part.sum() for part in np.split(chance, ends)], posterior[g], rtol=1e-12)
    wanted = np.einsum("gj,gji->i", posterior, np.log(likelihood)) / 2
    assert ones.levels.array == pytest.approx(wanted)
    # And back: the palette that asks for the posterior's levels has the weights one.
    back = vp.solve(
        pilot, {name: f"== {level!r}" for name, level in zip(names, wanted.tolist(), strict=True)}
    )
    assert back.weights.array == pytest.approx([1.0, 1.0, 1.0], abs=1e-6)


# ---- the cone solver


def by_hand(pilot: Pilot, solution: Solution, thresholds: tuple[float, float]) -> Problem:
    """The features of `test_everything_at_once`, written down anew; of the cohort as (r − c)·1_C ≥ 0."""
    humor, care = pilot.array.T
    inside = np.asarray(pilot.table["audience"]) == "children"
    level = np.quantile(humor[inside], 0.6)
    columns = [
        humor,
        care < thresholds[0],
        (humor - level) * inside,
        ((care < thresholds[1]) - 0.1) * inside,
    ]
    lower = np.array([humor.mean() + 0.1, -INF, 0, -INF])
    upper = np.array([INF, 0.1, INF, 0])
    return Problem(np.column_stack(columns).astype(float), pilot.starts, pilot.groups().weights, lower, upper)


@pytest.mark.extra("cvxpy")
def test_everything_at_once_agrees_with_the_cone_solver() -> None:
    seen = 0
    for rng in many(16, 12):
        pilot = simulated(int(rng.integers(2**31)), prompts=24, k=8)
        low, children_low = np.round(rng.uniform(-1.5, -0.8, size=2), 2)
        solution = vp.solve(
            pilot,
            Palette(
                {"humor": "+0.1", "care": f"P(< {low}) <= 0.1"},
                cohorts={CHILDREN: {"humor": "q60", "care": f"P(< {children_low}) <= 0.1"}},
            ),
            on_infeasible="return",
        )
        p = by_hand(pilot, solution, (low, children_low))
        found = cone(p, 1e-10)
        if not found.solved:
            assert solution.status is not Status.OPTIMAL or not found.infeasible
            continue
        assert solution.status in (Status.OPTIMAL, Status.BOUNDARY)
        seen += solution.status is Status.OPTIMAL
        assert solution.kl == pytest.approx(found.kl, abs=1e-6)
        keep = [solution.features.index(name) for name in solution.features if solution.asked[name] != "free"]
        assert violation(p, solution.weights.array[keep]) < 1e-7
        at = tilt(p, solution.weights.array[keep]).levels.astype(float)
        np.testing.assert_allclose(at, found.levels, atol=1e-4)
    assert seen >= 6


# ---- written and read


def test_a_solution_survives_its_file(tmp_path: Path) -> None:
    pilot = simulated(17)
    palette = Palette(
        {"care": ["keep", "P(< q5) <= 0.04"]}, cohorts={CHILDREN: {"humor": "q60", "care": "P(< -1) <= 0.1"}}
    )
    solution = vp.solve(pilot, palette, 4)
    solution.save(tmp_path / "solution.json")
    back = Solution.load(tmp_path / "solution.json")
    assert back.resolved.specs == solution.resolved.specs
    assert back.resolved.sources == solution.resolved.sources
    assert (back.features, back.asked) == (solution.features, solution.asked)
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(getattr(back, name), getattr(solution, name))
    for name in ("levels", "gains", "base", "weights"):
        np.testing.assert_array_equal(getattr(back, name).array, getattr(solution, name).array)
        np.testing.assert_array_equal(getattr(back, name).se, getattr(solution, name).se)
    columns = {"audience": np.asarray(pilot.table["audience"])}
    np.testing.assert_array_equal(
        back.resolved.features_of(pilot.array, pilot.values, columns),
        solution.resolved.features_of(pilot.array, pilot.values, columns),
    )
    text = json.dumps(solution.resolved.to_dict(), allow_nan=False)
    assert Resolved.from_dict(json.loads(text)).to_dict() == solution.resolved.to_dict()
    assert Feature.from_dict(Feature("v").to_dict()) == Feature("v")
    cannot = vp.solve(pilot, Palette({}, cohorts={CHILDREN: {"humor": 9}}), on_infeasible="return")
    cannot.save(tmp_path / "cannot.json")
    again = Solution.load(tmp_path / "cannot.json")
    assert str(again.certificate) == str(cannot.certificate)


def test_a_palette_with_everything_is_a_value() -> None:
    palette = Palette(
        {"care": ["P(< -2.0) <= .02", "keep"], "humor": [">= q60"]},
        cohorts={"audience = children": {"humor": [0.5, "P( >= q5 ) >= 0.9"], "care": "free"}},
    )
    assert palette.entries == {"care": ["keep", "P(< -2) <= 0.02"], "humor": "q60"}
    assert palette.cohorts == {CHILDREN: {"humor": ["0.5", "P(>= q5) >= 0.9"], "care": "free"}}
    again = Palette(palette.entries, cohorts=palette.cohorts)
    assert again == palette
    assert hash(again) == hash(palette)
    assert eval(repr(palette)) == palette
    assert palette.values == ("care", "humor")
    assert palette.columns == ("audience",)
    assert [str(subject) for subject in palette.asks] == [
        "care",
        "P(care < -2)",
        "humor",
        "humor @ audience=children",
        "P(humor >= q5) @ audience=children",
        "care @ audience=children",
    ]
    assert palette != Palette(palette.entries)
    assert palette.freed("P(care < -2)").entries == {"care": "keep", "humor": "q60"}
    assert palette.freed("humor @ audience=children").cohorts[CHILDREN]["humor"] == "P(>= q5) >= 0.9"
    assert palette.freed("wit").asks[Subject("wit")] == ()


# ---- any text

number = st.floats(-1e6, 1e6, allow_nan=False).map(repr) | st.integers(-99, 99).map(str)
percent = st.floats(0, 100).map(repr) | st.integers(0, 100).map(str)
share = st.floats(0, 1).map(repr)
gap = st.sampled_from(["", " ", "  "])
positive = st.floats(1e-3, 1e3).map(repr)


def joined(*parts: Any) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


base = (
    st.just("keep")
    | joined("+", gap, positive)
    | joined("base", gap, "-", gap, positive)
    | joined("x", positive)
)
side = st.sampled_from([">=", "<="])
threshold = number | joined("q", percent)
tail = joined(
    "P",
    gap,
    "(",
    gap,
    st.sampled_from(["<", "<=", ">", ">="]),
    gap,
    threshold,
    gap,
    ")",
    gap,
    side,
    gap,
    share | base,
)
plain = joined(
    st.sampled_from(["", ">=", "<=", "=="]),
    gap,
    base | number | joined("q", percent) | joined("q", percent, " within"),
) | joined(side, gap, "reach ", percent, gap, "%")


@settings(max_examples=200, deadline=None)
@given(joined(gap, tail | plain, gap))
def test_every_sentence_of_the_grammar_is_read_and_written_back(text: str) -> None:
    (ask,) = parse("v", text)
    assert parse("v", str(ask)) == (ask,)
    assert str(parse("v", str(ask))[0]) == str(ask)
    if ask.subject.tail is not None:
        assert parse("v", ask.wanted)[0].quantity == ask.quantity


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="P(<>=)q0159.-+e x%@keptinwbasrh\n ", max_size=24) | st.text(max_size=12))
@example("P(< -2) <= 0.02")
@example("P(< -2)\n<= 0.02")
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    said, asks = None, ()
    try:
        asks = parse("v", text)
    except ValueError as error:
        said = str(error)
    assert said is None or (said.startswith("palette['v']: ") and len(said.splitlines()) == 1)
    assert all(parse("v", str(ask)) == (ask,) for ask in asks)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.sampled_from(["keep", "q5", "much"])
        | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=5,
    ),
    st.none()
    | st.dictionaries(st.sampled_from(["a=b", "a", "=", "a=b=c"]), st.dictionaries(st.text(), st.none())),
)
def test_any_object_makes_a_palette_or_one_line(entry: object, cohorts: Any) -> None:
    said, palette = "one line", None
    try:
        palette = Palette({"v": entry}, cohorts=cohorts)
    except (ValueError, TypeError) as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    if palette is not None:
        assert Palette(palette.entries, cohorts=palette.cohorts) == palette


def test_a_problem_by_hand_can_fail() -> None:
    """The check of the cone test is one: with the wrong threshold the weights are no optimum."""
    pilot = simulated(19, prompts=24, k=8)
    palette = Palette(
        {"humor": "+0.1", "care": "P(< -1) <= 0.1"},
        cohorts={CHILDREN: {"humor": "q60", "care": "P(< -0.9) <= 0.1"}},
    )
    solution = vp.solve(pilot, palette, on_infeasible="return")
    assert solution.status is Status.OPTIMAL
    keep = [i for i, text in enumerate(solution.resolved.asked) if text != "free"]
    weights = solution.weights.array[keep]
    assert violation(by_hand(pilot, solution, (-1.0, -0.9)), weights) < 1e-7
    assert violation(by_hand(pilot, solution, (-1.2, -0.9)), weights) > 1e-3
    right = by_hand(pilot, solution, (-1.0, -0.9))
    assert violation(replace(right, upper=right.upper + 0.01), weights) > 1e-3
    assert violation(problem([0.0, 1.0], [2], [0.75]), [np.log(3)]) < 1e-9
