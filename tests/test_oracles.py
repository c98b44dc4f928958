"""The references are checked against each other and against answers worked by hand, before they judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from oracles import (
    asked,
    cone,
    farthest,
    interior,
    largest_of_subset,
    margin,
    polish,
    problem,
    sign_valid,
    spread,
    subsets,
    support,
    tilt,
    verdict,
    violation,
)
from problems import asked as random_palette
from problems import at_margin, lattice, many, planted

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]


def test_two_candidates_by_hand() -> None:
    """Rewards 0 and 1: the level is the logistic function of the weight, the variance p (1 - p)."""
    p = problem([0.0, 1.0], [2], [0.8])
    weight = np.log(4.0)
    at = tilt(p, [weight])
    assert float(at.levels[0]) == pytest.approx(0.8, abs=1e-15)
    assert float(at.covariance[0, 0]) == pytest.approx(0.16, abs=1e-15)
    assert float(at.log_partition) == pytest.approx(np.log((1 + 4) / 2), abs=1e-15)
    assert float(at.kl) == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4), abs=1e-15)
    assert violation(p, [weight]) < 1e-15
    assert violation(p, [weight * 1.001]) > 1e-5
    assert violation(p, [-weight]) == np.inf


def test_the_three_outcomes_of_the_paper_by_hand() -> None:
    """Outcomes (0,0), (1,0), (1,1) and bounds (.8, .6): weights (0, log 3), KL .1483."""
    p = problem(SQUARE, [3], [0.8, 0.6])
    assert violation(p, [0.0, np.log(3.0)]) < 1e-15
    assert float(tilt(p, [0.0, np.log(3.0)]).kl) == pytest.approx(0.1483, abs=5e-5)
    # One deviation is sqrt(2)/3; the second value can rise from .6 to 1, the first from .8 to 1.
    assert margin(p) == pytest.approx(0.2 / (np.sqrt(2) / 3), abs=1e-9)
    assert farthest(replace(p, lower=np.zeros(2)), [1.0, 1.0]) == pytest.approx(1.0, abs=1e-9)


def test_joint_mode_gives_a_row_the_share_of_its_prompt() -> None:
    p = problem([0.0, 1.0, 5.0], [2, 1], [0.0], weights=[0.8, 0.2], joint=True)
    assert np.allclose(p.mass.astype(float), [0.4, 0.4, 0.2])
    assert float(tilt(p, [0.0]).levels[0]) == pytest.approx(1.4)
    assert support(p, [1.0]) == 5.0
    assert support(replace(p, joint=False), [1.0]) == pytest.approx(0.8 * 1 + 0.2 * 5)


def test_margin_by_hand() -> None:
    two = [0.0, 1.0, 0.0, 1.0]  # deviation 1/2
    assert margin(problem(two, [2, 2], [0.9])) == pytest.approx(0.2)
    assert margin(problem(two, [2, 2], [1.1])) == pytest.approx(-0.2)
    assert margin(problem(two, [2, 2], [0.4], [0.6])) == pytest.approx(0.2)
    assert margin(problem(two, [2, 2], [0.7], [0.7])) == np.inf
    assert margin(problem(two, [2, 2], [1.5], [1.5])) == -np.inf
    assert verdict(problem(two, [2, 2], [0.9])) == "optimal"
    assert verdict(problem(two, [2, 2], [1.0])) == "boundary"
    assert verdict(problem(two, [2, 2], [1.0], [1.0])) == "boundary"
    assert verdict(problem(two, [2, 2], [1.1])) == "infeasible"


def test_implied_equalities_have_no_margin_but_an_optimum() -> None:
    values = np.array([0.0, 1.0, 3.0])
    p = problem(np.column_stack([values, -values]), [3], [0.2, -0.2])
    assert margin(p) == pytest.approx(0.0, abs=1e-9)
    assert interior(p) > 0.1
    assert verdict(p) == "optimal"


def test_constant_features_are_vacuous_or_impossible() -> None:
    values = [[0.0, 7.0], [1.0, 7.0]]
    assert margin(problem(values, [2], [0.6, 7.0])) == pytest.approx(0.8)
    assert margin(problem(values, [2], [0.6, 7.1])) == -np.inf


def test_largest_of_subset_by_hand() -> None:
    assert largest_of_subset(1, 4) == pytest.approx([0.25] * 4)
    assert largest_of_subset(2, 3) == pytest.approx([0, 1 / 3, 2 / 3])
    assert largest_of_subset(3, 3) == pytest.approx([0, 0, 1])


def test_subsets_of_everything_are_the_problem_itself() -> None:
    for rng in many(1, 10):
        p = random_palette(rng, prompts=3, candidates=4, joint=False)
        whole = subsets(p, 4)
        weights = rng.normal(size=p.features) / spread(p)
        assert np.allclose(tilt(p, weights).levels.astype(float), tilt(whole, weights).levels.astype(float))
        assert margin(p) == pytest.approx(margin(whole), abs=1e-8)


def test_planted_weights_are_optimal_and_perturbed_ones_are_not() -> None:
    for rng in many(2, 60):
        case = planted(rng)
        assert violation(case.problem, case.weights) < 1e-12
        moved = case.weights + 1e-4 / spread(case.problem) * (case.weights != 0)
        if case.weights.any():
            assert violation(case.problem, moved) > 1e-9
            exact = polish(case.problem, case.weights * (1 + 1e-5)).astype(float)
            assert np.abs(exact - case.weights) * spread(case.problem) == pytest.approx(0, abs=1e-6)


def test_margins_are_where_they_were_put() -> None:
    moved = 0
    for rng in many(3, 60):
        p = random_palette(rng)
        for target in (-0.1, 0.0, 1e-3):
            try:
                there = at_margin(p, target)
            except ValueError:
                continue
            moved += 1
            assert margin(there) == pytest.approx(target, abs=1e-8), p.note
            if target:
                assert verdict(there) in (("infeasible",) if target < 0 else ("optimal", "boundary"))
    assert moved > 60


def test_lattice_palettes_lie_exactly_on_the_boundary() -> None:
    for rng in many(4, 40):
        p = lattice(rng, joint=bool(rng.integers(2)))
        assert abs(margin(p)) < 1e-9
        assert verdict(p) == "boundary"


@pytest.mark.extra("cvxpy")
def test_the_cone_solver_finds_planted_answers() -> None:
    solved = 0
    for rng in many(5, 60):
        case = planted(rng)
        found = cone(case.problem)
        if not found.solved:
            continue
        solved += 1
        truth = tilt(case.problem, case.weights)
        assert found.kl == pytest.approx(float(truth.kl), abs=1e-7)
        error = (found.levels - truth.levels.astype(float)) / spread(case.problem)
        assert np.abs(error[case.weights != 0]).max(initial=0.0) < 1e-6
    assert solved >= 40


@pytest.mark.extra("cvxpy")
def test_the_cone_solver_agrees_with_the_linear_programme() -> None:
    told = {"optimal": 0, "infeasible": 0}
    for rng in many(6, 60):
        p = random_palette(rng)
        expected, found = verdict(p), cone(p)
        if expected == "optimal" and margin(p) > 1e-3:
            assert not found.infeasible
        if expected == "infeasible" and margin(p) < -1e-3:
            assert not found.solved
        told[expected] = told.get(expected, 0) + 1
    assert min(told["optimal"], told["infeasible"]) > 8


def test_a_certificate_is_checked_in_raw_units() -> None:
    p = problem(SQUARE, [3], [0.5, 0.9], [np.inf, 0.95])
    assert sign_valid(p, [1.0, -1.0])
    assert not sign_valid(p, [-1.0, 0.0])
    assert asked(p, [2.0, -1.0]) == pytest.approx(2 * 0.5 - 0.95)
    assert support(p, [2.0, -1.0]) == 2.0
