"""Judging by prompt: verdicts by hand, win rates against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from valuepalette.judging import Choices, Verdict, errors, judge, wins


def judged(level: float, lower: float = -math.inf, upper: float = math.inf, **changes: float):
    """With se = 0.1 and two standard errors to either side: v = 1, M = 200, N = 200."""
    settings = {"tolerance": 0.05, "deviations": 2.0, "prompts": 200.0, "pilot_prompts": 200.0, **changes}
    return judge(level, settings.pop("variance", 1.0), lower, upper, **settings)


@pytest.mark.parametrize(
    ("level", "verdict"),
    [(1.2, "MET"), (1.151, "MET"), (1.149, "UNDECIDED"), (0.801, "UNDECIDED"), (0.799, "MISSED")],
)
def test_a_verdict_by_hand(level: float, verdict: str) -> None:
    """Met from 1 − .05 + .2 = 1.15 upwards, missed below 1 − .2 = .8."""
    assert judged(level, lower=1.0)[0] is Verdict[verdict]
    assert judged(-level, upper=-1.0)[0] is Verdict[verdict], "and mirrored"


def test_nothing_asked_nothing_judged() -> None:
    assert judged(3.0)[0] is None


def test_of_two_bounds_the_worse_counts() -> None:
    assert judged(1.0, 1.0, 1.0, variance=0.01)[0] is Verdict.MET
    assert judged(1.0, 0.0, 1.0)[0] is Verdict.UNDECIDED
    assert judged(2.0, 0.0, 1.0)[0] is Verdict.MISSED
    assert judged(1.0, 1.0, 1.0, tolerance=0.0)[0] is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("level", "pilot_prompts"), [(1.0, 1e5), (1.1, 1e5), (0.9, 1e5), (0.999, 1e4), (1.06, 400)]
)
def test_the_number_that_would_decide_does(level: float, pilot_prompts: float) -> None:
    verdict, needed = judged(level, lower=1.0, pilot_prompts=pilot_prompts, prompts=50)
    assert verdict is Verdict.UNDECIDED
    enough = judged(level, lower=1.0, pilot_prompts=pilot_prompts, prompts=needed)
    short = judged(level, lower=1.0, pilot_prompts=pilot_prompts, prompts=needed - 1)
    assert (enough[0] is Verdict.UNDECIDED, short[0]) == (False, Verdict.UNDECIDED)


def test_only_a_larger_pilot_would_decide() -> None:
    assert judged(1.0, lower=1.0) == (Verdict.UNDECIDED, math.inf)


def test_one_prompt_decides_nothing() -> None:
    verdict, needed = judged(5.0, lower=1.0, variance=math.nan)
    assert verdict is Verdict.UNDECIDED
    assert math.isnan(needed)


def test_rounding_misses_nothing() -> None:
    """A level that cannot vary, asked to be kept."""
    assert judged(0.1 + 0.2, 0.3, 0.3, variance=0.0, tolerance=0.0)[0] is Verdict.MET
    assert judged(0.3 - 1e-12, lower=0.3, variance=0.0, tolerance=0.0)[0] is Verdict.MISSED


def test_errors_are_by_prompt_and_by_weight() -> None:
    x = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    np.testing.assert_allclose(errors(x, np.full(3, 1 / 3)), [np.std([1, 2, 6], ddof=1) / 3**0.5, 0.0])
    weights = np.array([0.5, 0.25, 0.25])
    by_hand = (weights**2 @ (x[:, 0] - weights @ x[:, 0]) ** 2 / (1 - weights @ weights)) ** 0.5
    assert errors(x, weights)[0] == pytest.approx(by_hand)
    assert np.isnan(errors(x[:1], np.ones(1))).all()


# ---- choices


def test_levels_entropy_and_ranks_by_hand() -> None:
    rows = np.array([[0.0], [2.0], [4.0]])
    choices = Choices([rows, rows[:1]], [np.array([0.5, 0.5, 0.0]), np.ones(1)])
    np.testing.assert_allclose(choices.levels, [[1.0], [0.0]])
    np.testing.assert_allclose(choices.means, [[2.0], [0.0]])
    np.testing.assert_allclose(choices.entropy, [np.log(2), 0])
    np.testing.assert_allclose(choices.even().levels, choices.means)
    np.testing.assert_allclose(choices.below(np.array([2.0])), [[0.75], [1.0]])


def test_win_rates_by_hand() -> None:
    ours = Choices([np.array([[1.0], [3.0]])], [np.array([0.25, 0.75])])
    theirs = Choices([np.array([[1.0], [2.0], [3.0], [4.0]])], [np.full(4, 0.25)])
    assert wins(ours, theirs, 0.5)[0, 0] == pytest.approx(0.25 * 0.125 + 0.75 * 0.625)
    assert wins(ours, theirs, 0.0)[0, 0] == pytest.approx(0.75 * 0.5)
    # Hold out 1, choose 3: win. Hold out 3, choose 1: loss.
    assert wins(ours, None, 0.5)[0, 0] == pytest.approx(0.5)


def test_the_base_against_itself_is_even() -> None:
    rng = np.random.default_rng(0)
    rows = [np.round(rng.normal(size=(k, 2)), 1) for k in (2, 3, 8)]
    base = Choices(rows, rows).even()
    np.testing.assert_allclose(wins(base, None, 0.5), 0.5)
    np.testing.assert_allclose(wins(base, base, 0.5), 0.5)
    assert np.isnan(wins(Choices([rows[0][:1]], [np.ones(1)]), None, 0.5)).all()


def test_holding_out_is_the_decoder_with_one_candidate_less() -> None:
    """Exactly: a finite population of 6 answers, every ordered choice of k − 1 candidates and one base answer."""
    rng = np.random.default_rng(1)
    values, scores, k = rng.normal(size=(6, 1)), rng.normal(size=6), 4

    def law(chosen: tuple[int, ...]) -> np.ndarray:
        weights = np.exp(2 * scores[list(chosen)])
        return weights / weights.sum()

    estimated = [
        wins(Choices([values[list(c)]], [law(c)]), None, 0.5)[0, 0]
        for c in itertools.combinations(range(6), k)
    ]
    true = [
        law(chosen) @ (values[list(chosen), 0] > values[base, 0])
        for base in range(6)
        for chosen in itertools.combinations([i for i in range(6) if i != base], k - 1)
    ]
    assert np.mean(estimated) == pytest.approx(np.mean(true))


def test_a_certain_choice_leaves_the_others_alike() -> None:
    rows = np.array([[0.0], [1.0], [2.0]])
    best = Choices([rows], [np.array([0.0, 0.0, 1.0])])
    # 0 or 1 held out: 2 wins. 2 held out: 0 or 1 loses.
    assert wins(best, None, 0.5)[0, 0] == pytest.approx(2 / 3)
    nearly = np.array([1e-18, 1e-17, 1.0])
    assert wins(Choices([rows], [nearly]), None, 0.5)[0, 0] == pytest.approx(2 / 3)
