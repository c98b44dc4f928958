"""Evaluation: figures by hand, intervals that cover, verdicts, what is refused, and the table."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuepalette.decoding import choose
from valuepalette.evaluation import Evaluation, Verdict, evaluate
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.solving import solve


def simulated(rng: np.random.Generator, prompts: int, k: int, texts: bool = False) -> Pilot:
    """Two correlated values with an effect of the prompt, and one that is independent."""
    noise = rng.normal(size=(prompts, k, 3)) @ np.array([[1.0, -0.4, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 1.0]])
    values = (rng.normal(size=(prompts, 1, 3)) + noise).reshape(-1, 3)
    named = [f"{rng.integers(2**60)}" for _ in range(prompts) for _ in range(1)]
    return Pilot.from_arrays(
        dict(zip("abc", values.T, strict=True)),
        prompt_id=None if texts else np.repeat(np.arange(prompts), k),
        prompts=[text for text in named for _ in range(k)] if texts else None,
    )


@pytest.fixture
def four() -> Pilot:
    """Two prompts with two candidates, chosen with 1:3 and 1:1, the better drawn."""
    return Pilot.from_arrays(
        {"a": [0.0, 4.0, 2.0, 2.0], "b": [1.0, 1.0, 0.0, 5.0]},
        prompts=["x", "x", "y", "y"],
        columns={"probability": [0.25, 0.75, 0.5, 0.5], "drawn": [False, True, False, True]},
    )


@pytest.fixture
def solution() -> Solution:
    """Asks for a level of `a`, on a pilot of a hundred prompts."""
    return solve(simulated(np.random.default_rng(0), 100, 2), {"a": "+0.2"})


# ---- the figures


def test_every_figure_by_hand(four: Pilot, solution: Solution) -> None:
    judged = evaluate(four, solution)
    assert list(judged) == ["a", "b"], "what was not measured and not asked is left out"
    a, b = judged["a"], judged["b"]
    carried = 1 / 2 + 1 / 100
    # By prompt: expected 3 and 2, drawn 4 and 2, base 2 and 2.
    assert (a.level, a.drawn, a.base, a.gain) == (2.5, 3.0, 2.0, 0.5)
    assert a.se == pytest.approx((0.5 * carried) ** 0.5)
    assert a.drawn_se == pytest.approx((2.0 / 2 + 0.5 / 100) ** 0.5)
    assert a.gain_se == pytest.approx((0.5 * carried) ** 0.5)
    # Expected 1 and 2.5; base 1 and 2.5: nothing gained, for certain.
    assert (b.level, b.gain, b.gain_se) == (1.75, 0.0, 0.0)
    assert (a.asked, b.asked, b.verdict) == ("+0.2", "free", None)
    assert a.to_gain == pytest.approx(0.2)
    assert math.isnan(b.to_gain)
    assert a.promised == pytest.approx(a.lower)
    assert a.lower == solution.base["a"] + 0.2
    assert a.tolerance == pytest.approx(0.1 * solution.spread[0])
    assert a.quantile == pytest.approx(np.interp(2.5, solution.resolved.quantiles[0], np.arange(101) / 100))
    kl = [np.log(2) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75), 0.0]
    assert judged.kl == pytest.approx(np.mean(kl))
    assert judged.kl_se == pytest.approx(np.std(kl, ddof=1) / 2**0.5)
    assert judged.effective == pytest.approx(2 * np.exp(-judged.kl))
    assert (judged.prompts, judged.candidates, judged.pilot_prompts) == (2, 2, 100)
    # One candidate is left where one is held out, so every win rate among two is one half.
    assert a.win_rate == 0.5


def test_rows_may_stand_in_any_order(four: Pilot, solution: Solution) -> None:
    mixed = evaluate(four.select([3, 0, 2, 1]), solution)
    plain = evaluate(four, solution)
    assert mixed["a"].level == plain["a"].level
    assert mixed["a"].se == pytest.approx(plain["a"].se)


def test_prompts_weigh_as_the_solution_has_it(four: Pilot) -> None:
    rng = np.random.default_rng(0)
    pilot = simulated(rng, 100, 2)
    weighted = Pilot.read(pilot.table.append_column("w", [np.repeat(rng.random(100) + 1, 2)]), columns=["w"])
    weighted = replace(weighted, values=("a", "b", "c"))
    solution = solve(weighted, {"a": "+0.1"}, weighting="w")
    with pytest.raises(ValueError, match="weighting must be one of"):
        evaluate(four, solution)
    table = four.table.append_column("w", [[3.0, 3.0, 1.0, 1.0]])
    judged = evaluate(Pilot.read(table, values=["a", "b"], columns=["w"]), solution)
    assert judged["a"].level == pytest.approx(0.75 * 3 + 0.25 * 2)
    effective = 1 / (0.75**2 + 0.25**2)
    variance = (0.75**2 * 0.25**2 + 0.25**2 * 0.75**2) / (1 - 1 / effective)
    assert judged["a"].se == pytest.approx((variance * (1 + effective / 100)) ** 0.5)


def test_against_answers_of_the_base(four: Pilot, solution: Solution) -> None:
    base = Pilot.from_arrays({"a": [2.0, 1.0, 5.0], "c": [0.0, 0.0, 0.0]}, prompts=["y", "x", "other"])
    judged = evaluate(four, solution, base)
    a = judged["a"]
    # x: expected 3 against 1; y: 2 against 2.
    assert (a.base, a.gain) == (1.5, 1.0)
    assert a.win_rate == pytest.approx((0.75 + 0.5) / 2)
    assert evaluate(four, solution, base, ties="lose")["a"].win_rate == pytest.approx(0.75 / 2)
    assert math.isnan(judged["b"].gain), "the base was not scored by it"
    with pytest.raises(
        ValueError, match='base must answer the same prompts; 1 of 2 are not in it, such as "y"'
    ):
        evaluate(four, solution, base.select([1, 2]))


def test_answers_of_a_tuned_model_have_no_choice_in_them(solution: Solution) -> None:
    tuned = Pilot.from_arrays({"a": [1.0, 3.0]}, prompts=["x", "y"])
    judged = evaluate(tuned, solution)
    assert judged["a"].level == 2.0
    assert all(math.isnan(x) for x in (judged["a"].gain, judged["a"].win_rate, judged.kl, judged["a"].drawn))
    assert "KL" not in str(judged)
    base = Pilot.from_arrays({"a": [0.0, 3.0]}, prompts=["x", "y"])
    against = evaluate(tuned, solution, base)["a"]
    assert (against.gain, against.win_rate) == (0.5, 0.75)


def test_drawn_answers_stand_for_themselves(four: Pilot, solution: Solution) -> None:
    served = Pilot.read(four.table.drop_columns(["probability"]))
    judged = evaluate(served, solution)
    assert judged["a"].level == judged["a"].drawn == 3.0
    assert judged["a"].gain == 1.0
    assert math.isnan(judged.kl)


# ---- statistics


def test_intervals_carry_the_pilots_share() -> None:
    """Binding targets, solved and judged anew 120 times: the z-scores have unit variance, not twice that."""
    z, paired = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        solution = solve(simulated(rng, 100, 4), {"a": "+0.3", "b": 0.2})
        judged = evaluate(choose(simulated(rng, 60, 4), solution), solution)
        paired.append((judged["a"].gain - 0.3) / judged["a"].gain_se)
        z.append((judged["b"].level - 0.2) / judged["b"].se)
    for scores in (np.array(paired), np.array(z)):
        assert abs(scores.mean()) < 0.35
        assert 0.8 < scores.std() < 1.2


def test_expected_levels_are_surer_than_drawn_ones(solution: Solution) -> None:
    judged = evaluate(choose(simulated(np.random.default_rng(5), 400, 2), solution), solution)
    a = judged["a"]
    assert a.gain_se < a.se < a.drawn_se
    assert abs(a.drawn - a.level) < 4 * a.drawn_se
    assert a.win_rate_se == pytest.approx(0, abs=1e-12), "among two candidates nothing is left to choose"


# ---- verdicts


def test_a_palette_that_can_be_had_is_met_and_one_that_was_not_asked_is_missed() -> None:
    rng = np.random.default_rng(1)
    pilot, fresh = simulated(rng, 2000, 4), simulated(rng, 2000, 4)
    solution = solve(pilot, {"a": "+0.3", "b": "keep"})
    judged = evaluate(choose(fresh, solution), solution)
    assert judged.met
    assert (judged["a"].verdict, judged["b"].verdict, judged["c"].verdict) == (
        Verdict.MET,
        Verdict.MET,
        None,
    )
    nothing = Solution.from_weights(pilot, {"a": 0.0})
    judged = evaluate(choose(fresh, nothing), solution)
    assert judged["a"].verdict is Verdict.MISSED
    assert not judged.met
    assert judged["a"].gain == pytest.approx(0, abs=1e-12)


def test_too_few_prompts_are_told_how_many_it_takes() -> None:
    rng = np.random.default_rng(2)
    pilot, few = simulated(rng, 20_000, 4), simulated(rng, 30, 4)
    solution = solve(pilot, {"a": 0.3})
    a = evaluate(choose(few, solution), solution)["a"]
    assert a.verdict is Verdict.UNDECIDED
    assert 30 < a.needed < math.inf
    text = str(evaluate(choose(few, solution), solution))
    assert f"a: about {a.needed:,.0f} prompts would decide" in text


def test_confidence_and_tolerance_decide() -> None:
    rng = np.random.default_rng(3)
    pilot, fresh = simulated(rng, 500, 4), simulated(rng, 500, 4)
    solution = solve(pilot, {"a": "+0.2"})
    chosen = choose(fresh, solution)
    assert evaluate(chosen, solution, tolerance=3.0)["a"].verdict is Verdict.MET
    assert evaluate(chosen, solution, tolerance=0.0, confidence=0.999)["a"].verdict is Verdict.UNDECIDED


def test_what_is_relative_to_the_base_is_judged_by_the_gain() -> None:
    """The prompts of an evaluation may be harder than the pilot's: "keep" does not mind, a number does."""
    rng = np.random.default_rng(4)
    pilot, fresh = simulated(rng, 400, 4), simulated(rng, 400, 4)
    harder = Pilot.from_arrays(
        {name: fresh.array[:, i] - 5 for i, name in enumerate(fresh.values)}, prompt_id=fresh.prompt_index
    )
    solution = solve(pilot, {"a": 0.3, "b": "q55 within"})
    judged = evaluate(choose(harder, solution), solution)
    assert (judged["a"].judged_by, judged["a"].verdict) == ("level", Verdict.MISSED)
    assert (judged["b"].judged_by, judged["b"].verdict) == ("gain", Verdict.MET)
    assert "judged by the gain; a number by the level" in str(judged)
    # Without answers of the base to the same prompts there is no gain to judge by.
    served = Pilot.from_arrays(
        {name: harder.array[::4, i] for i, name in enumerate("abc")}, prompt_id=range(400)
    )
    assert evaluate(served, solution)["b"].judged_by == "level"


# ---- second opinions, own prompts, refusals


def test_checks_stand_apart(solution: Solution) -> None:
    rng = np.random.default_rng(4)
    fresh = simulated(rng, 50, 2)
    fresh = fresh.with_values({"second": fresh.array[:, 0] + rng.normal(size=100)})
    judged = evaluate(choose(fresh, solution), solution, checks=["b"])
    assert [(row.name, row.check) for row in judged.rows] == [
        ("a", False),
        ("c", False),
        ("b", True),
        ("second", True),
    ]
    second = judged["second"]
    assert math.isnan(second.promised)
    assert second.gain > 0
    assert 0.5 < second.quantile < 0.7
    assert "check: a second opinion, measured and never optimised" in str(judged)
    with pytest.raises(ValueError, match="checks must name values among a, b, c, got 'd'"):
        evaluate(choose(simulated(rng, 50, 2), solution), solution, checks=["d"])


def test_judging_on_the_pilots_own_prompts_warns(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pilot, fresh = simulated(rng, 20, 2, texts=True), simulated(rng, 10, 2, texts=True)
    solution = solve(pilot, {"a": "+0.1"})
    solution.save(tmp_path / "solution.json")
    evaluate(choose(fresh, solution), solution)
    for known in (solution, Solution.load(tmp_path / "solution.json")):
        with pytest.warns(UserWarning, match="20 of 20 prompts are the pilot's own"):
            judged = evaluate(choose(pilot, known), known)
    assert judged.own_prompts == 20
    assert "20 prompts, 20 of them the pilot's own" in str(judged)
    with pytest.warns(UserWarning, match="5 of 5 prompts"):
        evaluate(choose(pilot.select(np.arange(10)), solution), solution)


def test_numbers_of_prompts_are_not_their_names() -> None:
    """Two pilots without texts both count from zero; that makes them no relatives."""
    rng = np.random.default_rng(6)
    solution = solve(simulated(rng, 20, 2), {"a": "+0.1"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate(choose(simulated(rng, 20, 2), solution), solution).own_prompts == 0


def test_values_measured_otherwise_are_refused(four: Pilot) -> None:
    def by(version: str, pilot: Pilot) -> Pilot:
        about = {"a": {"definition": "of a", "version": version, "scale": "real"}}
        return replace(pilot, metadata=PilotMetadata(rewards=about))

    solution = solve(by("1", simulated(np.random.default_rng(0), 100, 2)), {"a": "+0.2"})
    evaluate(by("1", four), solution)
    evaluate(four, solution)
    with pytest.raises(ValueError, match=r'otherwise than the solution\'s \(a.version: "1" -> "2"\)'):
        evaluate(by("2", four), solution)
    assert evaluate(by("2", four), solution, allow_mismatch=True).prompts == 2


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"probability": [0.25, 0.7, 0.5, 0.5]}, "sum to one .* prompt_id 0"),
        ({"probability": [0.5, 0.5, 1.5, -0.5]}, "at least 0 .* prompt_id 1"),
        ({"probability": [0.5, 0.5, None, 1.0]}, "sum to one .* prompt_id 1"),
        ({"drawn": [True, False, False, False]}, "one answer for each prompt, got 0 for prompt_id 1"),
        ({"drawn": [True, False, True, True]}, "one answer for each prompt, got 2 for prompt_id 1"),
    ],
)
def test_answers_that_make_no_sense_are_refused(
    columns: dict[str, list[object]], says: str, solution: Solution
) -> None:
    answers = Pilot.from_arrays({"a": np.arange(4.0)}, prompt_id=[0, 0, 1, 1], columns=columns)
    with pytest.raises(ValueError, match=says):
        evaluate(answers, solution)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"confidence": 1.0}, "confidence must lie between 0 and 1, got 1.0"),
        ({"tolerance": -1.0}, "tolerance must be at least 0 and finite, got -1.0"),
        ({"ties": "win"}, 'ties must be "half" or "lose", got \'win\''),
    ],
)
def test_options_are_checked(options: dict[str, object], says: str, four: Pilot, solution: Solution) -> None:
    with pytest.raises(ValueError, match=says):
        evaluate(four, solution, **options)  # type: ignore[arg-type]


def test_answers_must_be_scored_by_what_was_asked(solution: Solution) -> None:
    with pytest.raises(ValueError, match="must be scored by what the solution asks of; a is not among b"):
        evaluate(Pilot.from_arrays({"b": [0.0, 1.0]}, prompt_id=[0, 1]), solution)


# ---- on paper


def test_the_table() -> None:
    rng = np.random.default_rng(7)
    pilot, fresh = simulated(rng, 400, 4), simulated(rng, 400, 4)
    solution = solve(pilot, {"b": "keep", "a": "<= base-0.2"})
    text = str(evaluate(choose(fresh, solution), solution, checks=["c"]))
    head, _, columns, b, a, c, _, kl, met, *_ = text.splitlines()
    assert (
        head == "400 unseen prompts, one of k = 4 candidates; solved on 400; ± one standard error, by prompt"
    )
    assert columns.split() == ["asked", "target", "level", "base", "to", "gain", "gain", "rank", "wins"]
    assert b.split()[:3] == ["b", "keep", "≥"]
    assert a.split()[:4] == ["a", "<=", "base-0.2", "≤"]
    assert b.endswith("  met")
    assert " -0.200 " in a
    assert c.endswith("check")
    assert kl.startswith("KL from the base 0.")
    assert kl.endswith("of 4 candidates in play")
    assert met == "met: with 0.95 confidence at most 0.1 within-prompt sd short of the target"


@settings(max_examples=15, deadline=None)
@given(
    exponent=st.integers(-9, 9),
    names=st.lists(
        st.text("abc 名", min_size=1, max_size=60).filter(str.strip), min_size=2, max_size=2, unique=True
    ),
    offset=st.sampled_from([0.0, 1.0, 1e6]),
)
def test_it_fits_a_hundred_columns(exponent: int, names: list[str], offset: float) -> None:
    rng = np.random.default_rng(0)
    values = 10.0**exponent * (rng.normal(size=(60, 2)) + offset)
    pilot = Pilot.from_arrays(dict(zip(names, values.T, strict=True)), prompt_id=np.repeat(np.arange(20), 3))
    solution = solve(pilot, {names[0]: "<= q40 within", names[1]: "== keep"}, on_infeasible="return")
    if solution.certificate is None:
        text = str(evaluate(choose(pilot, solution), solution))
        assert max(len(line) for line in text.splitlines()) <= 100


def test_one_prompt_and_one_candidate_are_judged_as_far_as_it_goes(solution: Solution) -> None:
    one = Pilot.from_arrays({"a": [1.0]}, prompts=["x"], columns={"probability": [1.0], "drawn": [True]})
    judged = evaluate(one, solution)
    assert judged["a"].verdict is Verdict.UNDECIDED
    assert math.isnan(judged["a"].se)
    assert "undecided" in str(judged)
    assert judged.kl == 0.0


def test_it_survives_a_file(four: Pilot, solution: Solution, tmp_path: Path) -> None:
    one = Pilot.from_arrays({"a": [1.0], "z": [0.0]}, prompts=["x"])
    small = solve(simulated(np.random.default_rng(0), 3, 2), {"a": 1.0})
    lower = Pilot.from_arrays({"a": [0.0, 2.0]}, prompts=["x", "y"])
    undecided = evaluate(lower, small, tolerance=1e-6)
    assert undecided["a"].needed == math.inf
    for judged in (evaluate(four, solution), evaluate(one, solution), undecided):
        judged.save(tmp_path / "deep" / "evaluation.json")
        back = Evaluation.load(tmp_path / "deep" / "evaluation.json")
        assert str(back) == str(judged)
        assert repr(back) == repr(judged)
        assert json.dumps(back.to_dict(), allow_nan=False) == json.dumps(judged.to_dict(), allow_nan=False)
        np.testing.assert_equal([vars(row) for row in back.rows], [vars(row) for row in judged.rows])


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for content in ("{", "[]", '{"format": 1}', '{"format": 7}'):
        path.write_text(content)
        with pytest.raises(ValueError) as caught:
            Evaluation.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_not_there(four: Pilot, solution: Solution) -> None:
    judged = evaluate(four, solution)
    assert len(judged) == 2
    assert repr(judged).startswith("Evaluation(2 prompts: a ")
    with pytest.raises(KeyError, match="'humor' is none of a, b"):
        judged["humor"]


# ---- tails, cohorts, several entries

CHILDREN = "audience=children"


def asked(rng: np.random.Generator, prompts: int, k: int) -> Pilot:
    """A model of two values: `a` by normal draws, `b` with a long lower tail that grows with `a`; a third children."""
    children = rng.random(prompts) < 1 / 3
    a = rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, k)) - 0.7 * children[:, None]
    b = 0.5 * rng.normal(size=(prompts, k)) - rng.exponential(np.exp(0.3 * np.clip(a, -3, 3)))
    return Pilot.from_arrays(
        {"a": a.ravel(), "b": b.ravel()},
        prompt_id=np.repeat(np.arange(prompts), k),
        columns={"audience": np.repeat(np.where(children, "children", "adults"), k)},
    )


CAREFUL = Palette(
    {"a": ["keep", "+0.3"], "b": "P(< -3) <= x0.6"},
    cohorts={CHILDREN: {"a": "reach 30%", "b": "P(< -2) <= 0.06"}},
)


def test_a_tail_and_a_cohort_hold_on_fresh_draws() -> None:
    """What was solved on 300 prompts, decoded on 3,000 others: every level within a few of its errors."""
    rng = np.random.default_rng(40)
    solution = solve(asked(rng, 300, 8), CAREFUL, 4)
    fresh = asked(rng, 3000, 4)
    judged = evaluate(choose(fresh, solution), solution)
    assert list(judged)[:4] == [
        "a",
        "P(b < -3)",
        "a @ audience=children",
        "P(b < -2) @ audience=children",
    ]
    a, b = fresh.array.T
    child = np.asarray(fresh.table["audience"]) == "children"
    chance = np.asarray(choose(fresh, solution).table["probability"])
    by_hand = {
        "a": chance @ a / 3000,
        "P(b < -3)": chance @ (b < -3) / 3000,
        "a @ audience=children": (chance * a)[child].sum() / chance[child].sum(),
        "P(b < -2) @ audience=children": (chance * (b < -2))[child].sum() / chance[child].sum(),
    }
    for name, level in by_hand.items():
        row = judged[name]
        assert row.level == pytest.approx(level)
        assert row.promised == pytest.approx(solution.levels[name])
        assert abs(row.level - row.promised) < 3.5 * row.se, name
        assert abs(row.gain - row.to_gain) < 3.5 * row.gain_se, name
        assert row.verdict is not Verdict.MISSED
        # The base model is elsewhere, further than chance.
        assert abs(row.gain) > 4 * row.gain_se
    assert judged.met
    assert (judged["a"].judged_by, judged["P(b < -2) @ audience=children"].judged_by) == ("gain", "level")
    assert judged["P(b < -3)"].judged_by == "gain"
    assert math.isnan(judged["P(b < -3)"].quantile)
    # Errors of a cohort are those of its own prompts.
    rows = fresh.array.reshape(3000, 4, 2)[child.reshape(3000, 4)[:, 0]][..., 0]
    own = (chance.reshape(3000, 4)[child.reshape(3000, 4)[:, 0]] * rows).sum(axis=1)
    count = 300 * solution.resolved.specs[3].share
    wanted = own.var(ddof=1) * (1 / len(own) + 1 / count)
    assert judged["a @ audience=children"].se == pytest.approx(wanted**0.5)
    # Without the palette the same answers miss it: the test can fail.
    plain = Solution.from_weights(asked(np.random.default_rng(40), 300, 8), {"a": 0.0}, 4)
    other = evaluate(choose(fresh, plain), solution, tolerance=0.02)
    assert [other[name].verdict for name in by_hand] == [Verdict.MISSED] * 4


def test_of_two_bounds_the_worse_is_judged_in_its_own_way() -> None:
    rng = np.random.default_rng(41)
    solution = solve(asked(rng, 200, 4), {"a": ["+0.2", "<= 0.5"]})
    fresh = asked(rng, 2000, 4)
    high = Solution.from_weights(asked(np.random.default_rng(41), 200, 4), {"a": 3.0})
    low = Solution.from_weights(asked(np.random.default_rng(41), 200, 4), {"a": 0.0})
    above, below = (evaluate(choose(fresh, by), solution)["a"] for by in (high, low))
    assert (above.verdict, above.judged_by) == (Verdict.MISSED, "level")
    assert above.to_gain == pytest.approx(0.5 - solution.base["a"])
    assert (below.verdict, below.judged_by) == (Verdict.MISSED, "gain")
    assert below.to_gain == pytest.approx(0.2)
    held = evaluate(choose(fresh, solution), solution)["a"]
    assert (held.verdict, held.asked) == (Verdict.MET, "+0.2, <= 0.5")


def test_answers_must_say_who_is_in_a_cohort() -> None:
    rng = np.random.default_rng(42)
    solution = solve(asked(rng, 60, 4), CAREFUL, on_infeasible="return")
    fresh = asked(rng, 30, 4)
    without = Pilot.from_arrays(
        {"a": fresh.array[:, 0], "b": fresh.array[:, 1]}, prompt_id=fresh.prompt_index
    )
    for call in (lambda: evaluate(without, solution), lambda: choose(without, solution)):
        with pytest.raises(ValueError) as caught:
            call()
        assert "'audience'" in str(caught.value)
        assert "audience=children" in str(caught.value)
        assert "\n" not in str(caught.value)
    adults = fresh.select(np.asarray(fresh.table["audience"]) == "adults")
    judged = evaluate(choose(adults, solution), solution)
    row = judged["a @ audience=children"]
    assert math.isnan(row.level)
    assert row.verdict is Verdict.UNDECIDED
    assert "a @ audience" in str(judged)
    # A cohort that is only reported may be left out.
    free = solve(asked(rng, 60, 4), Palette({"a": "+0.1"}, cohorts={CHILDREN: {"b": "free"}}))
    assert "b @ audience=children" not in evaluate(choose(without, free), free)
