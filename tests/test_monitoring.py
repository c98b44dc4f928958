"""Served traffic, simulated: what is met or missed, what moved, after how many requests, and how often falsely."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from served import METADATA, VALUES, K, as_pilot, draw, rows, traffic
from valuepalette.dual import Status
from valuepalette.evaluation import evaluate
from valuepalette.judging import Verdict
from valuepalette.monitoring import Move, Watch, monitor
from valuepalette.monitoring.attaining import Attaining
from valuepalette.monitoring.betting import bets
from valuepalette.monitoring.drifting import Drifting
from valuepalette.monitoring.renewing import as_pilot as merged
from valuepalette.monitoring.renewing import levels_asked
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve

PALETTE = {"humor": "+0.4", "tone": "base-0.05", "safety": ">= 0.6"}
SETTINGS = {"confidence": 0.95, "tolerance": 0.1, "window": 1000}


@pytest.fixture(scope="module")
def pilot() -> Pilot:
    return as_pilot(draw(np.random.default_rng(0), 1000))


@pytest.fixture(scope="module")
def solution(pilot: Pilot) -> Solution:
    return solve(pilot, PALETTE)


def test_what_is_served_as_solved_is_met(pilot: Pilot, solution: Solution) -> None:
    rng = np.random.default_rng(1)
    found = monitor(traffic(rows(rng, draw(rng, 3000), solution), solution), pilot)
    served = found["playful"]
    assert (found.requests, found.groups, served.requests, served.candidates) == (3000, 3000, 3000, K)
    assert {served[name].verdict for name in ("humor", "tone")} == {Verdict.MET}
    assert served["humor"].judged_by == "gain"
    assert served["safety"].judged_by == "level"
    assert found.well
    assert not found.moved
    for name in VALUES:
        target = served[name]
        # The levels are those of the solution; the drawn answers agree, and are known less well.
        room = target.level_half + 3 * solution.levels.se[solution.features.index(name)]
        assert target.level == pytest.approx(solution.levels[name], abs=room)
        assert target.drawn == pytest.approx(target.level, abs=target.drawn_half)
        if name != "safety":
            assert target.level_half < target.drawn_half
        # Today's weights are the served ones, to within their errors.
        error = np.hypot(target.today_se, solution.weights.se[solution.features.index(name)])
        assert abs(target.today - solution.weights[name]) <= 4 * error


def test_levels_are_those_of_an_evaluation(pilot: Pilot, solution: Solution) -> None:
    """The same answers, looked at once and looked at for ever: one estimate, and a wider interval."""
    rng = np.random.default_rng(2)
    served = traffic(rows(rng, draw(rng, 800), solution), solution)
    judged = evaluate(served.pilot, solution)
    for target in monitor(served, pilot, renewing=False)["playful"].targets:
        assert target.level == pytest.approx(judged[target.name].level)
        assert target.gain == pytest.approx(judged[target.name].gain)
        assert target.drawn == pytest.approx(judged[target.name].drawn)
        assert target.tolerance == pytest.approx(judged[target.name].tolerance)
        assert target.gain_half > 1.96 * np.std(judged[target.name].gain_se) / 2


def _looks(
    watched: Attaining | Drifting, batches: list[np.ndarray], solution: Solution, rng: np.random.Generator
) -> int | None:
    """Requests until a target is missed, or a mean has moved; None where neither ever is."""
    for number, values in enumerate(batches, 1):
        watched.add(rows(rng, values, solution))
        if isinstance(watched, Attaining):
            bad = any(target.verdict is Verdict.MISSED for target in watched.targets())
        else:
            bad = any(shift.verdict is Move.MOVED for shift in watched.shifts())
        if bad:
            return number * len(values) // K
    return None


@pytest.mark.parametrize(
    ("shift", "within"), [({"humor": 0.5}, 500), ({"tone": -0.6}, 500), ({"safety": -1.0}, 1000)]
)
def test_a_base_that_moved_is_found_soon(
    pilot: Pilot, solution: Solution, shift: dict[str, float], within: int
) -> None:
    """From the start: about half a standard deviation within prompts, in every one of twenty runs."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        batches = [draw(rng, 50, shift=shift) for _ in range(within // 50)]
        assert _looks(Drifting(pilot, VALUES, **SETTINGS), batches, solution, rng) is not None


def test_a_change_after_long_peace_is_found_within_two_windows(pilot: Pilot, solution: Solution) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        watched = Drifting(pilot, VALUES, **SETTINGS)
        assert _looks(watched, [draw(rng, 500) for _ in range(21)], solution, rng) is None
        after = _looks(watched, [draw(rng, 100, shift={"humor": 0.5}) for _ in range(20)], solution, rng)
        assert after is not None


def test_a_reward_that_broke_is_found_while_the_base_is_still(pilot: Pilot, solution: Solution) -> None:
    """Answers chosen at random: the base has not moved, and what was asked is missed."""
    rng = np.random.default_rng(0)
    watch = Watch(pilot, VALUES, **SETTINGS)
    served = rows(rng, draw(rng, 1000), solution)
    random = replace(served, chances=np.full(len(served.chances), 1 / K))
    watch.add_pilot(traffic(random, solution).pilot, traffic(random, solution).solutions)
    found = watch.report()
    assert found["playful"].missed == ("humor",)
    assert not found.moved
    assert not found.well


def test_a_spread_that_changed_is_found_where_the_mean_is_still(pilot: Pilot, solution: Solution) -> None:
    """As of a model that is sampled colder: every prompt's candidates are more alike about the same mean."""
    rng = np.random.default_rng(21)
    warm, still = draw(rng, 1000), draw(rng, 1000)
    means = np.repeat(warm.reshape(1000, K, 3).mean(axis=1), K, axis=0)
    cold = means + 0.7 * (warm - means)
    found = monitor(traffic(rows(rng, cold, solution), solution), pilot, renewing=False)
    assert not found.moved
    assert {(bet.name, bet.what) for bet in found.changed} == {(name, "spread") for name in VALUES}
    assert all(bet.at is not None and bet.at < 800 for bet in found.changed)
    assert "the spread of humor within a prompt is not the pilot's" in str(found)
    same = monitor(traffic(rows(rng, still, solution), solution), pilot, renewing=False)
    assert len(same.bets) == 6
    assert not same.changed


def _false_alarms(runs: int, looks: int, every: int) -> tuple[int, int]:
    """Runs with a false verdict on the targets, on the base, with a pilot of its own each, 300 prompts."""
    truth = as_pilot(draw(np.random.default_rng(99), 40_000))
    targets = base = 0
    for seed in range(runs):
        rng = np.random.default_rng([7, seed])
        small = as_pilot(draw(rng, 300))
        solution = solve(small, PALETTE)
        actual = Solution.from_weights(truth, dict(solution.weights), K)
        attaining, drifting = Attaining(solution, **SETTINGS), Drifting(small, VALUES, **SETTINGS)
        wrong = moved = False
        for _ in range(looks):
            served = rows(rng, draw(rng, every), solution)
            attaining.add(served)
            drifting.add(served)
            moved |= any(shift.verdict is Move.MOVED for shift in drifting.shifts())
            for target in attaining.targets():
                had = actual.gains if target.judged_by == "gain" else actual.levels
                line = target.lower - (target.base if target.judged_by == "gain" else 0) - target.tolerance
                slack = 4 * had.se[had.names.index(target.name)]
                wrong |= target.verdict is Verdict.MISSED and had[target.name] > line + slack
                wrong |= target.verdict is Verdict.MET and had[target.name] < line - slack
        targets, base = targets + wrong, base + moved
    return targets, base


def test_bets_are_won_falsely_as_rarely_as_stated() -> None:
    """Six bets on 500 requests that are like the pilot's 200 prompts: 5 % of runs at most."""
    won = 0
    for seed in range(60):
        rng = np.random.default_rng([11, seed])
        small, served = as_pilot(draw(rng, 200)), as_pilot(draw(rng, 500))
        won += any(bet.at is not None for bet in bets(small, served, np.arange(500), VALUES, 0.95))
    assert won <= _allowed(60)


def _allowed(runs: int) -> float:
    return 0.05 * runs + NormalDist().inv_cdf(0.9999) * np.sqrt(runs * 0.05 * 0.95)


def test_false_alarms_are_as_rare_as_stated() -> None:
    targets, base = _false_alarms(runs=25, looks=50, every=50)
    assert targets <= _allowed(25)
    assert base <= _allowed(25)


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated_for_long() -> None:
    """Eight windows, looked at every 25 requests."""
    targets, base = _false_alarms(runs=150, looks=320, every=25)
    assert targets <= _allowed(150)
    assert base <= _allowed(150)


def test_a_request_counts_once(pilot: Pilot, solution: Solution) -> None:
    """Four answers to a prompt are no four requests; as candidates of one prompt they are solved on."""
    rng = np.random.default_rng(5)
    served = traffic(rows(rng, draw(rng, 800), solution), solution, answers=4)
    found = monitor(served, pilot, renewing=False)
    assert (found.requests, found.groups) == (200, 800)
    one = traffic(rows(np.random.default_rng(5), draw(np.random.default_rng(5), 800), solution), solution)
    alone = monitor(one, pilot, renewing=False)
    assert found["playful"]["humor"].level == pytest.approx(alone["playful"]["humor"].level, abs=0.2)
    assert found["playful"]["humor"].requests == 200
    assert merged(served.pilot).sizes.tolist() == [4 * K] * 200


def test_levels_asked_are_those_of_the_pilot(pilot: Pilot, solution: Solution) -> None:
    """A base that went up does not take "keep" with it: what is asked stays what it came to."""
    rng = np.random.default_rng(6)
    moved = draw(rng, 2000, shift={"tone": 0.3})
    found = monitor(traffic(rows(rng, moved, solution), solution), pilot)
    today = found["playful"].today
    assert today is not None
    assert today.status is Status.OPTIMAL
    for name in PALETTE:
        at = today.features.index(name)
        assert today.lower[at] == pytest.approx(solution.lower[solution.features.index(name)])
    assert found["playful"]["tone"].today < solution.weights["tone"] - 0.1
    assert today.levels["tone"] >= solution.lower[solution.features.index("tone")] - 1e-6
    assert found.moved == ("tone",)
    # By the gain nothing changed: the weights do what they did.
    assert found["playful"]["tone"].verdict is Verdict.MET


@pytest.mark.parametrize(
    "palette",
    [
        {"humor": ["keep", "<= 3", "P(< -0.5) <= 0.05"], "safety": "q60 within"},
        {"tone": "== 0.1"},
        {"humor": "P(> q90) >= base-0.01", "safety": "max"},
    ],
)
def test_the_levels_of_any_palette_can_be_asked_again(pilot: Pilot, palette: dict[str, object]) -> None:
    own = solve(pilot, palette)
    again = solve(pilot, levels_asked(own))
    assert again.status is own.status
    for spec, name in zip(own.resolved.specs, own.features, strict=True):
        there = [(one.value, one.tail) for one in again.resolved.specs].index((spec.value, spec.tail))
        assert again.weights.array[there] == pytest.approx(own.weights[name], abs=1e-6)


def test_cohorts(pilot: Pilot) -> None:
    rng = np.random.default_rng(8)
    audience = np.where(np.arange(1000) % 2, "children", "adults")
    own = Pilot.from_arrays(
        dict(zip(VALUES, pilot.array.T, strict=True)),
        prompt_id=np.repeat(np.arange(1000), K),
        columns={"audience": np.repeat(audience, K)},
        metadata=METADATA,
    )
    from valuepalette.palette import Palette

    solution = solve(own, Palette({"tone": "keep"}, cohorts={"audience=children": {"humor": "+0.5"}}))
    assert levels_asked(solution).cohorts.keys() == {"audience=children"}
    attaining = Attaining(solution, **SETTINGS)
    values = draw(rng, 2000)
    columns = {"audience": np.resize(audience, 2000)}
    by_row = {"audience": np.repeat(columns["audience"], K)}
    features = solution.resolved.features_of(values, VALUES, by_row)
    chances = np.concatenate([solution.probabilities(part) for part in np.split(features, 2000)])
    served = rows(rng, values, Solution.from_weights(pilot, {}, K))
    attaining.add(replace(served, columns=columns, chances=chances))
    found = {target.name: target for target in attaining.targets()}
    children = found["humor @ audience=children"]
    assert (children.requests, found["humor"].requests) == (1000, 2000)
    assert children.verdict is Verdict.MET
    assert children.gain == pytest.approx(0.5, abs=0.1)
    # Requests that do not say which audience they are for count for no cohort.
    attaining.add(replace(served, chances=chances))
    assert attaining.targets()[0].requests + attaining.targets()[1].requests == 1000 + 4000


def test_unaligned_and_custom_requests_are_left_out(pilot: Pilot, solution: Solution) -> None:
    rng = np.random.default_rng(9)
    served = rows(rng, draw(rng, 300), solution)
    marked = monitor(traffic(served, solution, aligned=False), pilot)
    assert (marked.requests, marked.unaligned, marked.served) == (0, 300, ())
    assert {shift.verdict for shift in marked.drift} == {Move.UNDECIDED}
    assert "300 unaligned" in str(marked)
    own = monitor(traffic(served, solution, "custom"), pilot)
    assert (own.requests, own.others, own.served) == (300, 300, ())


def test_too_little_to_solve_on(pilot: Pilot, solution: Solution) -> None:
    rng = np.random.default_rng(10)
    found = monitor(traffic(rows(rng, draw(rng, 1), solution), solution), pilot)
    assert found["playful"].today is None
    assert "two prompts" in str(found)
    assert {target.verdict for target in found["playful"].targets} == {Verdict.UNDECIDED}


def test_levels_that_cannot_be_had_any_more(pilot: Pilot, solution: Solution) -> None:
    rng = np.random.default_rng(11)
    found = monitor(traffic(rows(rng, draw(rng, 500, shift={"humor": -4.0}), solution), solution), pilot)
    assert found["playful"].today is not None
    assert found["playful"].today.status is Status.INFEASIBLE
    assert "cannot average above" in str(found)
    assert "humor" in found.moved


def test_the_text_and_the_json(pilot: Pilot, solution: Solution) -> None:
    rng = np.random.default_rng(12)
    found = monitor(traffic(rows(rng, draw(rng, 1500), solution), solution), pilot)
    text = str(found)
    assert all(len(line) <= 100 for line in text.splitlines())
    for word in ("playful: 1,500 requests", "humor", "met", "lately", "today"):
        assert word in text
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["served"][0]["targets"][0]["verdict"] == "MET"
    assert told["drift"][0]["verdict"] in ("STEADY", "UNDECIDED")
    assert told["well"] is True


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"confidence": 1.0}, "confidence"), ({"tolerance": -0.1}, "tolerance"), ({"window": 10}, "window")],
)
def test_settings_that_make_no_sense(pilot: Pilot, wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Watch(pilot, VALUES, **wrong)  # type: ignore[arg-type]
