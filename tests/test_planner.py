"""A plan: verdicts, the smallest k, levels, costs, k → ∞; against each k solved alone and models known otherwise."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import valuepalette as vp
from problems import many
from valuepalette.planning import expect


def normal(seed: int = 0, prompts: int = 100, candidates: int = 16, **columns: Any) -> vp.Pilot:
    """Two values against each other, normal within prompts."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(prompts * candidates, 2)) @ np.array([[1.0, -0.5], [0.0, 0.8]])
    table += np.repeat(rng.normal(size=(prompts, 2)), candidates, axis=0)
    return vp.Pilot.from_arrays(
        {"humor": table[:, 0], "tone": table[:, 1]},
        prompt_id=np.repeat(np.arange(prompts), candidates),
        columns={name: np.repeat(entries, candidates) for name, entries in columns.items()} or None,
    )


@pytest.fixture(scope="module")
def pilot() -> vp.Pilot:
    return normal()


@pytest.fixture(scope="module")
def planned(pilot: vp.Pilot) -> vp.Plan:
    return vp.plan(pilot, {"humor": "+0.9", "tone": "keep"})


def test_every_k_is_that_of_solving(pilot: vp.Pilot, planned: vp.Plan) -> None:
    assert list(planned.choices) == [2, 4, 5, 8, 16]
    for k, choice in planned.choices.items():
        alone = vp.solve(pilot, {"humor": "+0.9", "tone": "keep"}, k, on_infeasible="return")
        assert choice.status is alone.status
        assert choice.margin == pytest.approx(alone.margin, abs=1e-6)
        if choice.had:
            assert (choice.solution.weights.array == alone.weights.array).all()
            # The blocks that calibrate the weights are some of the choices that the levels average over.
            assert choice.levels.array == pytest.approx(alone.levels.array, abs=0.03)
            assert choice.kl == pytest.approx(alone.kl, abs=0.02)
            assert choice.effective == pytest.approx(k * np.exp(-choice.kl))
            found = expect(pilot.groups(), alone.weights.array, k)
            assert choice.levels.array == pytest.approx(found.levels, abs=1e-12)
            assert choice.levels.se == pytest.approx(alone.levels.se, rel=0.05)
        else:
            assert np.isnan([choice.kl, choice.effective, *choice.levels.array]).all()
    assert planned[16].levels.array == pytest.approx(planned[16].solution.levels.array, abs=1e-8)


def test_the_smallest_is_found_between() -> None:
    for rng in many(11, 8):
        on = normal(int(rng.integers(1000)), prompts=10, candidates=int(rng.choice([6, 9, 11])))
        palette = {
            "humor": f"+{rng.uniform(0.1, 1.2):.3f}",
            "tone": str(rng.choice(["keep", "+0.1", "== keep"])),
        }
        had = [
            vp.solve(on, palette, k, on_infeasible="return").status is not vp.Status.INFEASIBLE
            for k in range(1, int(on.candidates or 0) + 1)
        ]
        assert had == sorted(had)  # what can be had at k can be had at k + 1
        smallest = vp.plan(on, palette).smallest
        assert smallest == (had.index(True) + 1 if True in had else None)


def test_margins_grow_with_k(planned: vp.Plan) -> None:
    margins = [choice.margin for choice in planned.choices.values()]
    assert all(a < b for a, b in pairwise(margins))
    assert [choice.had for choice in planned.choices.values()] == [margin > 0 for margin in margins]


def test_the_weights_of_a_larger_k_fall_short(planned: vp.Plan) -> None:
    """Table 5: the weights of 16 used at fewer candidates, which gets less and less; at 16 they are its own."""
    untuned = [choice.untuned["humor"] for choice in planned.choices.values()]
    assert all(a < b for a, b in pairwise(untuned))
    assert untuned[-1] == planned[16].levels["humor"]
    asked = planned[8].solution.lower[0]
    assert asked - planned[5].untuned["humor"] > 0.1
    assert abs(asked - planned[5].levels["humor"]) < 0.03


def test_fresh_decoders_get_the_levels_of_the_plan(planned: vp.Plan) -> None:
    """Of the same model, other answers to other prompts: gains by decoding k fresh candidates, weights of that k."""
    for k in (5, 16):
        fresh = normal(99, prompts=3_000, candidates=k)
        chosen = vp.choose(fresh, planned[k].solution, seed=1)
        drawn = np.asarray(chosen.table["drawn"])
        gains = np.asarray(chosen.table["humor"])[drawn] - fresh.groups().means[:, 0]
        base = planned[k].solution.base["humor"]
        se = np.hypot(gains.std() / 3_000**0.5, planned[k].solution.gains.se[0])
        assert abs(gains.mean() - (planned[k].levels["humor"] - base)) < 3.5 * se
        # The weights of 16 at fewer candidates would show.
        assert k == 16 or abs(gains.mean() - (planned[k].untuned["humor"] - base)) > 5 * se


def test_reach_is_the_same_at_every_k(pilot: vp.Pilot) -> None:
    planned = vp.plan(pilot, {"humor": "reach 60%"})
    asked = vp.solve(pilot, {"humor": "reach 60%"}).lower[0]
    assert {float(choice.solution.lower[0]) for choice in planned.choices.values()} == {float(asked)}
    assert planned[2].status is vp.Status.INFEASIBLE
    # Alone, each k would ask for a share of its own reach, which it always has.
    assert vp.solve(pilot, {"humor": "reach 60%"}, 2).lower[0] < asked


def test_max_is_each_ks_own(pilot: vp.Pilot) -> None:
    planned = vp.plan(pilot, vp.Palette({"humor": "max", "tone": "keep"}, kl=0.3), ks=[4, 16])
    assert planned[4].kl == pytest.approx(0.3, abs=0.01)
    assert planned[16].kl == pytest.approx(0.3, abs=1e-5)
    assert planned[4].levels["humor"] < planned[16].levels["humor"]
    assert "max" in str(planned)


def test_the_limit_of_normal_answers_is_known() -> None:
    """With normal answers of variance 1, λ = gain and KL = gain²/2 as k → ∞."""
    rng = np.random.default_rng(3)
    for gain in (0.3, 0.6, 0.9):
        on = vp.Pilot.from_arrays(
            {"humor": rng.normal(size=32_000)}, prompt_id=np.repeat(np.arange(2_000), 16)
        )
        limit = vp.plan(on, {"humor": f"+{gain}"}, ks=[16]).limit
        assert limit is not None
        weight = limit.solution.weights["humor"]
        assert abs(weight - gain) < limit.weights[0] + 2 * limit.solution.weights.se[0]
        assert abs(limit.solution.kl - gain**2 / 2) < limit.kl + 0.01
        assert limit.levels[0] == pytest.approx(0, abs=1e-6)
        # Nearer than what was extrapolated from, and not told to be exact.
        whole = vp.solve(on, {"humor": f"+{gain}"}).weights["humor"]
        assert abs(weight - gain) < abs(whole - gain)
        assert limit.weights[0] == pytest.approx(abs(whole - weight))


def test_without_a_limit_it_says_why(pilot: vp.Pilot) -> None:
    planned = vp.plan(pilot, {"humor": "+1.5"})
    assert planned.limit is None
    assert "half of the pilot's candidates" in planned.no_limit
    assert "INFEASIBLE" in vp.plan(pilot, {"humor": "+9"}).no_limit
    assert "the same even number" in vp.plan(normal(candidates=7), {"humor": "+0.3"}).no_limit


def test_shares_too(pilot: vp.Pilot) -> None:
    planned = vp.plan(pilot, {"humor": "P(< 0) <= 0.2"})
    share = planned[16].levels["P(humor < 0)"]
    assert share == pytest.approx(0.2, abs=1e-8)
    assert planned[2].status is vp.Status.INFEASIBLE
    assert all(choice.levels["P(humor < 0)"] < 0.21 for choice in planned.choices.values() if choice.had)


def test_the_very_edge_is_just_had(pilot: vp.Pilot) -> None:
    planned = vp.plan(pilot, {"humor": "reach 100%"}, ks=[8, 16])
    assert planned.smallest == 16
    assert planned[16].status is vp.Status.BOUNDARY
    most = vp.reach(pilot, None, "humor").high
    assert planned[16].levels["humor"] == pytest.approx(most, abs=1e-9)
    assert planned[16].effective == pytest.approx(1, abs=1e-9)
    assert "just" in str(planned)


def test_a_cohort_is_reported_among_its_own() -> None:
    on = normal(5, prompts=40, who=np.repeat(["a", "b"], 20))
    palette = vp.Palette({"tone": "keep"}, cohorts={"who=a": {"humor": "+0.5"}})
    choice = vp.plan(on, palette, ks=[4])[4]
    name = "humor @ who=a"
    assert choice.levels[name] == pytest.approx(choice.solution.levels[name], abs=0.05)
    assert choice.levels[name] == pytest.approx(choice.solution.base[name] + 0.5, abs=0.05)
    at = choice.levels.names.index(name)
    assert choice.levels.se[at] == pytest.approx(choice.solution.levels.se[at], rel=0.1)


def test_prompts_of_any_size_and_weight() -> None:
    rng = np.random.default_rng(6)
    ids = np.repeat(np.arange(30), rng.integers(5, 9, size=30))
    traffic = rng.uniform(1, 5, size=30)
    on = vp.Pilot.from_arrays(
        {"humor": rng.normal(size=len(ids))}, prompt_id=ids, columns={"traffic": traffic[ids]}
    )
    planned = vp.plan(on, {"humor": "+0.5"}, weighting="traffic")
    assert planned.smallest in planned.choices
    assert {2, 4, 5} <= set(planned.choices)
    assert planned[5].levels["humor"] == pytest.approx(planned[5].solution.levels["humor"], abs=0.05)


def test_confidence_asks_for_more(pilot: vp.Pilot) -> None:
    plain, sure = (vp.plan(pilot, {"humor": "+0.9"}, confidence=c) for c in (None, 0.95))
    assert sure[16].levels["humor"] > plain[16].levels["humor"]
    assert (sure.smallest or 99) >= (plain.smallest or 0)
    assert "every larger k" in str(plain)
    assert "every larger k" not in str(sure)


def test_costs_come_from_the_pilots_tokens() -> None:
    on = vp.Pilot.from_arrays(
        {"humor": [0.0, 2.0, 1.0, 0.0, 1.0]},
        prompt_id=[0, 1, 0, 1, 1],
        columns={"tokens": [10, 40, 20, 40, 70]},
    )
    planned = vp.plan(on, {"humor": "+0.1"}, prompt_tokens=100, finetune_tokens=1_000, train_price=2)
    assert planned.cost.answer == pytest.approx((15 + 50) / 2)
    assert planned[2].tokens == pytest.approx(165)
    assert planned[2].answers == np.ceil(2_000 / 32.5)
    assert "62" in str(planned)
    told = vp.plan(on, {"humor": "+0.1"}, answer_tokens=10)
    assert told[2].tokens == 20
    assert np.isnan(told[2].answers)
    assert "the prompt not counted" in str(told)


def test_without_tokens_there_is_no_cost(planned: vp.Plan) -> None:
    some = pa.table({"prompt_id": [0, 0], "humor": [0.0, 1.0], "tokens": pa.array([10, None])})
    assert np.isnan(vp.plan(vp.Pilot.read(some, values=["humor"]), {"humor": "+0.1"})[2].tokens)
    assert np.isnan(planned[16].tokens)
    assert "tokens" not in str(planned)
    assert "cheaper" not in str(planned)


def test_the_table_fits_and_says_it(planned: vp.Plan, pilot: vp.Pilot) -> None:
    text = str(vp.plan(pilot, {"humor": "+0.9", "tone": "keep"}, answer_tokens=20, finetune_tokens=5e5))
    assert max(map(len, text.splitlines())) <= 100
    assert "k = 5 is the smallest that has it; every larger k has it too." in text
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["can be had"][3:] == ["no", "no", "yes", "yes", "yes"]
    assert rows["tokens"][1:] == ["40", "80", "100", "160", "320"]
    impossible = str(vp.plan(pilot, {"humor": "+9"}))
    assert "It cannot be had with k = 16. Choosing among 16 candidates" in impossible
    assert max(map(len, impossible.splitlines())) <= 100
    assert "The base model has it" in str(vp.plan(pilot, {"humor": "-1"}))


def test_it_is_json(planned: vp.Plan, pilot: vp.Pilot) -> None:
    data = json.loads(json.dumps(planned.to_dict(), allow_nan=False))
    assert data["smallest"] == planned.smallest == 5
    assert [entry["candidates"] for entry in data["choices"]] == [2, 4, 5, 8, 16]
    assert data["choices"][0]["levels"] == {"humor": None, "tone": None}
    assert "cannot average above" in data["choices"][0]["certificate"]
    assert data["choices"][-1]["levels"]["humor"] == planned[16].levels["humor"]
    assert data["limit"]["weights"]["humor"] == planned.limit.solution.weights["humor"]  # type: ignore[union-attr]
    assert (
        json.loads(json.dumps(vp.plan(pilot, {"humor": "free"}).to_dict()))["choices"][0]["margin"] == "inf"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ks": [2, 17]}, "ks must be whole numbers from 1 to the 16 candidates of every prompt, got 17"),
        ({"ks": [2.5]}, "ks must be whole numbers from 1 to the 16 candidates of every prompt, got 2.5"),
        ({"ks": []}, "ks must name at least one"),
        ({"mode": "joint"}, 'mode must be "prompt" to plan'),
        ({"confidence": 2.0}, "confidence must lie between"),
        ({"finetune_tokens": 1e6}, "answer_tokens must say how long answers are"),
    ],
)
def test_what_makes_no_sense_is_one_line(pilot: vp.Pilot, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vp.plan(pilot, {"humor": "+0.1"}, **given)


def test_one_candidate_is_no_choice(planned: vp.Plan) -> None:
    with pytest.raises(ValueError, match="two candidates or more for every prompt"):
        vp.plan(normal(candidates=1), {"humor": "+0.1"})
    with pytest.raises(KeyError, match="k = 3 is none of 2, 4, 5, 8, 16"):
        planned[3]
