"""The average over all choices of k candidates: against every one of them, in closed form, and against fresh draws."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gamma

import valuepalette as vp
from problems import groups, many, pilot
from valuepalette import planning
from valuepalette.grouping import Groups
from valuepalette.planning import expect, subset_choice
from valuepalette.tilting import prompt_support

Float = NDArray[np.float64]


def one_by_one(scores: Float, k: int) -> tuple[Float, float]:
    """Of one prompt, by every set of k candidates."""
    chances, kl = np.zeros(len(scores)), 0.0
    sets = [list(chosen) for chosen in combinations(range(len(scores)), k)]
    for chosen in sets:
        odds = np.exp(scores[chosen] - scores[chosen].max())
        odds /= odds.sum()
        chances[chosen] += odds
        kl += float(odds @ np.log(np.where(odds > 0, odds * k, 1.0)))
    return chances / len(sets), kl / len(sets)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0, 300.0, 1e5, 1e200])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_it_is_the_mean_over_all_sets(scale: float, size: int) -> None:
    rng = np.random.default_rng([size, int(np.log10(scale + 1))])
    scores = scale * rng.normal(size=(6, size))
    scores[1] = scale * rng.integers(0, 3, size=size)  # ties
    scores[2] = scores[2, 0]
    scores[3] += 1e3 * scale  # a common offset
    for k in range(1, size + 1):
        chances, kl = subset_choice(scores, k)
        true = [one_by_one(row, k) for row in scores]
        assert np.abs(chances - [row[0] for row in true]).max() < 1e-12
        assert np.abs(kl - [row[1] for row in true]).max() < 1e-11


def test_a_coarse_grid_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 6))
    true = np.array([one_by_one(row, 3)[0] for row in scores])
    monkeypatch.setattr(planning, "STEP", 2.0)
    # The chances are scaled to sum to one, which hides what all have in common.
    assert np.abs(subset_choice(scores, 3)[0] - true).max() > 1e-5


@pytest.mark.parametrize("step", [0.6, 0.8, 1.0, 1.5])
def test_the_error_of_the_grid_is_what_the_formula_says(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 |Γ(1 + 2πi/h)| of each chance, and no bound that is far too large."""
    scores = np.sort(np.random.default_rng(8).normal(size=(40, 6)), axis=1)
    scores -= scores[:, -1:]
    true = np.array([one_by_one(row, 3)[0] for row in scores])
    monkeypatch.setattr(planning, "STEP", step)
    found, _ = planning._integrated(scores, 3, int(45 / step))
    frequencies = 2 * np.pi * np.arange(1, 4) / step
    bound = 2 * float(np.abs(gamma(1 + 1j * frequencies)).sum())
    worst = np.abs(found / true - 1).max()
    assert 0.3 * bound < worst < bound + 1e-12


def test_of_pairs_it_is_a_sum_of_sigmoids() -> None:
    scores = 3 * np.random.default_rng(1).normal(size=(4, 100))
    apart = scores[:, :, None] - scores[:, None, :]
    wins = 1 / (1 + np.exp(-apart)) * (1 - np.eye(100))
    assert np.abs(subset_choice(scores, 2)[0] - wins.sum(axis=2) / (100 * 99 / 2)).max() < 1e-14


def test_many_prompts_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(2).normal(size=(50, 7)) * np.geomspace(0.1, 1e3, 50)[:, None]
    whole = subset_choice(scores, 3)
    monkeypatch.setattr(planning, "ROOM", 20_000)
    for a, b in zip(subset_choice(scores, 3), whole, strict=True):
        assert np.abs(a - b).max() < 1e-11


def test_large_k_neither_overflows_nor_vanishes() -> None:
    """C(400, 200) is 1e119; at λ = 0 all are alike, and k of K that are all alike but one can be counted."""
    chances, kl = subset_choice(np.zeros((1, 400)), 200)
    assert np.abs(chances - 1 / 400).max() < 1e-15
    assert kl[0] < 1e-11
    one = np.zeros((1, 400))
    one[0, 7] = np.log(50.0)
    assert subset_choice(one, 200)[0][0, 7] == pytest.approx(0.5 * 50 / (50 + 199), rel=1e-12)


def test_levels_are_the_gradient_of_the_log_partition() -> None:
    for rng in many(5, 20):
        p = pilot(rng, joint=False)
        on, k = groups(p), int(rng.integers(1, np.diff(p.starts).min() + 1))
        weights = rng.normal(size=p.features) / np.maximum(on.values.std(axis=0), 1e-9)
        found, step = expect(on, weights, k), 1e-5 / np.maximum(on.values.std(axis=0), 1e-9)
        for i in range(p.features):
            move = step[i] * np.eye(p.features)[i]
            slope = (
                expect(on, weights + move, k).log_partition - expect(on, weights - move, k).log_partition
            ) / (2 * step[i])
            assert abs(slope - found.levels[i]) < 1e-6 * (np.ptp(on.values[:, i]) + abs(found.levels[i]))
        assert 0 <= found.kl <= np.log(k) + 1e-12
        assert found.effective == pytest.approx(k * np.exp(-found.kl))


def test_prompts_of_any_size_and_weight() -> None:
    sizes, rng = [2, 5, 3, 5, 2], np.random.default_rng(3)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    values, shares = rng.normal(size=(17, 2)) + 1e6, rng.dirichlet(np.ones(5))
    found, weights = expect(Groups(values, starts, shares), np.array([1.0, -2.0]), 2), np.array([1.0, -2.0])
    for g, (a, b) in enumerate(pairwise(starts)):
        chances, _ = one_by_one(values[a:b] @ weights, 2)
        assert found.probabilities[a:b] == pytest.approx(
            chances, abs=1e-8
        )  # the offset costs 1e-10 of the scores
        assert found.prompt_levels[g] - 1e6 == pytest.approx(chances @ (values[a:b] - 1e6), abs=1e-8)
    assert found.levels - 1e6 == pytest.approx(shares @ (found.prompt_levels - 1e6), abs=1e-8)


def test_weights_without_end_reach_what_k_candidates_can() -> None:
    rng = np.random.default_rng(4)
    on = Groups(rng.normal(size=(60, 2)), np.arange(0, 61, 6), np.full(10, 0.1))
    for k in range(1, 7):
        direction = rng.normal(size=2)
        far = expect(on, 1e9 * direction, k)
        assert far.prompt_levels @ direction == pytest.approx(prompt_support(on, direction, k), abs=1e-11)


def test_a_lexicographic_choice_is_that_of_the_decoder() -> None:
    """Ties on the first direction are decided by the second, and ties on that by the weights."""
    values = np.array([[2.0, 0.0, 0.3], [2.0, 1.0, -1.0], [1.0, 5.0, 9.0], [2.0, 1.0, 0.5]])
    on, weights = Groups(values, np.array([0, 4]), np.ones(1)), np.array([0.0, 0.0, 2.0])
    found = expect(on, weights, 2, np.eye(3)[:2])
    true = np.zeros(4)
    for chosen in combinations(range(4), 2):
        pair = list(chosen)
        best = [j for j in pair if tuple(values[j, :2]) == max(tuple(values[i, :2]) for i in pair)]
        odds = np.exp(values[best] @ weights)
        true[best] += odds / odds.sum() / 6
    assert found.probabilities == pytest.approx(true, abs=1e-12)


def test_a_boundary_has_the_levels_its_solution_says() -> None:
    rng = np.random.default_rng(5)
    on = vp.Pilot.from_arrays(
        {"humor": rng.normal(size=120), "tone": rng.normal(size=120)}, prompt_id=np.repeat(np.arange(20), 6)
    )
    solution = vp.solve(on, {"humor": "reach 100%", "tone": "free"})
    assert solution.status is vp.Status.BOUNDARY
    found = expect(on.groups(), solution.weights.array, 6, solution.faces)
    assert found.levels == pytest.approx(solution.levels.array, abs=1e-9)


def test_fresh_draws_of_a_model_have_these_levels() -> None:
    """A model with normal answers: from 16 candidates a prompt, what a decoder of 4 gives on fresh ones."""
    rng = np.random.default_rng(6)

    def drawn(prompts: int, candidates: int) -> Float:
        centre = np.random.default_rng(7).normal(size=(prompts, 1, 2))
        return centre + rng.normal(size=(prompts, candidates, 2)) @ np.array([[1.0, -0.5], [0.0, 0.8]])

    weights, prompts = np.array([1.2, 0.4]), 2_000
    table = drawn(prompts, 16)
    on = Groups(table.reshape(-1, 2), np.arange(0, 16 * prompts + 1, 16), np.full(prompts, 1 / prompts))
    found = expect(on, weights, 4)
    fresh = drawn(prompts, 4)
    odds = np.exp(fresh @ weights)
    odds /= odds.sum(axis=1, keepdims=True)
    picked = (odds.cumsum(axis=1) > rng.random((prompts, 1))).argmax(axis=1)
    got = fresh[np.arange(prompts), picked]
    se = (got - found.prompt_levels).std(axis=0) / np.sqrt(prompts)
    assert (np.abs(got.mean(axis=0) - found.levels) < 3.5 * se).all()
    # What the weights would give with all 16, or with 2, is far outside: the test can fail.
    for k in (2, 16):
        assert abs(expect(on, weights, k).levels[0] - found.levels[0]) > 6 * se[0]


def test_k_is_at_most_what_each_prompt_has() -> None:
    on = Groups(np.zeros((5, 1)), np.array([0, 2, 5]), np.full(2, 0.5))
    for k in (0, 3):
        with pytest.raises(
            ValueError, match=f"k must lie between 1 and the 2 candidates of a prompt, got {k}"
        ):
            expect(on, np.zeros(1), k)
