"""What moves when a bound or a reward does: against solving again, and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import valuepalette as vp
from oracles import Problem, problem, spread
from problems import groups, pilot
from valuepalette import Palette, Pilot, Solution, Status
from valuepalette.dual import Optimum, optimise
from valuepalette.laying import tilted
from valuepalette.sensitivity import (
    lasting,
    prices,
    reward_response,
    reward_slopes,
    weight_response,
    worst_case,
)

INF = np.inf


def solved(p: Problem, **options: Any) -> Optimum:
    found = optimise(groups(p), p.lower, p.upper, joint=p.joint, **options)
    assert found.status is Status.OPTIMAL
    return found


def standard(seed: int, *, joint: bool = False, prompts: int = 20) -> Problem:
    """Three values, two of them raised and the third let fall."""
    p = pilot(
        np.random.default_rng(seed), prompts=prompts, candidates=8, features=3, joint=joint, shape="effects"
    )
    return replace(p, lower=groups(p).base + np.array([0.3, 0.1, -2.0]) * spread(p))


# ---- bounds


def test_the_response_by_hand() -> None:
    """Two candidates, 0 and 1: λ = log(c / (1 − c)), so dλ/dc = 1 / (c (1 − c)) > 0."""
    p = problem([0.0, 1.0], [2], [0.75])
    found = solved(p)
    assert weight_response(found.weights, found.covariance) == pytest.approx(np.array([[16 / 3]]))


def test_the_response_does_not_depend_on_units() -> None:
    p = standard(401)
    found = solved(p)
    unit = np.array([1e-7, 1e6, 1.0])
    moved = weight_response(found.weights / unit, found.covariance * np.outer(unit, unit))
    plain = weight_response(found.weights, found.covariance)
    assert moved * np.outer(unit, unit) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("block", [None, 3])
def test_prices_are_those_of_solving_again(block: int | None) -> None:
    for seed in range(410, 416):
        p, unit = standard(seed), spread(standard(seed))
        found = solved(p, block=block)
        for i in range(3):
            errors = []
            for size in (0.02, 0.01):
                step = size * unit
                told = prices(found.weights, found.covariance, step)
                level = found.levels[i] + step[i]
                held = np.where(found.weights != 0, found.levels, -INF)
                again = solved(replace(p, lower=np.where(np.arange(3) == i, level, held)), block=block)
                errors.append(
                    [
                        abs(again.kl - found.kl - told.kl[i]),
                        np.abs((again.levels - found.levels - told.levels[i]) / unit).max(),
                        np.abs((again.weights - found.weights - told.weights[i]) * unit).max(),
                    ]
                )
            # What is left falls with the third power of the step in KL, with the second elsewhere.
            coarse, fine = np.array(errors)
            assert np.all(fine <= np.maximum(coarse / np.array([6, 3, 3]), 1e-8))
            assert np.all(coarse <= [1e-4, 1e-2, 1e-2])


def test_a_value_that_the_others_determine_has_no_price() -> None:
    p = problem([[0.0, 0.0], [1.0, -2.0], [0.5, -1.0]], [3], [0.6, -INF])
    found = solved(p)
    told = prices(found.weights, found.covariance, np.array([0.1, 0.1]))
    assert told.kl[1] == INF
    assert np.isfinite(told.kl[0])
    assert told.levels[0] == pytest.approx([0.1, -0.2])


def test_prices_hold_until_another_bound_binds() -> None:
    """The second value falls as the first rises, and has 0.05 to lose."""
    p = problem([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.2]], [5], [0.7, -INF])
    found = solved(p)
    step = np.array([0.1, 0.1])
    told = prices(found.weights, found.covariance, step)
    assert told.levels[0, 1] < 0
    lower = np.array([0.7, found.levels[1] - 0.001])
    many_steps = lasting(told, found.weights, found.levels, lower, p.upper)
    assert many_steps[0] == pytest.approx(-0.001 / told.levels[0, 1])
    # With less asked of it the first weight comes to zero; with more of the second, it does sooner or never.
    less = prices(found.weights, found.covariance, -step)
    ends = lasting(less, found.weights, found.levels, p.lower, p.upper)[0]
    assert ends == pytest.approx(found.weights[0] / -less.weights[0, 0])
    # An equality has no weight that may not change its sign.
    pinned = lasting(less, found.weights, found.levels, p.lower, np.array([0.7, INF]))
    assert pinned[0] == INF


# ---- rewards


@pytest.mark.parametrize(
    ("joint", "block"), [(False, None), (True, None), (False, 3), (False, 4), (False, 5)]
)
def test_the_response_to_rewards_is_that_of_solving_again(joint: bool, block: int | None) -> None:
    for seed in range(420, 424):
        p = standard(seed, joint=joint)
        found, unit = solved(p, block=block), spread(p)
        rng = np.random.default_rng(seed)
        change, moved = rng.normal(size=p.values.shape) * unit, rng.normal(size=3) * unit
        h = 1e-5
        ahead, behind = (
            solved(replace(p, values=p.values + s * change, lower=p.lower + s * moved), block=block).weights
            for s in (h, -h)
        )
        told = reward_response(groups(p), found.weights, change, bounds=moved, joint=joint, block=block)
        assert (ahead - behind) / (2 * h) * unit == pytest.approx(told * unit, abs=2e-7)
        slopes = list(reward_slopes(groups(p), found.weights, joint=joint, block=block))
        alone = reward_response(groups(p), found.weights, change, joint=joint, block=block)
        assert [(slope * change).sum() for slope in slopes] == pytest.approx(alone)


def test_the_worst_case_is_attained_and_not_exceeded() -> None:
    for seed in range(430, 434):
        p = standard(seed)
        found, at = solved(p), groups(p)
        worst, delta = worst_case(at, found.weights), 1e-5
        rng = np.random.default_rng(seed)
        for i, slope in enumerate(reward_slopes(at, found.weights)):
            if found.weights[i] == 0:
                assert worst[i] == 0
                continue
            moved = solved(replace(p, values=p.values + delta * np.sign(slope))).weights[i] - found.weights[i]
            assert moved == pytest.approx(delta * worst[i], rel=2e-3)
            for _ in range(5):
                any_ = rng.uniform(-delta, delta, size=p.values.shape)
                other = solved(replace(p, values=p.values + any_)).weights[i] - found.weights[i]
                assert abs(other) < delta * worst[i]


# ---- a solution


NAMES = ("humor", "tone", "care", "length")


def made(seed: int = 0, prompts: int = 60, candidates: int = 6) -> Pilot:
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(prompts), candidates)
    mixing = np.array([[1, 0.5, -0.3, 0.2], [0, 1, 0.4, 0], [0, 0, 1, 0.3], [0, 0, 0, 1]])
    table = rng.normal(size=(len(prompt), 4)) @ mixing + rng.normal(size=(prompts, 4))[prompt]
    shuffled = rng.permutation(len(prompt))
    return Pilot.from_arrays(
        {name: table[shuffled, i] for i, name in enumerate(NAMES)},
        prompt_id=prompt[shuffled],
        columns={"audience": np.where(prompt % 3, "adults", "children")[shuffled]},
    )


PALETTE = Palette(
    {"humor": "+0.2", "tone": "+0.1", "length": "<= base-0.1"},
    cohorts={"audience=children": {"care": "+0.1"}},
)


@pytest.mark.parametrize("feature", ["humor", "length", "care @ audience=children"])
def test_the_price_list_of_a_solution_is_in_the_units_of_its_levels(feature: str) -> None:
    pilot = made()
    solution = vp.solve(pilot, PALETTE)
    side = -1 if feature == "length" else 1
    price = solution.sensitivity({feature: side * 0.01}).prices[feature]
    value = feature.split(" ")[0]
    more = {"humor": "+0.21", "length": "<= base-0.11", "care": "+0.11"}[value]
    entries, cohorts = PALETTE.entries, PALETTE.cohorts
    if value == "care":
        cohorts = {"audience=children": {"care": more}}
    else:
        entries[value] = more
    again = vp.solve(pilot, Palette(entries, cohorts=cohorts))
    assert price.kl == pytest.approx(again.kl - solution.kl, rel=2e-3)
    for name in solution.features:
        assert price.levels[name] == pytest.approx(again.levels[name] - solution.levels[name], abs=3e-4)
        assert price.weights[name] == pytest.approx(again.weights[name] - solution.weights[name], abs=3e-3)
    i = solution.features.index(feature)
    response = solution.sensitivity().response[:, i] * side * 0.01
    assert response == pytest.approx(list(price.weights.values()), abs=1e-12)


def test_the_usual_step_is_a_tenth_of_a_deviation_towards_the_ask() -> None:
    solution = vp.solve(made(), PALETTE)
    prices = solution.sensitivity().prices
    assert list(prices) == list(solution.features)
    assert prices["humor"].step == pytest.approx(0.1 * solution.spread[0])
    assert prices["length"].step == pytest.approx(-0.1 * solution.spread[solution.features.index("length")])
    children = made().column("audience") == "children"
    inside = made().select(np.repeat(True, made().rows))
    rows = np.isin(inside.prompt_index, np.flatnonzero(children))
    alone = vp.solve(inside.select(rows), {"care": "keep"})
    assert prices["care @ audience=children"].step == pytest.approx(0.1 * alone.spread[0])
    assert solution.sensitivity(0.2).prices["humor"].step == pytest.approx(0.2 * solution.spread[0])


def test_what_holds_until_is_where_solving_again_finds_another_set() -> None:
    pilot = made()
    solution = vp.solve(pilot, {"humor": "+0.2", "care": "base-0.12"})
    assert solution.weights["care"] == 0
    price = solution.sensitivity().prices["humor"]
    assert price.levels["care"] < 0
    assert 0 < price.until < INF
    inside = vp.solve(pilot, {"humor": f"+{0.2 + 0.8 * price.until}", "care": "base-0.12"})
    beyond = vp.solve(pilot, {"humor": f"+{0.2 + 1.2 * price.until}", "care": "base-0.12"})
    assert inside.weights["care"] == 0
    assert beyond.weights["care"] > 0


def test_a_solution_that_was_read_back_has_the_same_prices(tmp_path: Path) -> None:
    solution = vp.solve(made(), PALETTE)
    solution.save(tmp_path / "solution.json")
    back = Solution.load(tmp_path / "solution.json")
    assert str(back.sensitivity()) == str(solution.sensitivity())
    assert np.array_equal(back.sensitivity().response, solution.sensitivity().response)


def test_the_price_list_can_be_read() -> None:
    text = str(vp.solve(made(), PALETTE).sensitivity())
    assert max(map(len, text.splitlines())) <= 100
    for word in ("step", "KL", "until", "humor", "held"):
        assert word in text
    many_values = {
        f"a value with a long name, number {i}": np.random.default_rng(i).normal(size=200) for i in range(12)
    }
    wide = Pilot.from_arrays(many_values, prompt_id=np.repeat(np.arange(25), 8))
    text = str(vp.solve(wide, dict.fromkeys(list(many_values)[:3], "+0.01")).sensitivity())
    assert max(map(len, text.splitlines())) <= 100
    assert "no room for" in text


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (0, "step must be a positive number"),
        (-0.1, "step must be a positive number"),
        (np.nan, "step must be a positive number"),
        (True, "step must be a positive number"),
        ({"wit": 0.1}, "step must name features"),
        ({"humor": 0}, "step must be a finite number that is not 0"),
        ({"humor": "a bit"}, "step must be a finite number that is not 0"),
        ({}, "step must name at least one feature"),
    ],
)
def test_steps_that_are_none_are_refused(step: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        vp.solve(made(), PALETTE).sensitivity(step)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("asked", "status"), [(1.0, "BOUNDARY"), (1.5, "INFEASIBLE")])
def test_where_weights_have_no_slope_there_are_no_prices(asked: float, status: str) -> None:
    pilot = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    solution = vp.solve(pilot, {"humor": asked}, on_infeasible="return")
    with pytest.raises(ValueError, match=f"sensitivity needs an OPTIMAL solution.*{status}"):
        solution.sensitivity()
    with pytest.raises(ValueError, match=f"solution must be OPTIMAL.*{status}"):
        vp.robustness(pilot, solution, 0.1)


def test_the_limit_has_no_prices() -> None:
    solution = vp.solve(made(), {"humor": "+0.1"}, candidates="limit")
    with pytest.raises(ValueError, match="limit"):
        solution.sensitivity()
    with pytest.raises(ValueError, match="limit"):
        vp.robustness(made(), solution, 0.1)


# ---- robustness


def moved(pilot: Pilot, change: np.ndarray) -> Pilot:
    values = {name: pilot.array[:, i] + change[:, i] for i, name in enumerate(pilot.values)}
    columns = {"audience": pilot.table["audience"]}
    return Pilot.from_arrays(values, prompt_id=pilot.table["prompt_id"], columns=columns)


def numbers_of(solution: Solution) -> Palette:
    """The same bounds as numbers, so that they stay where they are."""
    bounds: dict[str, list[str]] = {}
    inner: dict[str, list[str]] = {}
    for name, low, high in zip(solution.features, solution.lower, solution.upper, strict=True):
        told = [f">= {low}"] * bool(np.isfinite(low)) + [f"<= {high}"] * bool(np.isfinite(high))
        (inner if "@" in name else bounds)[name.split(" ")[0]] = told or ["free"]
    return Palette(bounds, cohorts={"audience=children": inner} if inner else None)


@pytest.mark.parametrize(
    "options", [{}, {"candidates": 4, "seed": 2}, {"mode": "joint"}], ids=["all", "k", "joint"]
)
def test_the_worst_error_is_attained(options: dict[str, Any]) -> None:
    pilot = made()
    entries = PALETTE.entries
    palette = Palette(entries) if "mode" in options else PALETTE
    first = vp.solve(pilot, palette, **options)
    solution = vp.solve(pilot, numbers_of(first), **options)
    delta = {"humor": 1e-5, "tone": 3e-5, "care": 2e-5, "length": 0.0}
    sure = vp.robustness(pilot, solution, delta)
    assert list(sure.worst) == list(solution.features)
    for name, weight in solution.weights.items():
        if weight == 0:
            assert sure.worst[name] == 0
            continue
        change = sure.attained[name]
        assert change.shape == (pilot.rows, 4)
        assert np.all(np.abs(change) <= list(delta.values()))
        for side in (1, -1):
            again = vp.solve(moved(pilot, side * change), numbers_of(solution), **options)
            assert again.weights[name] - weight == pytest.approx(side * sure.worst[name], rel=5e-3)


def test_levels_with_the_weights_kept_are_within_delta() -> None:
    """However large the error: answers are chosen as before, and an average moves no more than what it is of."""
    pilot, rng = made(), np.random.default_rng(5)
    solution = vp.solve(pilot, {"humor": "+0.2", "tone": "+0.1"})
    chance = np.exp(pilot.array @ [solution.weights[name] for name in pilot.values])
    total = np.bincount(pilot.prompt_index, chance)
    share = chance / total[pilot.prompt_index] / pilot.prompts
    assert share @ pilot.array[:, 0] == pytest.approx(solution.levels["humor"])
    for delta in (0.1, 10.0):
        wrong = rng.choice([-delta, delta], size=pilot.array.shape)
        true = share @ (pilot.array + wrong)
        assert np.all(np.abs(true - [solution.levels[name] for name in pilot.values]) <= delta)
    all_too_high = share @ (pilot.array - 0.1)
    assert all_too_high[0] == pytest.approx(solution.levels["humor"] - 0.1)  # and it can be as much


def test_robustness_can_be_read_and_needs_the_pilot_that_was_solved(tmp_path: Path) -> None:
    pilot = made()
    solution = vp.solve(pilot, PALETTE)
    solution.save(tmp_path / "solution.json")
    sure = vp.robustness(pilot, Solution.load(tmp_path / "solution.json"), 0.01)
    assert sure.worst == pytest.approx(vp.robustness(pilot, solution, 0.01).worst)
    text = str(sure)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("no true level is further", "first order", "humor", "± worst"):
        assert word in text
    for other in (made(1), made(prompts=61)):
        with pytest.raises(ValueError, match="pilot must be the one that was solved on") as error:
            vp.robustness(other, solution, 0.01)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (0.0, "delta must be above 0"),
        (-1.0, "delta must be a finite number"),
        (np.inf, "delta must be a finite number"),
        ({"wit": 0.1}, "delta must name values"),
        ({"humor": "much"}, "delta must be a finite number"),
    ],
)
def test_errors_of_no_size_are_refused(delta: Any, words: str) -> None:
    pilot = made()
    with pytest.raises(ValueError, match=words) as error:
        vp.robustness(pilot, vp.solve(pilot, PALETTE), delta)
    assert "\n" not in str(error.value)


def test_tails_jump() -> None:
    pilot = made()
    with pytest.raises(ValueError, match="no tail"):
        vp.robustness(pilot, vp.solve(pilot, {"humor": "P(< -1) <= 0.2"}), 0.01)


@pytest.mark.parametrize(
    ("joint", "block", "candidates"), [(False, None, 6), (False, 4, 6), (True, None, 6), (True, None, 1)]
)
def test_the_pulls_of_rows_make_up_the_covariance(joint: bool, block: int | None, candidates: int) -> None:
    """Also where one group is so long that it is cut into chunks."""
    rng = np.random.default_rng(440)
    sizes = np.full(9_000 if candidates == 1 else 40, candidates)
    p = problem(rng.normal(size=(int(sizes.sum()), 2)), sizes, [-INF, -INF], joint=joint)
    at, weights = groups(p), np.array([0.4, -0.3])
    source = tilted(at, np.ones(2), joint=joint, block=block)
    pull = source.row_deviations(weights)
    assert pull.T @ p.values == pytest.approx(source.pass_(weights).covariance, abs=1e-12)
    assert pull.sum(axis=0) == pytest.approx([0, 0], abs=1e-13)
