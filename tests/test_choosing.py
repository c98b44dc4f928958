"""Ways to choose without levels, against numbers worked out beside them."""

from __future__ import annotations

import numpy as np
import pytest

from valuepalette.baselines.choosing import asked_of, judge_choice, off_by, off_by_chance, usual_choices
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve

K = 4


def candidates(seed: int, prompts: int = 40, first: int = 0) -> Pilot:
    """Three values of normal numbers; `humor` differs between prompts as much as within them."""
    rng = np.random.default_rng(seed)
    index = np.repeat(np.arange(prompts), K)
    humor = rng.normal(size=prompts)[index] + rng.normal(size=len(index))
    return Pilot.from_arrays(
        {"humor": humor, "tone": 3 * rng.normal(size=len(index)), "length": 20 + rng.normal(size=len(index))},
        prompt_id=index + first,
        columns={"candidate": np.tile(np.arange(K), prompts)},
    )


PILOT, FRESH = candidates(0), candidates(1, first=1000)
PALETTE = {"humor": "reach 40%", "length": "<= keep"}
SOLUTION = solve(PILOT, PALETTE)
OTHERS = usual_choices(PILOT, SOLUTION)


def standard(pilot: Pilot) -> np.ndarray:
    """The equal sum, by hand: humor up and length down, in standard deviations of the pilot."""
    sd = PILOT.array.std(axis=0)
    return (pilot.array[:, 0] / sd[0] - pilot.array[:, 2] / sd[2]).reshape(-1, K)


def gain(chance: np.ndarray, column: int) -> float:
    values = FRESH.array[:, column].reshape(-1, K)
    return float(((chance - 1 / K) * values).sum(axis=1).mean())


def test_names_in_order() -> None:
    assert list(OTHERS) == ["equal weights", "best of 4", "joint mode"]


def test_equal_weights_are_one_for_each_deviation_on_the_asked_side() -> None:
    sd = PILOT.array.std(axis=0)
    expected = {"humor": 1 / sd[0], "length": -1 / sd[2], "tone": 0.0}
    assert dict(OTHERS["equal weights"].weights) == pytest.approx(expected)
    scores = np.exp(standard(FRESH))
    chance = scores / scores.sum(axis=1, keepdims=True)
    found = judge_choice(FRESH, OTHERS["equal weights"])
    assert [found[name].gain for name in ("humor", "tone", "length")] == pytest.approx(
        [gain(chance, column) for column in range(3)]
    )


def test_best_of_k_always_takes_the_highest_sum() -> None:
    best = standard(FRESH).argmax(axis=1)
    chance = np.eye(K)[best]
    found = judge_choice(FRESH, OTHERS["best of 4"])
    assert found["humor"].gain == pytest.approx(gain(chance, 0))
    assert found["length"].gain == pytest.approx(gain(chance, 2))
    assert found.kl == pytest.approx(np.log(K))


def test_joint_weights_have_the_levels_in_joint_mode_and_less_at_a_decoder() -> None:
    joint = OTHERS["joint mode"]
    assert joint.mode == "joint"
    assert joint.levels["humor"] == pytest.approx(SOLUTION.lower[0])
    assert joint.levels["length"] <= SOLUTION.upper[1] + 1e-9
    given = Solution.from_weights(PILOT, dict(joint.weights))
    assert given.gains["humor"] < 0.8 * SOLUTION.gains["humor"]
    assert judge_choice(FRESH, joint)["humor"].gain < judge_choice(FRESH, SOLUTION)["humor"].gain


def test_equalities_are_asked_as_such_and_values_that_do_not_vary_have_no_weight() -> None:
    flat = PILOT.with_values({"flat": np.zeros(PILOT.rows)})
    others = usual_choices(flat, solve(flat, {"humor": "== +0.2", "flat": "keep"}))
    assert others["equal weights"].weights["flat"] == 0
    assert others["joint mode"].levels["humor"] == pytest.approx(flat.groups().base[0] + 0.2)


def test_off_by_is_the_mean_distance_in_deviations_within_prompts() -> None:
    judged = judge_choice(FRESH, SOLUTION)
    asked = asked_of(judged)
    assert [row.name for row in asked] == ["humor", "length"]
    spread = dict(zip(SOLUTION.features, SOLUTION.spread, strict=True))
    found = judge_choice(FRESH, OTHERS["best of 4"])
    by_hand = [abs(found[row.name].gain - row.to_gain) / spread[row.name] for row in asked]
    slack = [row for row in asked if SOLUTION.weights[row.name] == 0]
    assert not slack
    assert off_by(found, judged, SOLUTION) == pytest.approx(np.mean(by_hand))


def test_more_than_asked_where_nothing_binds_is_no_distance() -> None:
    # Humor and its double: the second bound is slack, and its overshoot free.
    pilot = PILOT.with_values({"double": 2 * PILOT.array[:, 0] + 0.01 * PILOT.array[:, 1]})
    fresh = FRESH.with_values({"double": 2 * FRESH.array[:, 0] + 0.01 * FRESH.array[:, 1]})
    solution = solve(pilot, {"humor": "reach 40%", "double": "keep"})
    assert solution.weights["double"] == 0
    judged = judge_choice(fresh, solution)
    alone = abs(judged["humor"].gain - judged["humor"].to_gain) / solution.spread[0]
    assert judged["double"].gain > 0.5
    assert off_by(judged, judged, solution) == pytest.approx(alone / 2)


def test_chance_alone_makes_as_much_of_it_as_it_does() -> None:
    found: list[float] = []
    expected: list[float] = []
    for seed in range(60):
        solution = solve(candidates(2 * seed), PALETTE)
        judged = judge_choice(candidates(2 * seed + 1, first=1000), solution)
        found.append(off_by(judged, judged, solution))
        expected.append(off_by_chance(judged, solution))
    assert np.mean(found) == pytest.approx(np.mean(expected), rel=0.2)


def test_on_its_own_pilot_a_solution_has_what_was_asked() -> None:
    judged = judge_choice(PILOT, SOLUTION)
    assert off_by(judged, judged, SOLUTION) == pytest.approx(0, abs=1e-7)
    assert off_by(judge_choice(PILOT, OTHERS["joint mode"]), judged, SOLUTION) > 0.03
