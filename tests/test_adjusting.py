"""Palettes that cannot be had, and `max`, on pilots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import problems
import valuepalette as vp
from oracles import Problem, spread
from valuepalette.dual import Status

NAMES = ("humor", "tone", "care")
INF = np.inf


def plain(seed: int, prompts: int = 12, candidates: int = 8, **kind: Any) -> Problem:
    rng = np.random.default_rng([404, seed])
    kind = {"shape": "effects", "joint": False, "weighted": False, **kind}
    return problems.pilot(rng, prompts=prompts, candidates=candidates, features=3, **kind)


def made(p: Problem, **columns: Any) -> vp.Pilot:
    return vp.Pilot.from_arrays(
        dict(zip(NAMES, p.values.T, strict=True)),
        prompt_id=np.repeat(np.arange(len(p.weights)), p.sizes),
        **columns,
    )


HARD = {"humor": "reach 90%", "tone": "reach 90%", "care": "keep"}


@pytest.mark.parametrize("method", ["interpolate", "greedy", "nearest"])
@pytest.mark.parametrize(("k", "mode"), [(None, "prompt"), (4, "prompt"), (None, "joint")])
def test_an_adjusted_palette_can_be_had(method: Any, k: int | None, mode: Any) -> None:
    pilot = made(plain(1))
    with pytest.raises(vp.Infeasible):
        vp.solve(pilot, HARD, k, mode=mode)
    found = vp.adjust(pilot, HARD, k, method=method, mode=mode)
    again = vp.solve(pilot, found.palette, k, mode=mode)
    assert again.status is Status.OPTIMAL
    assert again.weights.array == pytest.approx(found.solution.weights.array)
    assert found.rho < 1
    unit = dict(zip(NAMES, found.solution.spread, strict=True))
    asked = dict(zip(found.asked, found.asked.array, strict=True))
    for name in found.blocked_by:
        assert found.had[name] < asked[name]
    for name in set(NAMES) - set(found.blocked_by):
        assert found.had[name] > asked[name] - 2 * found.inside * unit[name] - 1e-9
    if method != "nearest":
        assert found.palette.entries["care"] == "keep"
    assert {"humor", "tone"} >= set(found.blocked_by) or method == "nearest"
    text = str(found)
    assert "reach of" in text
    assert "inside the limit" in text


def test_what_can_be_had_is_returned_as_it_is() -> None:
    pilot = made(plain(2))
    palette = vp.Palette({"humor": "reach 20%", "tone": "keep"})
    for method in ("interpolate", "greedy", "nearest"):
        found = vp.adjust(pilot, palette, method=method)  # type: ignore[arg-type]
        assert found.palette == palette
        assert (found.rho, found.inside, found.blocked_by) == (1.0, 0.0, {})
        assert found.solution.weights.array == pytest.approx(vp.solve(pilot, palette).weights.array)
        assert str(found).startswith("The palette can be had as it is.")


def test_priority_decides_who_goes_first() -> None:
    pilot = made(plain(3))
    first = vp.adjust(pilot, HARD, method="greedy", priority=["tone"])
    assert first.had["tone"] > vp.adjust(pilot, HARD, method="greedy").had["tone"]
    assert first.asked == vp.adjust(pilot, HARD, method="greedy", priority=["tone", "humor"]).asked


def test_a_budget_holds_on_the_pilot() -> None:
    pilot = made(plain(4))
    for method in ("interpolate", "greedy", "nearest"):
        found = vp.adjust(pilot, {"humor": "reach 80%", "tone": "+0.1"}, method=method, kl=0.2)  # type: ignore[arg-type]
        assert found.solution.kl == pytest.approx(0.2, abs=1e-5)
        assert found.solution.kl <= 0.2 + 1e-8
        assert "KL, spent on" in str(found)


def test_tails_lists_equalities_and_cohorts_are_adjusted_in_their_own_units() -> None:
    p = plain(5, prompts=20)
    audience = np.repeat(["children", "adults"], 10)
    pilot = made(p, columns={"audience": np.repeat(audience, 8)})
    palette = vp.Palette(
        {"humor": ["reach 70%", "P(< 0) <= 0.01"], "tone": "== 99"},
        cohorts={"audience=children": {"care": "reach 95%"}},
    )
    for method in ("interpolate", "greedy"):
        found = vp.adjust(pilot, palette, method=method)  # type: ignore[arg-type]
        again = vp.solve(pilot, found.palette)
        assert again.status is Status.OPTIMAL
        assert set(found.asked) >= {"tone", "care @ audience=children"}
        assert found.had["tone"] < 99
        for name, asked in found.asked.items():
            if name in found.blocked_by:
                assert abs(found.had[name] - again.base[name]) < abs(asked - again.base[name])


@pytest.mark.parametrize(
    ("palette", "options", "says"),
    [
        (HARD, {"method": "best"}, "method must be"),
        (HARD, {"priority": ["tone"]}, 'priority is for method="greedy"'),
        (
            HARD,
            {"method": "greedy", "priority": ["mood"]},
            "priority must name values that the palette asks for",
        ),
        (HARD, {"method": "greedy", "priority": "tone"}, "priority must be a list of names"),
        (HARD, {"kl": 0.0}, "kl must be a number of nats above 0, got 0.0"),
        (HARD, {"candidates": "limit"}, "candidates must be a number here"),
        (
            {"humor": [">= 2", "<= 1"]},
            {},
            "palette must not contradict itself, got humor at least 2 and at most 1",
        ),
    ],
)
def test_refusals(palette: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        vp.adjust(made(plain(6)), palette, **options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# ---- max


def test_max_spends_its_budget() -> None:
    pilot = made(plain(7))
    for kl in (0.05, 0.3):
        solution = vp.solve(pilot, vp.Palette({"tone": "keep", "humor": "max"}, kl=kl))
        assert solution.status is Status.OPTIMAL
        assert solution.kl == pytest.approx(kl, abs=1e-7)
        assert solution.asked["humor"] == "max"
        # No other palette within the budget has more of it: the weight of the value is the price of the budget.
        more = solution.levels["humor"] + 1e-4
        assert vp.solve(pilot, {"tone": "keep", "humor": more}).kl > kl
    default = vp.solve(pilot, {"humor": "max", "tone": "keep"})
    assert default.effective == pytest.approx(8 / 4, rel=1e-6)


def test_max_in_the_palettes_order() -> None:
    pilot = made(plain(8))
    alone = vp.solve(pilot, {"humor": "max"}).gains["humor"]
    one = vp.solve(pilot, {"humor": "max", "tone": "max"})
    other = vp.solve(pilot, {"tone": "max", "humor": "max"})
    assert one.gains["humor"] == pytest.approx(0.95 * alone, rel=1e-5)
    assert one.gains["humor"] > other.gains["humor"]
    assert one.gains["tone"] < other.gains["tone"]
    for solution in (one, other):
        assert solution.kl == pytest.approx(np.log(4), abs=1e-6)


def test_max_beside_bounds_and_for_fewer_candidates() -> None:
    pilot = made(plain(9))
    solution = vp.solve(pilot, {"humor": ["keep", "max"], "tone": "+0.1"}, 4)
    assert solution.status is Status.OPTIMAL
    assert solution.kl <= np.log(4) + 1e-6
    beyond = vp.solve(pilot, {"humor": "max", "tone": 99}, on_infeasible="return")
    assert beyond.status is Status.INFEASIBLE
    adjusted = vp.adjust(pilot, {"humor": "max", "tone": 99})
    assert adjusted.palette.entries["humor"] == "max"
    assert adjusted.solution.status is Status.OPTIMAL
    # A bound above it is the end.
    capped = vp.solve(pilot, {"humor": ["max", f"<= {solution.base['humor'] + 0.01}"]})
    assert capped.gains["humor"] == pytest.approx(0.01, abs=1e-5)


def test_max_needs_a_budget_where_there_is_no_k() -> None:
    pilot = made(plain(10))
    with pytest.raises(ValueError, match='"max" needs a budget in joint mode'):
        vp.solve(pilot, {"humor": "max"}, mode="joint")
    solution = vp.solve(pilot, vp.Palette({"humor": "max"}, kl=0.5), mode="joint")
    assert solution.kl == pytest.approx(0.5, abs=1e-7)


def test_reach_passes_over_max() -> None:
    pilot = made(plain(11))
    assert vp.reach(pilot, {"humor": "max", "tone": "keep"}, "care") == vp.reach(
        pilot, {"tone": "keep"}, "care"
    )


# ---- reach, coarse


def test_a_slider_trades_accuracy_for_speed() -> None:
    p = plain(12)
    pilot, others = made(p), {"tone": "reach 30%", "care": "keep"}
    fine, coarse = vp.reach(pilot, others, "humor", gap=1e-6), vp.reach(pilot, others, "humor", gap=1e-2)
    unit = spread(p)[0]
    assert fine.high - 1e-2 * unit <= coarse.high <= fine.high + 1e-6 * unit
    assert fine.low - 1e-6 * unit <= coarse.low <= fine.low + 1e-2 * unit
