"""The public floor: a pilot and a palette in; a solution, a proof, or a refusal of one line out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oracles
import valuepalette as vp
from oracles import Problem, problem, spread, subsets, tilt, violation
from problems import many
from valuepalette import Infeasible, Pilot, Solution, Status
from valuepalette.figures import Figures
from valuepalette.folders import digest
from valuepalette.provenance import PilotMetadata
from valuepalette.solution import prompt_digests

INF = np.inf
NAMES = ("humor", "tone", "care")


def made(p: Problem, **more: Any) -> Pilot:
    """The pilot of a problem, its prompts numbered from 0."""
    values = {name: p.values[:, i] for i, name in enumerate(NAMES[: p.features])}
    return Pilot.from_arrays(values, prompt_id=p.prompt, **more)


def plain(
    seed: int, prompts: int = 30, candidates: int = 8, features: int = 3, effects: float = 1.0
) -> Problem:
    """Normal values that share something within a prompt, and nothing asked."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, -0.4, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])[:features, :features]
    table = rng.normal(size=(prompts, candidates, features)) @ mixing
    table += effects * rng.normal(size=(prompts, 1, features))
    return problem(table.reshape(-1, features), np.full(prompts, candidates), [-INF] * features)


def one_line(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    """An error is one line that has all the words: the argument, what is allowed, what was received."""
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# ---- by hand


def test_two_prompts_by_hand() -> None:
    """Half way to the top of {0, 1} and {0, 3}: each prompt's own odds are 3 : 1 and e^(3λ)."""
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 0.0, 3.0]}, prompt_id=[0, 0, 1, 1])
    solution = vp.solve(pilot, {"humor": "reach 50%"})
    assert solution.base["humor"] == 1.0
    assert solution.levels["humor"] == pytest.approx(1.5)
    weight = solution.weights["humor"]
    top = np.exp(weight) / (1 + np.exp(weight)), np.exp(3 * weight) / (1 + np.exp(3 * weight))
    assert (top[0] + 3 * top[1]) / 2 == pytest.approx(1.5)
    assert solution.gains["humor"] == pytest.approx(0.5)
    kl = [share * np.log(2 * share) + (1 - share) * np.log(2 - 2 * share) for share in top]
    assert solution.kl == pytest.approx(np.mean(kl))
    assert solution.effective == pytest.approx(2 * np.exp(-np.mean(kl)))
    assert solution.ess == pytest.approx(np.mean([1 / (t**2 + (1 - t) ** 2) for t in top]))
    # The prompts' levels are top[0] and 3·top[1]; their spread over the two is what one is unsure of.
    assert solution.levels.se[0] == pytest.approx(abs(top[0] - 3 * top[1]) / 2)
    assert solution.gains.se[0] == pytest.approx(abs((top[0] - 0.5) - (3 * top[1] - 1.5)) / 2)
    # The bound lies half way between: 1.5 = mean of 0.75 and 2.25 by prompt, so ψ = (0.75, 2.25).
    slope = (top[0] * (1 - top[0]) + 9 * top[1] * (1 - top[1])) / 2
    unsure = abs((top[0] - 0.75) - (3 * top[1] - 2.25)) / 2 / slope
    assert solution.weights.se[0] == pytest.approx(unsure)


def test_the_forward_map_by_hand() -> None:
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0], "tone": [4.0, 2.0]}, prompt_id=[0, 0])
    solution = vp.levels(pilot, {"tone": np.log(2)})
    assert solution.features == ("tone", "humor")
    assert solution.levels["tone"] == pytest.approx(0.8 * 4 + 0.2 * 2)
    assert solution.levels["humor"] == pytest.approx(0.2)
    assert solution.weights["humor"] == 0
    assert solution.kl == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert np.array_equal(solution.weights.se, [0, 0])  # they were given


# ---- what a solution says


def test_the_attributes_of_asolution_of() -> None:
    p = plain(301)
    told = PilotMetadata(model={"id": "m"}, sampling={"top_k": 50}, rewards={"humor": {"version": 2}})
    texts = [f"prompt {g}" for g in p.prompt]
    pilot = made(p, prompts=texts, metadata=told)
    low = p.values.mean(axis=0)
    solution = vp.solve(pilot, {"tone": "keep", "humor": "+0.4"}, seed=7)

    assert solution.status is Status.OPTIMAL
    assert solution.features == ("tone", "humor", "care")
    assert solution.asked == {"tone": "keep", "humor": "+0.4", "care": "free"}
    turned = replace(p, values=p.values[:, [1, 0, 2]])
    want = np.array([low[1], low[0] + 0.4, -INF])
    assert solution.lower == pytest.approx(want)
    assert np.array_equal(solution.upper, [INF, INF, INF])
    assert solution.base.array == pytest.approx(low[[1, 0, 2]])

    asked = replace(turned, lower=solution.lower)
    assert violation(asked, solution.weights.array) <= 2e-9
    at = tilt(turned, solution.weights.array)
    assert solution.levels.array == pytest.approx(at.levels.astype(float))
    assert solution.gains.array == pytest.approx(at.levels.astype(float) - solution.base.array)
    assert solution.kl == pytest.approx(float(at.kl))
    assert solution.covariance == pytest.approx(at.covariance.astype(float))
    assert solution.margin == pytest.approx(oracles.margin(asked), abs=1e-7)
    assert solution.spread == pytest.approx(spread(turned))
    assert np.array_equal(solution.weights.error[2:], [0.0]) or solution.weights.error.max() < 1e-6
    assert solution.weights.error.max() < 1e-6
    assert solution.kkt_residual <= 1e-9
    assert 1 < solution.passes < 20

    assert solution.mode == "prompt"
    assert solution.candidates == 8
    assert solution.weighting == "prompts"
    assert solution.seed == 7
    assert solution.prompts == 30
    assert solution.certificate is None
    assert solution.faces.shape == (0, 3)
    assert solution.fingerprint == told.to_dict()
    assert solution.seen == frozenset(prompt_digests(pilot)) == {digest(text)[:16] for text in texts}
    assert solution.resolved.quantiles[1, 50] == pytest.approx(np.median(p.values[:, 0]))


def test_a_table_shows_no_gain_where_a_bound_is_met_but_for_rounding() -> None:
    pilot = made(plain(303))
    solution = vp.solve(pilot, {"humor": "+0.4", "tone": "keep", "care": "keep"})
    for noise in (0.0, 1e-15, -1e-10):
        gains = Figures(NAMES, np.array([0.4, noise, 0.004]), solution.gains.se)
        rows = str(replace(solution, gains=gains)).splitlines()[3:6]
        assert [row.split()[-2] for row in rows] == ["0.400", "0.000", "0.004"]


def test_the_fingerprint_is_that_of_the_pilot() -> None:
    p = plain(302, prompts=4, features=1)
    first, second = (PilotMetadata(model={"id": name}) for name in ("a", "b"))
    one = vp.solve(made(p, metadata=first), {"humor": "+0.1"})
    other = vp.solve(made(p, metadata=second), {"humor": "+0.1"})
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint["model"] == {"id": "a"}
    assert vp.solve(made(p), {"humor": "+0.1"}).seen == frozenset()


def test_figures_are_a_mapping() -> None:
    figures = Figures(("humor", "tone"), np.array([2.5, 0.1]), np.array([0.02, np.nan]))
    assert dict(figures) == {"humor": 2.5, "tone": 0.1}
    assert list(figures) == ["humor", "tone"]
    assert repr(figures) == "humor 2.5 ± 0.02, tone 0.1"
    assert "care" not in figures
    with pytest.raises(KeyError, match="'care' is none of humor, tone"):
        figures["care"]


def test_a_solution_prints_what_was_asked_and_what_is_had() -> None:
    lines = str(vp.solve(made(plain(303)), {"humor": "+0.4", "tone": "<= 0.5"}, 4)).splitlines()
    assert lines[0].startswith("OPTIMAL: The palette can be had")
    assert lines[2].split() == ["asked", "base", "level", "±", "se", "gain", "weight"]
    assert lines[3].split()[:2] == ["humor", "+0.4"]
    assert lines[3].split()[5] == "0.400"
    assert lines[4].split()[:3] == ["tone", "<=", "0.5"]
    assert lines[5].split()[:2] == ["care", "free"]
    assert re.fullmatch(
        r"prompt mode, k = 4, 30 prompts, KL 0\.\d{3} nats \(3\.\d of 4 candidates in play\)", lines[-2]
    )
    assert re.fullmatch(
        r"tone: slack of 0\.586, 3\.\d standard errors; its weight stays 0 \(95 %\)", lines[-1]
    )
    assert max(map(len, lines)) <= 100


def test_a_palette_that_cannot_be_had_prints_no_levels_and_no_weights() -> None:
    text = str(vp.solve(made(plain(304)), {"humor": "+9"}, on_infeasible="return"))
    assert "humor cannot average above" in text
    assert "weight" not in text.splitlines()[3]
    assert "KL" not in text


def test_the_order_of_rows_does_not_matter() -> None:
    p = plain(305)
    rng = np.random.default_rng(305)
    asked: Mapping[str, object] = {"humor": "q70", "tone": "q55 within", "care": "reach 20%"}
    mixed = made(p).select(rng.permutation(p.values.shape[0]))
    for mode in ("prompt", "joint"):
        a = vp.solve(made(p), asked, mode=mode)
        b = vp.solve(mixed, asked, mode=mode)
        for name in ("weights", "levels", "gains"):
            assert getattr(b, name).array == pytest.approx(getattr(a, name).array, abs=1e-8)
            assert getattr(b, name).se == pytest.approx(getattr(a, name).se, rel=1e-6)
        assert b.kl == pytest.approx(a.kl)


# ---- weighting


def test_weights_by_rows_and_by_a_column() -> None:
    """Two prompts of 2 and 4 candidates: their base levels count 1 : 1, 2 : 4 and 3 : 1."""
    values = [0.0, 1.0, 10.0, 11.0, 12.0, 13.0]
    pilot = Pilot.from_arrays(
        {"humor": values}, prompt_id=[0, 0, 1, 1, 1, 1], columns={"traffic": [3.0] * 2 + [1.0] * 4}
    )
    want = {"prompts": (0.5 + 11.5) / 2, "rows": np.mean(values), "traffic": (3 * 0.5 + 11.5) / 4}
    for weighting, base in want.items():
        solution = vp.levels(pilot, {"humor": 0.0}, 2, weighting=weighting)
        assert solution.base["humor"] == pytest.approx(base)
        assert solution.weighting == weighting


@pytest.mark.parametrize("mode", ["prompt", "joint"])
def test_weighted_prompts_agree_with_the_reference(mode: Any) -> None:
    p = plain(306, prompts=12)
    share = np.random.default_rng(306).uniform(0.5, 2.0, 12)
    p = replace(p, weights=share / share.sum(), joint=mode == "joint")
    pilot = made(p, columns={"traffic": share[p.prompt]})
    solution = vp.solve(pilot, {"humor": "+0.3", "care": "<= -0.1"}, mode=mode, weighting="traffic")
    asked = replace(p, values=p.values[:, [0, 2, 1]], lower=solution.lower, upper=solution.upper)
    assert violation(asked, solution.weights.array) <= 2e-9
    assert solution.base.array == pytest.approx(tilt(asked, np.zeros(3)).levels.astype(float))


# ---- mode


def test_prompt_mode_is_the_default_where_half_of_the_weight_has_a_choice() -> None:
    values = {"humor": [0.0, 1.0, 0.5]}
    half = Pilot.from_arrays(values, prompt_id=[0, 0, 1])
    assert vp.solve(half, {"humor": "keep"}, 1).mode == "prompt"
    less = Pilot.from_arrays({"humor": [0.0, 1.0, 0.5, 0.5]}, prompt_id=[0, 0, 1, 2])
    with pytest.warns(UserWarning, match="only 33% of the prompts have two candidates or more") as caught:
        solution = vp.solve(less, {"humor": 0.75})
    assert solution.mode == "joint"
    assert solution.candidates is None
    (said,) = caught
    assert "\n" not in str(said.message)
    assert said.filename == __file__
    # Told, it does not warn; by rows the prompt with a choice has half of the weight.
    assert vp.solve(less, {"humor": 0.75}, mode="joint").mode == "joint"
    assert vp.solve(less, {"humor": "keep"}, 1, weighting="rows").mode == "prompt"


def test_the_modes_differ_where_prompts_do() -> None:
    p = plain(307, effects=2.0)
    joint = vp.solve(made(p), {"humor": "+0.5"}, mode="joint")
    delivered = vp.levels(made(p), dict(joint.weights))
    assert joint.levels["humor"] == pytest.approx(delivered.base["humor"] + 0.5)
    assert delivered.gains["humor"] < 0.3


def test_joint_mode_says_that_its_errors_are_indicative() -> None:
    assert str(vp.solve(made(plain(308)), {"humor": "+0.1"}, mode="joint")).endswith("are indicative")


# ---- refusals


def test_options_that_are_none_are_refused() -> None:
    pilot = made(plain(309, prompts=3))
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humor": "keep"}, mode="prompts")  # type: ignore[arg-type]
    one_line(error, "mode", '"prompt"', '"joint"', "'prompts'")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humor": "keep"}, weighting="cohort")
    one_line(error, "weighting", "prompts, rows", "'cohort'")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humor": "keep"}, on_infeasible="ignore")  # type: ignore[arg-type]
    one_line(error, "on_infeasible", '"raise"', '"return"', "'ignore'")
    for seed in (-1, 1.5, True, "0"):
        with pytest.raises(ValueError) as error:
            vp.solve(pilot, {"humor": "keep"}, seed=seed)  # type: ignore[arg-type]
        one_line(error, "seed", "0 or more", repr(seed))


def test_a_value_that_the_pilot_lacks_is_refused() -> None:
    pilot = made(plain(310, prompts=3))
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humour": "keep"})
    one_line(error, "humor, tone, care", "'humour'", "did you mean 'humor'")
    with pytest.raises(ValueError) as error:
        vp.levels(pilot, {"humour": 1.0})
    one_line(error, "weights", "humor, tone, care", "'humour'")
    with pytest.raises(ValueError) as error:
        vp.reach(pilot, None, "humour")
    one_line(error, "value", "humor, tone, care", "'humour'")


@pytest.mark.parametrize("bad", [np.nan, INF, "much", None])
def test_weights_that_are_no_numbers_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError) as error:
        vp.levels(made(plain(311, prompts=3)), {"humor": bad})
    one_line(error, "weights", "finite", repr(bad))


@pytest.mark.parametrize("bad", [0, -2, 2.0, True, "all", "limits"])
def test_candidates_that_are_no_number_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError) as error:
        vp.solve(made(plain(312, prompts=3)), {"humor": "keep"}, bad)
    one_line(error, "candidates", "positive integer", '"limit"', repr(bad))


def test_more_candidates_than_a_prompt_has_are_refused_by_name() -> None:
    p = problem(np.arange(9.0), [2, 4, 3], [-INF])
    with pytest.raises(ValueError) as error:
        vp.solve(made(p), {"humor": "keep"}, 4)
    one_line(error, "candidates", "got 4", "2 prompts have", "prompts 0, 2,", "the smallest has 2")
    with pytest.raises(ValueError) as error:
        vp.solve(made(plain(313, prompts=8)), {"humor": "keep"}, 9)
    one_line(error, "8 prompts have", "0, 1, 2, 3, 4, …")


def test_a_ragged_pilot_needs_to_be_told_k() -> None:
    p = problem(np.arange(9.0), [2, 4, 3], [-INF])
    with pytest.raises(ValueError) as error:
        vp.solve(made(p), {"humor": "keep"})
    one_line(error, "candidates", "any from 1 to the smallest, 2", "None")


def test_a_prompt_that_holds_the_others_back_is_counted_and_can_be_left_out() -> None:
    pilot = made(problem(np.arange(13.0), [4, 1, 4, 4], [-INF]))
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humor": "keep"})
    one_line(error, "the smallest, 1, which 1 of 4 prompts have", "for k = 4 leave those out: pilot.select(")
    with pytest.raises(ValueError) as error:
        vp.solve(pilot, {"humor": "keep"}, 3)
    one_line(error, "1 prompts have fewer", "leave them out: pilot.select(")
    code = str(error.value).partition("leave them out: ")[2]
    assert vp.solve(eval(code, {"pilot": pilot}), {"humor": "keep"}, 3).prompts == 3


def test_candidates_are_refused_in_joint_mode() -> None:
    for given in (2, "limit"):
        with pytest.raises(ValueError) as error:
            vp.solve(made(plain(314, prompts=3)), {"humor": "keep"}, given, mode="joint")  # type: ignore[arg-type]
        one_line(error, "candidates", "None in joint mode", repr(given))


def test_a_spread_that_rounding_ate_is_told() -> None:
    values = 1e16 + np.array([0.0, 2.0, 0.0, 2.0])
    pilot = Pilot.from_arrays({"humor": values}, prompt_id=[0, 0, 1, 1])
    with pytest.warns(UserWarning, match="humor: its spread is lost in rounding beside .* 1e[+]16"):
        vp.solve(pilot, {"humor": "keep"})


# ---- ragged prompts and k


def test_ragged_prompts_at_a_k_that_all_have() -> None:
    """At k = 2 every pair of a prompt's candidates is a block of its own: exact."""
    rng = np.random.default_rng(315)
    sizes = np.array([2, 3, 3, 2, 3])
    p = problem(rng.normal(size=(13, 2)), sizes, [-INF, -INF])
    solution = vp.solve(made(p), {"humor": "+0.2", "tone": "keep"}, 2)
    exact = tilt(subsets(p, 2), solution.weights.array).levels.astype(float)
    assert solution.levels.array == pytest.approx(exact)
    assert exact[0] - solution.base["humor"] == pytest.approx(0.2)


def test_k_calibrates_the_weights() -> None:
    p = plain(316, prompts=200, candidates=8, features=1)
    weights = [vp.solve(made(p), {"humor": "+0.3"}, k).weights["humor"] for k in (2, 4, 8)]
    assert weights[0] > 1.2 * weights[1] > 1.2 * weights[2]
    for k, weight in zip((2, 4, 8), weights, strict=True):
        realised = tilt(subsets(p, k), [weight]).levels[0] - p.values.mean()
        assert float(realised) == pytest.approx(0.3, abs=0.01)


def test_the_seed_is_that_of_the_blocks() -> None:
    pilot = made(plain(317))
    a, b, c = (vp.solve(pilot, {"humor": "+0.3"}, 4, seed=seed) for seed in (0, 0, 1))
    assert a.weights["humor"] == b.weights["humor"] != c.weights["humor"]


# ---- the limit


def test_the_limit_of_a_gaussian_model() -> None:
    """Answers N(μ_x, Σ) tilted by λ have the mean μ_x + Σλ, so that λ = Σ⁻¹ gain as k → ∞."""
    rng = np.random.default_rng(318)
    within = np.array([[1.0, -0.5], [-0.5, 0.8]])
    prompts, k = 4_000, 32
    noise = rng.normal(size=(prompts, k, 2)) @ np.linalg.cholesky(within).T
    table = noise + rng.normal(size=(prompts, 1, 2))
    p = problem(table.reshape(-1, 2), np.full(prompts, k), [-INF, -INF])
    pilot = made(p)
    asked = {"humor": "+0.6", "tone": "+0.1"}
    exact = np.linalg.solve(within, [0.6, 0.1])
    plainly, limit = vp.solve(pilot, asked), vp.solve(pilot, asked, "limit")
    assert limit.candidates == "limit"
    near, far = (np.abs(s.weights.array - exact).max() for s in (limit, plainly))
    assert near < 0.4 * far
    assert near < 0.02
    assert limit.gains.array == pytest.approx([0.6, 0.1])
    assert limit.kl == pytest.approx(exact @ [0.6, 0.1] / 2, rel=0.02)
    # Its error is that of the extrapolation, which nothing proves.
    assert np.isnan(limit.weights.error).all()
    assert np.isnan(limit.effective)
    # The forward map extrapolates the levels of one λ.
    given = dict(zip(asked, exact, strict=True))
    assert vp.levels(pilot, given, "limit").gains.array == pytest.approx([0.6, 0.1], abs=0.015)
    assert vp.levels(pilot, given).gains["humor"] < 0.575


def test_the_limit_stays_inside_the_sign_set() -> None:
    """A bound that binds at K/2 but not at K would extrapolate to the wrong sign."""
    for rng in many(319, 20):
        p = plain(int(rng.integers(1_000)), prompts=40, candidates=8)
        solution = vp.solve(made(p), {"humor": "+0.5", "tone": "keep", "care": "<= 0.4"}, "limit")
        assert np.all(solution.weights.array * [1, 1, -1] >= 0)


def test_the_limit_needs_an_even_pilot() -> None:
    for sizes in ([3, 3], [2, 2], [5, 5], [4, 6]):
        p = problem(np.arange(float(sum(sizes))), sizes, [-INF])
        with pytest.raises(ValueError) as error:
            vp.solve(made(p), {"humor": "keep"}, "limit")
        one_line(error, 'candidates="limit"', "even number", f"{min(sizes)} to {max(sizes)}")


def test_the_limit_is_refused_where_half_of_the_candidates_fall_short() -> None:
    """What k = 4 cannot reach has no place in an extrapolation from 4 and 8, and no verdict in the limit."""
    p = plain(320, features=1)
    low = p.values.mean()
    at = {k: float(oracles.support(subsets(p, k), [1.0])) - low for k in (4, 8)}
    between = (at[4] + at[8]) / 2
    for entry in (f"+{between:.9f}", "reach 100%"):
        with pytest.raises(ValueError) as error:
            vp.solve(made(p), {"humor": entry}, "limit", on_infeasible="return")
        assert not isinstance(error.value, Infeasible)
        one_line(error, 'candidates="limit"', "k = 4", "ask a little less")
    with pytest.raises(Infeasible, match=r"Choosing among 8 candidates, .* no answer of the pilot"):
        vp.solve(made(p), {"humor": "+99"}, "limit")


# ---- the forward map


@pytest.mark.parametrize("options", [{}, {"candidates": 4}, {"mode": "joint"}, {"candidates": "limit"}])
def test_the_weights_of_a_solution_give_its_levels_back(options: Any) -> None:
    pilot = made(plain(321))
    solution = vp.solve(pilot, {"tone": "+0.3", "care": "<= -0.1"}, **options)
    back = Solution.from_weights(pilot, dict(solution.weights), **options)
    # In the limit the levels are those asked for, and those of the weights only as far as the limit is.
    exact = options.get("candidates") != "limit"
    assert back.features == solution.features
    assert back.levels.array == pytest.approx(solution.levels.array, abs=1e-8 if exact else 0.05)
    assert back.status is Status.OPTIMAL
    assert set(back.asked.values()) == {"free"}
    if exact:
        assert back.kl == pytest.approx(solution.kl, abs=1e-8)
        assert back.ess == pytest.approx(solution.ess)
        assert back.levels.se == pytest.approx(solution.levels.se, rel=1e-6)
        assert back.gains.se == pytest.approx(solution.gains.se, rel=1e-6)
    assert not back.weights.se.any()


def test_no_weights_are_the_base() -> None:
    solution = vp.levels(made(plain(322)), {})
    assert solution.gains.array == pytest.approx(np.zeros(3), abs=1e-15)
    assert not solution.weights.array.any()
    assert solution.kl == pytest.approx(0, abs=1e-15)
    assert solution.ess == pytest.approx(8)


# ---- reach


def test_reach_alone_is_the_best_of_k() -> None:
    p = plain(323, prompts=6, candidates=6)
    for k in (1, 2, 4, 6):
        whole = subsets(p, k)
        found = vp.reach(made(p), None, "tone", k)
        up, down = np.array([0.0, 1.0, 0.0]), np.array([0.0, -1.0, 0.0])
        assert found.high == pytest.approx(float(oracles.support(whole, up)))
        assert found.low == pytest.approx(-float(oracles.support(whole, down)))
        assert found.base == pytest.approx(p.values[:, 1].mean())
        assert (found.value, found.candidates) == ("tone", k)
    joint = vp.reach(made(p), None, "tone", mode="joint")
    assert (joint.low, joint.high) == (p.values[:, 1].min(), p.values[:, 1].max())
    assert joint.candidates is None
    # The entry of the value itself counts for nothing, and neither do those that are free.
    entry = vp.reach(made(p), {"tone": "reach 50%", "care": "free"}, "tone", 4)
    assert entry == vp.reach(made(p), None, "tone", 4)


@pytest.mark.parametrize(("k", "mode"), [(5, "prompt"), (2, "prompt"), (None, "joint")])
def test_reach_while_the_others_hold(k: int | None, mode: Any) -> None:
    for seed in (324, 325, 326):
        p = replace(plain(seed, prompts=6, candidates=5), joint=mode == "joint")
        found = vp.reach(made(p), {"tone": "keep", "care": "<= 0.1"}, "humor", k, mode=mode)
        whole = subsets(p, k) if k else p
        base = tilt(p, np.zeros(3)).levels.astype(float)
        held_low, held_high = np.array([base[0], base[1], -INF]), np.array([INF, INF, 0.1])
        step = np.array([1.0, 0.0, 0.0])
        high = oracles.farthest(replace(whole, lower=held_low, upper=held_high), step)
        held_low, held_high = np.array([-INF, base[1], -INF]), np.array([base[0], INF, 0.1])
        low = oracles.farthest(replace(whole, lower=held_low, upper=held_high), -step)
        unit = spread(p)[0]
        # To within the gap, and never beyond what can be had.
        assert found.high == pytest.approx(base[0] + high, abs=2e-6 * unit)
        assert found.high <= base[0] + high + 1e-8
        assert found.low == pytest.approx(base[0] - low, abs=2e-6 * unit)
        assert found.low >= base[0] - low - 1e-8
        alone = vp.reach(made(p), None, "humor", k, mode=mode)
        assert alone.low - 1e-6 <= found.low < found.high < alone.high


def test_reach_says_that_the_others_cannot_be_had() -> None:
    with pytest.raises(Infeasible, match="tone cannot average above"):
        vp.reach(made(plain(327)), {"humor": "+9", "tone": "+9"}, "humor")


def test_what_is_within_reach_can_be_had_and_what_is_beyond_cannot() -> None:
    p = plain(328)
    pilot, others = made(p), {"tone": "+0.2", "care": "keep"}
    for k in (3, 8):
        far = vp.reach(pilot, others, "humor", k)
        inside, beyond = far.high - 1e-3, far.high + 1e-3
        assert vp.solve(pilot, {**others, "humor": inside}, k).status is Status.OPTIMAL
        with pytest.raises(Infeasible):
            vp.solve(pilot, {**others, "humor": beyond}, k)


def test_reach_refuses_the_limit() -> None:
    with pytest.raises(ValueError) as error:
        vp.reach(made(plain(329)), None, "humor", "limit")  # type: ignore[arg-type]
    one_line(error, "candidates", "number", '"limit"')


# ---- what a decoder picks


def solved(weights: Mapping[str, float]) -> Solution:
    p = plain(330, prompts=4, features=2)
    return vp.levels(made(p), weights)


def test_probabilities_are_a_softmax() -> None:
    solution = solved({"humor": np.log(2), "tone": -np.log(3)})
    chance = solution.probabilities(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 1.0]]))
    assert chance == pytest.approx(np.array([1, 2, 4 / 3]) / (1 + 2 + 4 / 3))
    assert solution.probabilities(np.array([[3.0, 1.0]])) == pytest.approx([1.0])


def test_probabilities_bear_large_numbers() -> None:
    solution = solved({"humor": 1.0})
    small = np.array([[0.0, 0.0], [1.0, 5.0]])
    assert solution.probabilities(small + 2.0**40) == pytest.approx(solution.probabilities(small))
    far = solution.probabilities(np.array([[0.0, 0.0], [1e6, 0.0], [-1e6, 0.0]]))
    assert np.array_equal(far, [0, 1, 0])


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_on_a_boundary_the_choice_is_lexicographic(offset: float) -> None:
    """All of humor that there is, and half of tone: the funniest first, softmax among those."""
    rows = np.array([[2.0, 0.0], [2.0, 1.0], [0.0, 9.0], [1.0, 1.0]] * 2) + offset
    pilot = Pilot.from_arrays({"humor": rows[:, 0], "tone": rows[:, 1]}, prompt_id=[0] * 4 + [1] * 4)
    solution = vp.solve(pilot, {"humor": "reach 100%", "tone": 0.75 + offset})
    assert solution.status is Status.BOUNDARY
    assert len(solution.faces) == 1
    assert solution.probabilities(rows[:4]) == pytest.approx([0.25, 0.75, 0, 0], abs=1e-6)
    # A candidate that is less funny by a thousandth is not chosen, one that ties up to rounding may be.
    close = np.array([[2.0, 0.0], [2.0 - 1e-3, 1.0]]) + offset
    assert np.array_equal(solution.probabilities(close), [1, 0])
    ties = np.array([[2.0, 0.0], [2.0 - 1e-12, 0.0]]) + offset
    assert solution.probabilities(ties) == pytest.approx([0.5, 0.5])
    assert np.isnan(solution.weights.se).all()


def test_features_of_another_shape_are_refused() -> None:
    solution = solved({"humor": 1.0})
    for bad in (np.zeros(2), np.zeros((3, 1)), np.zeros((0, 2))):
        with pytest.raises(ValueError) as error:
            solution.probabilities(bad)
        one_line(error, "features", "(k, 2)", str(bad.shape))
    with pytest.raises(ValueError, match="features must be finite"):
        solution.probabilities(np.array([[0.0, np.nan]]))


# ---- what cannot be had


def test_infeasible_carries_the_proof() -> None:
    p = plain(331)
    asked = {"humor": "+0.9", "tone": "+0.9"}
    with pytest.raises(Infeasible) as error:
        vp.solve(made(p), asked)
    proof, solution = error.value.certificate, error.value.solution
    assert proof is not None
    assert str(error.value) == str(proof) == proof.sentence
    assert "\n" not in proof.sentence
    assert solution.certificate is proof
    assert solution.status is Status.INFEASIBLE
    returned = vp.solve(made(p), asked, on_infeasible="return")
    assert str(returned.certificate) == proof.sentence

    d = proof.directions.array
    assert np.abs(d).sum() == pytest.approx(1)
    assert proof.directions.names == ("humor", "tone", "care")
    want = replace(p, lower=solution.lower)
    assert proof.asked == pytest.approx(float(oracles.asked(want, d)))
    assert proof.reach == pytest.approx(float(oracles.support(p, d)))
    assert proof.gap == pytest.approx(proof.asked - proof.reach)
    # The margin of MATH 4; its certificate is sharpened to within a hundredth.
    assert proof.margin == pytest.approx(oracles.margin(want), rel=0.02)
    assert proof.margin == pytest.approx(-proof.gap / (np.abs(d) @ spread(p)))


def test_the_error_of_a_certificate_knows_that_the_bounds_came_from_the_pilot() -> None:
    """Asked: base + 9. A prompt whose best is far above its mean adds to the gap, one with a high mean does not."""
    p = plain(332, features=1, effects=3.0)
    relative = vp.solve(made(p), {"humor": "+9"}, on_infeasible="return").certificate
    absolute = vp.solve(made(p), {"humor": 9.0}, on_infeasible="return").certificate
    assert relative is not None
    assert absolute is not None
    best = p.values.reshape(30, 8).max(axis=1)
    room = best - p.values.reshape(30, 8).mean(axis=1)
    assert relative.se == pytest.approx(room.std(ddof=1) / np.sqrt(30))
    assert absolute.se == pytest.approx(best.std(ddof=1) / np.sqrt(30))
    assert relative.se < 0.5 * absolute.se
    assert f"(standard error of the gap {relative.se:.2g})" in str(relative)
    joint = vp.solve(made(p), {"humor": "+30"}, mode="joint", on_infeasible="return").certificate
    assert joint is not None
    assert np.isnan(joint.se)
    assert "standard error" not in str(joint)


def test_the_errors_of_a_search_that_failed_are_none() -> None:
    solution = vp.solve(made(plain(333)), {"humor": "+9"}, on_infeasible="return")
    assert np.isnan(solution.weights.se).all()


def test_a_single_prompt_has_no_errors() -> None:
    p = plain(334, prompts=1)
    solution = vp.solve(made(p), {"humor": "+0.2"})
    for figures in (solution.levels, solution.gains):
        assert np.isnan(figures.se).all()
    assert np.isnan(solution.weights.se[0])
    assert "nan" not in str(solution)
    lost = vp.solve(made(p), {"humor": "+9"}, on_infeasible="return")
    assert "standard error" not in str(lost.certificate)


# ---- files


def examples() -> dict[str, Solution]:
    p = plain(340)
    texts = [f"prompt {g}" for g in p.prompt]
    told = PilotMetadata(model={"id": "m", "template": None}, sampling={"top_k": 50, "temperature": 1.0})
    pilot = made(p, prompts=texts, metadata=told)
    asked = {"tone": "+0.2", "humor": "<= -0.1"}
    return {
        "optimal": vp.solve(pilot, asked, 4, seed=3),
        "joint": vp.solve(pilot, asked, mode="joint", weighting="rows"),
        "limit": vp.solve(pilot, asked, "limit"),
        "boundary": vp.solve(pilot, {"humor": "reach 100%"}),
        "infeasible": vp.solve(pilot, {"humor": "+9"}, on_infeasible="return"),
        "infeasible in joint mode": vp.solve(pilot, {"humor": "+99"}, mode="joint", on_infeasible="return"),
        "given": vp.levels(pilot, {"humor": 0.5}),
        "equality": vp.solve(pilot, {"care": "== 0.1"}),
        "one prompt": vp.solve(made(plain(341, prompts=1)), {"humor": "+0.1"}),
    }


def same(a: Any, b: Any) -> None:
    """Equal to the last bit, nan included."""
    if isinstance(a, Figures):
        assert a.names == b.names
        for name in ("array", "se", "error"):
            same(getattr(a, name), getattr(b, name))
    elif isinstance(a, float | np.ndarray):
        assert np.array_equal(a, b, equal_nan=True)
        assert np.shape(a) == np.shape(b)
    elif hasattr(a, "__dataclass_fields__"):
        for field in fields(a):
            if not field.name.startswith("influence_") and not field.name.endswith("_of"):
                same(getattr(a, field.name), getattr(b, field.name))
    else:
        assert a == b
        assert type(a) is type(b)


def test_a_solution_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "solution.json"
    for name, solution in examples().items():
        solution.save(path)
        back = Solution.load(path)
        same(solution, back)
        same(solution.margin, back.margin)
        assert str(solution) == str(back), name
        assert solution.seen == back.seen
        assert dict(solution.base) == dict(back.base)
        features = np.random.default_rng(0).normal(size=(5, 3))
        assert np.array_equal(solution.probabilities(features), back.probabilities(features))
        assert [file.name for file in tmp_path.iterdir()] == ["solution.json"]
        # And once more: what was read back can be saved.
        back.save(path)
        same(solution, Solution.load(path))


def test_margins_without_end_survive(tmp_path: Path) -> None:
    made_of = examples()
    assert made_of["given"].margin == INF
    assert made_of["equality"].margin == INF
    made_of["given"].save(tmp_path / "solution.json")
    assert Solution.load(tmp_path / "solution.json").margin == INF


def test_numbers_of_numpy_can_be_saved(tmp_path: Path) -> None:
    solution = vp.solve(made(plain(342)), {"humor": "+0.2"}, np.int64(4), seed=np.int64(3))  # type: ignore[arg-type]
    solution.save(tmp_path / "solution.json")
    same(solution, Solution.load(tmp_path / "solution.json"))


def test_a_file_that_is_no_solution_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "solution.json"
    good = examples()["boundary"].to_dict()
    short = {key: entry for key, entry in good.items() if key != "faces"}
    for text in ("", "[]", "{}", "{", "3", json.dumps(short), json.dumps({**good, "status": "FINE"})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError) as error:
            Solution.load(path)
        one_line(error, "path", str(path), "solution written by save")
    with pytest.raises(FileNotFoundError):
        Solution.load(tmp_path / "none.json")


def test_a_value_that_is_free_has_a_weight_without_error() -> None:
    solution = vp.solve(correlated(20), {"humor": "+0.2"})
    assert solution.weights.array[1] == solution.weights.error[1] == 0.0
    assert 0 < solution.weights.error[0] < 1e-6


def test_no_rounding_makes_a_variance_negative() -> None:
    rows = {"humor": [0.0, 2.0, 0.0, -1.0], "tone": [0.0, 0.0, 1.0, 1.0]}
    pilot = Pilot.from_arrays(rows, prompt_id=[0, 0, 1, 1])
    # Two prompts and two bounds that bind: in one direction nothing is left to scatter.
    solution = vp.solve(pilot, {"humor": "<= 0", "tone": "<= 0.1"}, mode="joint")
    assert (solution.weights.array < 0).all()
    assert (solution.weights.se >= 0).all()


def test_equalities_that_only_rounding_parts_leave_a_margin() -> None:
    rows = {"humor": [0.0, 1.0], "tone": [1e8, 1e8 + 2.3158535541215324], "flat": [0.0, 0.0]}
    pilot = Pilot.from_arrays(rows, prompt_id=[0, 0])
    palette = {"humor": "== 0", "tone": "== 100000000", "flat": 0.1}
    solution = vp.solve(pilot, palette, on_infeasible="return")
    assert solution.status is Status.INFEASIBLE
    assert solution.margin == pytest.approx(-1.0)


def test_given_weights_may_be_of_any_size() -> None:
    pilot = Pilot.from_arrays({"humor": [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]}, prompt_id=[0, 0, 0, 1, 1, 1])
    for weight in (1e3, 1e6, -1e9):
        at = vp.levels(pilot, {"humor": weight})
        assert at.levels["humor"] == pytest.approx(0.25 if weight > 0 else 0.0)
        assert at.weights.se.tolist() == [0.0]


def test_zero_is_printed_without_a_sign() -> None:
    assert str(vp.reach(Pilot.from_arrays({"a": [-0.0, -0.0]}, prompt_id=[0, 0]), None, "a")) == (
        "a: 0 to 0 with k = 2, base 0"
    )
    assert repr(Figures(("a", "b"), np.array([-0.0, -1e-9]))) == "a 0, b -1e-09"


def test_numbers_that_cannot_be_computed_with_are_refused() -> None:
    for size in (1e-101, 1e-200, 5e-324):
        tiny = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 0.0, 1.0]) * size}, prompt_id=[0, 0, 1, 1])
        with pytest.raises(ValueError, match=r"^humor varies by less than 1e-100, which cannot"):
            vp.solve(tiny, {"humor": "keep"})
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 0.0, 1.0]}, prompt_id=[0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"^palette\['humor'\]: 3000000 lies 6e\+06 standard dev"):
        vp.solve(pilot, {"humor": 3e6})
    with pytest.raises(Infeasible):
        vp.solve(pilot, {"humor": 3e5})


def correlated(prompts: int, seed: int = 0) -> Pilot:
    """Two values that pull against each other, six candidates a prompt, with effects of the prompt."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(prompts * 6, 2)) @ np.array([[1.0, -0.6], [0.0, 0.8]])
    rows += np.repeat(rng.normal(size=(prompts, 2)), 6, axis=0)
    return Pilot.from_arrays(
        {"humor": rows[:, 0], "tone": rows[:, 1]}, prompt_id=np.repeat(np.arange(prompts), 6)
    )


@pytest.mark.parametrize(
    ("entries", "kl", "mode"),
    [
        ({"humor": "max", "tone": "base-0.1"}, 0.3, "prompt"),  # budget and a bound bind
        ({"humor": "max"}, 0.3, "prompt"),
        ({"humor": "max", "tone": 0.0}, 0.3, "joint"),
        ({"humor": "max", "tone": "max"}, 0.3, "prompt"),  # the first keeps 95 % of what it could gain
        ({"humor": "max", "tone": "keep"}, 20.0, "prompt"),  # reach ends before the budget
        ({"humor": ["max", "<= +0.2"]}, 20.0, "prompt"),  # a cap of its own ends it
    ],
)
def test_each_prompt_moves_the_level_of_max_as_the_jackknife_says(entries: Any, kl: float, mode: Any) -> None:
    pilot, palette = correlated(40), vp.Palette(entries, kl=kl)

    def bounds(pilot: Pilot) -> np.ndarray:
        return vp.solve(pilot, palette, mode=mode).resolved.lower

    at = np.array([name in palette.maximised for name in ("humor", "tone")])
    whole = vp.solve(pilot, palette, mode=mode).resolved
    left = np.array([bounds(pilot.select(pilot.prompt_index != g))[at] for g in range(pilot.prompts)])
    pseudo = pilot.prompts * whole.lower[at] - (pilot.prompts - 1) * left
    found = whole.influence_lower[:, at]
    # Both are right to first order in 1/N, or in a prompt's share where prompts are re-weighted too.
    off = {"abs": 0.1 * pseudo.std(axis=0).min(), "rel": 0.25 if mode == "joint" else 0.0}
    assert found - found.mean(axis=0) == pytest.approx(pseudo - pseudo.mean(axis=0), **off)


def test_the_weight_of_max_is_as_sure_as_pilots_say() -> None:
    palette = vp.Palette({"humor": "max", "tone": "keep"}, kl=0.2)
    found = [vp.solve(correlated(60, seed), palette).weights for seed in range(200)]
    scatter = np.std([weights.array for weights in found], axis=0)
    told = np.median([weights.se for weights in found], axis=0)
    assert told == pytest.approx(scatter, rel=0.2)
