"""Where the paper is wrong: its form fails, and ours holds. One test or more for each row of docs/corrections.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import valuepalette as vp
from helpers import SHARED, needs_shared
from oracles import Problem, problem, tilt
from problems import groups, many
from valuepalette import Infeasible, Pilot, Status
from valuepalette.dual import Optimum, evaluate_at, optimise
from valuepalette.sensitivity import reward_response, reward_slopes, weight_response, worst_case
from valuepalette.sequential import ascend

INF = np.inf
ONE_PROMPT = [0, 0, 0]


def solved(p: Problem) -> Optimum:
    found = optimise(groups(p), p.lower, p.upper, joint=p.joint)
    assert found.status is Status.OPTIMAL
    return found


def three_values(seed: int, *, joint: bool = False, effects: float = 1.0) -> Problem:
    """Prompts that differ, with three values that depend on each other; all three are asked for more."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.4, 0.0], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    table = rng.normal(size=(40, 8, 3)) @ mixing + effects * rng.normal(size=(40, 1, 3))
    p = problem(table.reshape(-1, 3), np.full(40, 8), [-INF] * 3, joint=joint)
    return replace(p, lower=groups(p).base + np.array([0.3, 0.4, 0.2]))


def slope(answer: Callable[[float], np.ndarray], h: float) -> np.ndarray:
    return (answer(h) - answer(-h)) / (2 * h)


# ---- Theorem 4 (iv), (42): dλ/dc


def test_weights_rise_with_what_is_asked_and_the_covariance_is_within_prompts() -> None:
    p = three_values(501)
    found = solved(p)
    assert np.all(found.weights > 0)
    true = np.column_stack(
        [slope(lambda h, e=e: solved(replace(p, lower=p.lower + h * e)).weights, 1e-5) for e in np.eye(3)]
    )
    assert np.all(np.diag(true) > 0)
    ours = weight_response(found.weights, found.covariance)
    assert ours == pytest.approx(true, rel=1e-4, abs=1e-5)
    # The paper: −V⁻¹, with V over prompts and answers.
    chance = tilt(p, found.weights).probabilities.astype(float) / 40
    centred = p.values - chance @ p.values
    over_all = np.linalg.inv(centred.T @ (chance[:, None] * centred))
    assert np.all(np.diag(-over_all) < 0)
    assert np.all(np.diag(over_all) < 0.7 * np.diag(true))


# ---- Theorem 4 (iii): what is out of reach


def test_the_reach_is_the_mean_of_the_best_answers_not_the_best_of_all() -> None:
    pilot = Pilot.from_arrays({"a": [0.0, 1.0, 2.0, 8.0, 9.0, 10.0]}, prompt_id=[0, 0, 0, 1, 1, 1])
    with pytest.raises(Infeasible) as no:
        vp.solve(pilot, {"a": 7.0})  # far below the paper's B = 10, which excludes nothing
    assert no.value.certificate is not None
    assert no.value.certificate.reach == pytest.approx((2 + 10) / 2)
    assert vp.reach(pilot, None, "a").high == pytest.approx(6.0)
    assert vp.solve(pilot, {"a": 5.99}).status is Status.OPTIMAL
    # B is right where prompts are re-weighted too.
    assert vp.solve(pilot, {"a": 9.9}, mode="joint").status is Status.OPTIMAL
    with pytest.raises(Infeasible):
        vp.solve(pilot, {"a": 10.1}, mode="joint")


# ---- Theorem 1: (4) against (5), and the boundary


def test_the_weights_of_5_do_not_give_4_its_levels() -> None:
    """Asked for half a deviation more: what a decoder delivers falls as prompts differ more."""
    delivered = []
    for effects in (0.0, 0.5, 1.0, 2.0):
        rng = np.random.default_rng(502)
        table = effects * rng.normal(size=(500, 1)) + rng.normal(size=(500, 16))
        pilot = Pilot.from_arrays({"a": table.reshape(-1)}, prompt_id=np.repeat(np.arange(500), 16))
        joint = vp.solve(pilot, {"a": "+0.5"}, mode="joint")
        assert joint.gains["a"] == pytest.approx(0.5)
        delivered.append(vp.levels(pilot, joint.weights, mode="prompt").gains["a"])
        prompt = vp.solve(pilot, {"a": "+0.5"})
        assert vp.levels(pilot, prompt.weights, mode="prompt").gains["a"] == pytest.approx(0.5)
    assert np.all(np.diff(delivered) < 0)
    assert delivered[0] > 0.4
    assert delivered[-1] < 0.15


def test_on_the_boundary_no_weights_are_optimal() -> None:
    """Outcomes 0 and 1, c = 1: g(λ) = λ − log((1 + e^λ)/2) rises for ever, to a KL of log 2 that the levels do have."""
    coin = Pilot.from_arrays({"a": [0.0, 1.0]}, prompt_id=[0, 0])

    def dual(weight: float) -> float:
        return weight - np.log1p(np.exp(weight)) + np.log(2)

    assert dual(1.0) < dual(10.0) < dual(20.0) < np.log(2)
    edge = vp.solve(coin, {"a": 1.0})
    assert edge.status is Status.BOUNDARY
    assert edge.levels["a"] == 1.0
    assert edge.probabilities(coin.array) == pytest.approx([0.0, 1.0])


# ---- Lemma 1: strict concavity


def test_a_combination_that_no_prompt_moves_makes_the_dual_flat() -> None:
    """r₂ = 3·prompt − r₁: no component is constant, r is not, and still the Hessian is singular."""
    r1, prompt = np.array([0.0, 1.0, 0.5, 2.0]), np.array([0, 0, 1, 1])
    p = problem(np.column_stack([r1, 3 * prompt - r1]), [2, 2], [-INF, -INF])
    along = np.array([1.0, 1.0])
    assert np.ptp(p.values @ along) > 0  # not constant overall, so the lemma says strictly concave
    for weights in ([0.0, 0.0], [0.7, -0.2]):
        at = evaluate_at(groups(p), np.array(weights))
        assert along @ at.covariance @ along == pytest.approx(0.0, abs=1e-15)
        moved = evaluate_at(groups(p), np.array(weights) + 5 * along)
        assert moved.levels == pytest.approx(at.levels)
    # Between them (5) is strictly concave: there the prompts move.
    assert along @ evaluate_at(groups(p), np.zeros(2), joint=True).covariance @ along > 1.0


def test_a_value_that_only_prompts_move_is_not_constant_and_has_no_curvature() -> None:
    p = problem([0.0, 0.0, 1.0, 1.0], [2, 2], [-INF])
    assert evaluate_at(groups(p), np.array([3.0])).covariance == pytest.approx(0.0)


def test_without_such_a_combination_it_is_strictly_concave() -> None:
    p = three_values(503)
    assert np.linalg.eigvalsh(solved(p).covariance)[0] > 0.05


# ---- Theorem 3: which levels a reward can have


def test_a_reward_of_minus_r_has_levels_that_no_palette_has() -> None:
    """R = −r₁ − r₂ − r₃ lowers every level; λᵀ(level − c0) ≥ 0 for each λ ≥ 0, so no palette of lower bounds does."""
    p = three_values(504)
    base = groups(p).base
    low = evaluate_at(groups(p), np.array([-1.0, -1.0, -1.0])).levels
    assert np.all(low < base)
    for rng in many(505, 50):
        weights = rng.exponential(size=3) * rng.integers(0, 2, size=3)
        levels = evaluate_at(groups(p), weights).levels
        assert weights @ (levels - base) >= -1e-12
        assert np.any(levels >= base - 1e-12)
    # The paper asks for the levels of R as lower bounds: the base meets these already, and is the answer.
    answer = solved(replace(p, lower=low))
    assert not answer.weights.any()
    assert answer.levels == pytest.approx(base)
    # What R reaches takes λ in R^m: bounds from above.
    found = solved(replace(p, lower=np.full(3, -INF), upper=low))
    assert found.weights == pytest.approx([-1, -1, -1], abs=1e-7)


def test_the_levels_of_any_reward_are_those_of_some_weights() -> None:
    """The half that is true, with weights of any sign: the least KL among all that have these levels is a tilt."""
    p = three_values(506)
    rng = np.random.default_rng(506)
    reward = rng.normal(size=len(p.values)).reshape(40, 8)  # no combination of the values
    chance = np.exp(reward) / np.exp(reward).sum(axis=1, keepdims=True)
    levels = chance.reshape(-1) / 40 @ p.values
    found = solved(replace(p, lower=levels, upper=levels))
    assert found.levels == pytest.approx(levels)
    assert found.kl < (chance * np.log(8 * chance)).sum() / 40
    assert found.weights.min() < 0


# ---- Theorem 5, (9): one value after another


def test_increments_that_are_not_negative_stop_short() -> None:
    p = problem([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [3], [0.8, 0.6])
    columns = [p.values[:, 0], p.values[:, 1]]
    paper, ours = (
        ascend(columns.__getitem__, groups(p), p.lower, p.upper, [[0], [1]], increments=form)
        for form in (True, False)
    )
    assert round(paper[-1].kl, 4) == 0.1710
    assert paper[-1].weights[0] == pytest.approx(np.log(2))  # taken in the first step, and never given back
    assert round(ours[-1].kl, 4) == 0.1483
    assert ours[-1].weights == pytest.approx([0.0, np.log(3)], abs=1e-8)
    at_once = vp.solve(
        Pilot.from_arrays({"a": columns[0], "b": columns[1]}, prompt_id=ONE_PROMPT), {"a": 0.8, "b": 0.6}
    )
    assert ours[-1].weights == pytest.approx(at_once.weights.array, abs=1e-8)


# ---- Theorem 6: wrong rewards


def bits(count: int, low: float, high: float, level: float) -> Problem:
    """Independent bits in all combinations, each a value, and a level asked of every one."""
    return problem(list(product([low, high], repeat=count)), [2**count], [level] * count)


def test_the_bound_on_the_weights_is_exceeded() -> None:
    """(11): ‖λ − λ0‖ ≤ δ/λ_min, violated by two candidates."""
    delta = 0.01
    before, after = bits(1, 0.0, 1.0, 0.95), bits(1, delta, 1 - delta, 0.95)
    found = solved(after)
    moved = float(found.weights[0] - solved(before).weights[0])
    assert moved > 1.03 * delta / np.linalg.eigvalsh(found.covariance)[0]
    # Ours, from the true rewards: first order, and attained by this very error.
    told = delta * worst_case(groups(before), solved(before).weights)[0]
    signs = np.sign(next(iter(reward_slopes(groups(before), solved(before).weights))))
    assert signs[:, 0].tolist() == [1.0, -1.0]
    tiny = solved(bits(1, 1e-6, 1 - 1e-6, 0.95)).weights[0] - solved(before).weights[0]
    assert tiny == pytest.approx(1e-6 * told / delta, rel=1e-4)


def test_the_bound_on_the_model_is_exceeded() -> None:
    """(12): KL(p_λ ‖ p_λ0) ≤ 2δ(B0 + δ)/λ_min, violated by two independent bits."""
    delta, b0, level = 0.4, 0.5, 0.499
    before, after = bits(2, -b0, b0, level), bits(2, -b0 + delta, b0 + delta, level)
    old, new = solved(before), solved(after)
    p0, p = (tilt(q, found.weights).probabilities.astype(float) for q, found in ((before, old), (after, new)))
    kl = float(p @ np.log(p / p0))
    bound = 2 * delta * (b0 + delta) / np.linalg.eigvalsh(new.covariance)[0]
    assert kl > 1.3 * bound
    # What holds whatever the errors: with λ kept, true levels are within δ of the promised.
    assert np.all(np.abs(p0 @ after.values - old.levels) <= delta + 1e-12)


# ---- Theorem 7, (17), (21): the path of the weights as rewards change


def test_the_path_integral_has_another_sign_and_a_covariance() -> None:
    p = three_values(507)
    change = 0.3 * np.random.default_rng(507).normal(size=p.values.shape) + 0.1

    def at(t: float) -> tuple[Problem, np.ndarray]:
        moved = replace(p, values=p.values + t * change)
        return moved, solved(moved).weights

    nodes, shares = np.polynomial.legendre.leggauss(8)
    ours, paper, no_covariance = np.zeros(3), np.zeros(3), np.zeros(3)
    for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
        moved, weights = at(node)
        assert np.all(weights > 0)
        ours += share * reward_response(groups(moved), weights, change)
        chance = tilt(moved, weights).probabilities.astype(float) / 40
        mean = weight_response(weights, solved(moved).covariance) @ (chance @ change)
        paper += share * mean
        no_covariance -= share * mean
    true = at(1.0)[1] - at(0.0)[1]
    assert ours == pytest.approx(true, abs=1e-7)
    assert np.abs(paper - true).max() > 0.1
    assert np.abs(no_covariance - true).max() > 0.01


# ---- Algorithm 3: where the greedy search starts


def test_a_search_upwards_from_an_ask_that_cannot_be_had_finds_nothing() -> None:
    p = three_values(508)
    asked = groups(p).base + 3.0
    pilot = Pilot.from_arrays(
        {name: p.values[:, i] for i, name in enumerate("abc")}, prompt_id=np.repeat(np.arange(40), 8)
    )

    def can_be_had(levels: np.ndarray) -> bool:
        palette = dict(zip("abc", map(float, levels), strict=True))
        return vp.solve(pilot, palette, on_infeasible="return").status is Status.OPTIMAL

    assert not can_be_had(asked)
    # The paper: for each value in turn, bisect between c_i and c_i + Δ, the other entries fixed.
    levels = asked.copy()
    for i in range(3):
        low, high = levels[i], levels[i] + 1.0
        while high - low > 1e-3:
            levels[i] = (low + high) / 2
            if can_be_had(levels):
                low = levels[i]
            else:
                high = levels[i]
        levels[i] = low
    assert levels == pytest.approx(asked)
    assert not can_be_had(levels)
    # Ours starts from the base and never asks above the ask.
    palette = dict(zip("abc", map(float, asked), strict=True))
    adjusted = vp.adjust(pilot, palette, method="greedy", priority=["a", "b", "c"])
    assert adjusted.solution.status is Status.OPTIMAL
    assert np.all(adjusted.had.array <= asked)
    assert adjusted.had["a"] > groups(p).base[0] + 0.5


# ---- MAP-F: R = λᵀr under a trainer's β, and a pilot at top-k


def test_the_reward_of_a_trainer_is_beta_times_lambda_r() -> None:
    """The optimum of E[R] − β KL is p0 exp(R/β): R = λᵀr gives the levels of λ/β."""
    p, beta = three_values(509), 0.1
    found = solved(p)
    paper = evaluate_at(groups(p), found.weights / beta)
    assert np.abs(paper.levels - p.lower).max() > 0.5
    reward = (p.values @ (beta * found.weights)).reshape(40, 8)
    chance = np.exp(reward / beta - (reward / beta).max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    assert chance.reshape(-1) / 40 @ p.values == pytest.approx(p.lower)


def test_weights_of_a_truncated_model_miss_their_level_on_the_whole_one() -> None:
    """Answers of chances .6, .3, .1 and values 0, 1, −3: the truncated model never gives the last, the trained does."""
    values, chances, asked = np.array([0.0, 1.0, -3.0]), np.array([0.6, 0.3, 0.1]), 0.5

    def rows(kept: int) -> Problem:
        counts = np.round(10 * chances[:kept]).astype(int)
        return problem(np.repeat(values[:kept], counts), [counts.sum()], [asked])

    truncated, whole = solved(rows(2)), solved(rows(3))
    missed = evaluate_at(groups(rows(3)), truncated.weights).levels[0]
    assert missed < asked - 0.01
    assert evaluate_at(groups(rows(3)), whole.weights).levels[0] == pytest.approx(asked)


# ---- Table 1


def by_adam(rows: np.ndarray, lower: np.ndarray, precision: type) -> np.ndarray:
    """Algorithm 1, step 2, as it was run: 150 steps of Adam on τ = log λ from λ = 1, exp without a shift."""
    rows, lower = rows.astype(precision), lower.astype(precision)
    tau, first, second = (np.zeros(len(lower), precision) for _ in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, 151):
            weights = np.exp(tau)
            tilted = np.exp(rows @ weights)
            fall = weights * ((tilted / tilted.sum()) @ rows - lower)
            first, second = 0.9 * first + 0.1 * fall, 0.999 * second + 0.001 * fall**2
            mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
            tau = (tau - 0.1 * mean / (np.sqrt(square) + 1e-8)).astype(precision)
    return weights


@needs_shared
def test_hhh_80_can_be_had_with_opt() -> None:
    opt = Pilot.read(SHARED / "pilot-opt1.3b-anthropic.parquet")
    means = dict(zip(opt.values, opt.array.mean(axis=0).round(3).tolist(), strict=True))
    palette = means | {"humor": 2.534, "helpfulness": -0.613, "harmlessness": 1.268}
    solution = vp.solve(opt, palette, mode="joint", weighting="rows")
    assert solution.status is Status.OPTIMAL
    assert solution.weights.array == pytest.approx([29.70, 2.59, 3.06, 0, 0, 0], abs=5.1e-3)
    assert solution.ess == pytest.approx(23.7, abs=0.05)
    assert solution.margin == pytest.approx(0.041, abs=5e-4)
    # The paper's procedure calls it infeasible in single precision, and not in double: what fails is exp.
    rows, lower = opt.array, np.array(list(palette.values()))
    assert not np.isfinite(by_adam(rows, lower, np.float32)).all()
    assert np.isfinite(by_adam(rows, lower, np.float64)).all()
    lost = means | {"humor": 2.554, "helpfulness": -0.127, "harmlessness": 1.677}
    with pytest.raises(Infeasible):
        vp.solve(opt, lost, mode="joint", weighting="rows")


@needs_shared
def test_the_weight_of_harmlessness_80_is_not_its_palette() -> None:
    opt = Pilot.read(SHARED / "pilot-opt1.3b-anthropic.parquet")
    found = vp.solve(opt, {"harmlessness": 1.268}, mode="joint", weighting="rows")
    assert found.weights["harmlessness"] == pytest.approx(0.952, abs=5e-4)
    printed = vp.levels(opt, {"harmlessness": 1.27}, mode="joint", weighting="rows")
    assert printed.levels["harmlessness"] > 1.268 + 0.1
