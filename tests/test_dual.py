from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from oracles import Problem, cone, constant, problem, spread, subsets, tilt, verdict, violation
from problems import asked as random_palette
from problems import at_margin, groups, lattice, many, pilot, planted
from proofs import check, restricted
from valuepalette import dual
from valuepalette.dual import Optimum, Status
from valuepalette.laying import tilted
from valuepalette.tilting import prompt_support

INF = np.inf
NAME = {Status.OPTIMAL: "optimal", Status.BOUNDARY: "boundary", Status.INFEASIBLE: "infeasible"}


def optimise(p: Problem, **options: object) -> Optimum:
    return dual.optimise(groups(p), p.lower, p.upper, joint=p.joint, **options)  # type: ignore[arg-type]


def judge(p: Problem) -> Optimum:
    """Solve, prove what the status claims, and compare the status with the linear programmes'."""
    found = optimise(p)
    check(p, found)
    want = verdict(p)
    assert want in ("either", NAME[found.status]), f"{p.note}: {found.status.name}, but {want}"
    return found


def same(p: Problem, a: Optimum, b: Optimum, scale: np.ndarray | float = 1.0, shift: float = 0.0) -> None:
    """The same verdict and, up to the given units, the same levels."""
    assert a.status is b.status
    if a.status is not Status.INFEASIBLE:
        unit = np.where(constant(p), 1.0, spread(p))
        assert ((b.levels - shift) / scale - a.levels) / unit == pytest.approx(np.zeros(p.features), abs=1e-7)
        assert b.kl == pytest.approx(a.kl, abs=1e-7)


# ---- answers worked by hand


def test_two_candidates() -> None:
    found = optimise(problem([0.0, 1.0], [2], [0.8]))
    assert found.status is Status.OPTIMAL
    assert found.weights == pytest.approx([np.log(4.0)])
    assert found.levels == pytest.approx([0.8])
    assert found.base == pytest.approx([0.5])
    assert found.kl == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4))
    assert found.log_partition == pytest.approx(np.log(2.5))
    assert found.kish == pytest.approx(1 / (0.8**2 + 0.2**2))
    assert found.covariance == pytest.approx(np.array([[0.16]]))
    assert found.prompt_levels == pytest.approx(np.array([[0.8]]))


def test_the_upper_bound_is_the_mirror_image() -> None:
    found = optimise(problem([0.0, 1.0], [2], [-INF], [0.2]))
    assert found.weights == pytest.approx([-np.log(4.0)])


def test_sequential_increments_of_the_paper_would_stop_short_of_this() -> None:
    """Outcomes (0,0), (1,0), (1,1), bounds (.8, .6): only the second weight is needed."""
    found = optimise(problem([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [3], [0.8, 0.6]))
    # At (0, log 3) the first value has exactly .8: it touches its bound and needs no weight.
    assert found.weights == pytest.approx([0.0, np.log(3.0)], abs=1e-12)
    assert found.kl == pytest.approx(0.1483, abs=5e-5)


def test_a_face_holds_its_constraints_as_equalities() -> None:
    """Dropping them would give (1, 1), the centre of the face."""
    p = problem([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0]], [4], [1.5, 0.5])
    found = judge(p)
    assert found.status is Status.BOUNDARY
    assert found.levels == pytest.approx([1.5, 0.5])
    (d,) = found.faces
    assert d[0] == pytest.approx(d[1])
    assert d[0] > 0


def test_a_face_of_a_face() -> None:
    """The edge x = 1 of a square with one more corner cut off: two rounds are needed, or one exact direction."""
    p = problem([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 3]], [5], [1.0, 1.0, 2.0])
    found = judge(p)
    assert found.status is Status.BOUNDARY
    assert found.levels == pytest.approx([1.0, 1.0, 2.0])
    _, keep = restricted(p, found)
    assert keep.tolist() == [False, False, True, True, True]


def test_the_very_top() -> None:
    p = problem([0.0, 1.0, 2.0, 2.0, 0.0, 5.0], [4, 2], [3.5])
    found = judge(p)
    assert found.status is Status.BOUNDARY
    assert found.levels == pytest.approx([3.5])
    assert found.kl == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2))


def test_one_prompt_one_candidate() -> None:
    """Nothing can be chosen: the palette is met or it is not."""
    p = problem([[1.0, 2.0]], [1], [0.5, 2.0])
    found = judge(p)
    assert found.status is Status.OPTIMAL
    assert np.array_equal(found.weights, [0.0, 0.0])
    lost = judge(problem([[1.0, 2.0]], [1], [0.5, 2.1]))
    assert lost.status is Status.INFEASIBLE


def test_prompts_with_one_candidate_add_a_constant() -> None:
    """They cannot be moved, so the others have to move for them too."""
    for rng in many(61, 20):
        p = random_palette(rng, prompts=6, candidates=4, joint=False, weighted=False, push=0.1)
        lone = rng.normal(size=p.features) * spread(p) + p.values.mean(axis=0)
        more = Problem(
            np.vstack([p.values, lone]),
            np.append(p.starts, p.starts[-1] + 1),
            np.full(7, 1 / 7),
            (6 * p.lower + lone) / 7,
            (6 * p.upper + lone) / 7,
        )
        a, b = optimise(p), optimise(more)
        assert a.status is b.status
        if a.status is Status.OPTIMAL:
            assert b.weights * spread(p) == pytest.approx(a.weights * spread(p), abs=1e-6)
            assert b.prompt_levels[-1] == pytest.approx(lone)


# ---- proof, on hundreds of random problems


@pytest.mark.parametrize("part", range(4))
def test_every_verdict_is_proved(part: int) -> None:
    told: Counter[Status] = Counter()
    for rng in many(620 + part, 75):
        told[judge(random_palette(rng)).status] += 1
    assert min(told[Status.OPTIMAL], told[Status.INFEASIBLE]) > 10
    assert told[Status.NUMERICAL] == 0


@pytest.mark.parametrize("part", range(4))
def test_planted_weights_are_recovered(part: int) -> None:
    proved = 0
    for rng in many(630 + part, 75):
        case = planted(rng)
        p = case.problem
        found = optimise(p)
        assert found.status is Status.OPTIMAL, p.note
        check(p, found)
        loose = p.lower != p.upper
        assert np.array_equal(np.sign(found.weights)[loose], np.sign(case.weights)[loose])
        active = found.weights != 0
        if np.isfinite(found.error[active]).all():
            proved += 1
            # What was planted is itself rounded: the bounds are doubles.
            rounding = 1e-9 * np.abs(case.weights) + 1e-9 / spread(p)
            near = np.abs(found.weights - case.weights) <= found.error + rounding * 100
            assert np.all(near[active])
    assert proved >= 60


@pytest.mark.parametrize("shape", ["skewed", "outliers", "heavy"])
def test_feasible_palettes_with_outliers_are_solved(shape: str) -> None:
    for rng in many(64, 60):
        case = planted(rng, shape=shape, heat=float(rng.choice([1.0, 3.0, 10.0])))
        found = optimise(case.problem)
        check(case.problem, found)
        # Hot weights on an outlier may leave less room than doubles can tell from none.
        if oracles.interior(case.problem) > 1e-8:
            assert found.status is Status.OPTIMAL
            assert found.kkt_residual <= 1e-9


def test_near_the_boundary_on_both_sides() -> None:
    told: dict[float, Counter[Status]] = {}
    for rng in many(65, 25):
        p = random_palette(rng, push=0.0)
        for target in (1e-2, 1e-4, 1e-6, -1e-6, -1e-4, -1e-2):
            try:
                near = at_margin(p, target)
            except ValueError:
                continue
            told.setdefault(target, Counter())[judge(near).status] += 1
    for target, count in told.items():
        wrong = Status.INFEASIBLE if target > 0 else Status.OPTIMAL
        assert count[wrong] == 0
        assert count.total() > 15
    assert all(told[t][Status.OPTIMAL] > 12 for t in told if t > 0)


@pytest.mark.parametrize("joint", [False, True])
def test_exactly_on_the_boundary(joint: bool) -> None:
    """Whole numbers: nothing is rounded, so there is one right answer. A small residual proves nothing here."""
    for rng in many(66, 60):
        features = int(rng.integers(1, 4))
        p = lattice(rng, joint=joint, prompts=int(rng.choice([1, 2, 4, 8])), features=features)
        found = judge(p)
        assert found.status is Status.BOUNDARY


def test_rounded_boundaries_may_go_either_way_but_never_without_an_answer() -> None:
    for rng in many(67, 25):
        p = random_palette(rng, push=0.0)
        for target in (0.0, 1e-9, -1e-9, 1e-8):
            try:
                near = at_margin(p, target)
            except ValueError:
                continue
            found = optimise(near)
            assert found.status is not Status.NUMERICAL
            if found.status is not Status.INFEASIBLE:
                unit = spread(near)
                short = np.maximum(near.lower - found.levels, found.levels - near.upper) / unit
                assert short.max() <= 1e-7


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_small_whole_numbers(data: st.DataObject) -> None:
    """Ties, duplicates, constants, collinear values, implied equalities: small numbers have them all."""
    prompts = data.draw(st.integers(1, 3))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=prompts, max_size=prompts))
    m = data.draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 2), min_size=m, max_size=m)
    rows = data.draw(st.lists(row, min_size=sum(sizes), max_size=sum(sizes)))
    halves = st.integers(-1, 5).map(lambda x: x / 2)
    lower, upper = [], []
    for _ in range(m):
        kind = data.draw(st.sampled_from(["lower", "upper", "equality", "interval", "free"]))
        at = data.draw(halves)
        lower.append(at if kind in ("lower", "equality", "interval") else -INF)
        width = {"upper": 0.0, "equality": 0.0, "interval": 0.5}.get(kind, INF)
        upper.append(at + width)
    judge(problem(rows, sizes, lower, upper, joint=data.draw(st.booleans())))


# ---- another solver


@pytest.mark.extra("cvxpy")
@pytest.mark.parametrize("part", range(4))
def test_the_cone_solver_agrees(part: int) -> None:
    compared = 0
    for rng in many(680 + part, 40):
        p = random_palette(rng, push=float(rng.choice([0.0, 0.1])))
        if not oracles.margin(p) > 1e-6:
            continue
        found, other = optimise(p), cone(p)
        if not other.solved:
            continue
        compared += 1
        assert found.status is not Status.INFEASIBLE
        if found.status is Status.OPTIMAL:
            # Levels that miss their bounds by the tolerance cost their weight in KL.
            heat = 1 + float(np.abs(found.weights) @ spread(p))
            assert found.kl == pytest.approx(other.kl, abs=1e-9 * heat)
            assert (found.levels - other.levels) / spread(p) == pytest.approx(np.zeros(p.features), abs=1e-6)
    assert compared > 15


@pytest.mark.extra("cvxpy")
def test_the_cone_solver_agrees_on_the_boundary() -> None:
    compared = 0
    for rng in many(69, 40):
        p = lattice(rng, joint=bool(rng.integers(2)))
        found, other = optimise(p), cone(p, 1e-8)
        if other.solved:
            compared += 1
            assert found.kl == pytest.approx(other.kl, abs=1e-4)
            assert found.levels == pytest.approx(other.levels, abs=1e-4)
    assert compared > 5


# ---- what must not matter


def test_shift_scale_and_order_do_not_matter() -> None:
    for rng in many(70, 60):
        p = random_palette(rng)
        if abs(oracles.margin(p)) < 1e-5:
            continue
        found = optimise(p)
        shift = rng.normal(scale=10.0, size=p.features) * spread(p)
        scale = 10.0 ** rng.choice([-6, 6], size=p.features)
        moved = replace(p, values=p.values + shift, lower=p.lower + shift, upper=p.upper + shift)
        same(p, found, optimise(moved), shift=shift)
        scaled = replace(p, values=p.values * scale, lower=p.lower * scale, upper=p.upper * scale)
        there = optimise(scaled)
        same(p, found, there, scale=scale)
        if found.status is Status.OPTIMAL:
            unit = spread(p)
            assert there.weights * scale * unit == pytest.approx(found.weights * unit, abs=1e-5)
        column = rng.permutation(p.features)
        turned = replace(p, values=p.values[:, column], lower=p.lower[column], upper=p.upper[column])
        same(turned, replace(found, levels=found.levels[column]), optimise(turned))


def test_negating_a_feature_swaps_its_bounds() -> None:
    for rng in many(71, 30):
        p = random_palette(rng)
        if abs(oracles.margin(p)) < 1e-5:
            continue
        flip = rng.choice([-1.0, 1.0], size=p.features)
        lower = np.where(flip > 0, p.lower, -p.upper)
        upper = np.where(flip > 0, p.upper, -p.lower)
        there = replace(p, values=p.values * flip, lower=lower, upper=upper)
        same(p, optimise(p), optimise(there), scale=flip)


def test_an_offset_of_1e8_does_not_matter() -> None:
    compared = 0
    for rng in many(72, 60):
        p = random_palette(rng)
        unit = spread(p)
        plain = replace(p, values=p.values / unit, lower=p.lower / unit, upper=p.upper / unit)
        if abs(oracles.margin(plain)) < 1e-5:
            continue
        moved = replace(plain, values=plain.values + 1e8, lower=plain.lower + 1e8, upper=plain.upper + 1e8)
        # The table is rounded by 1.5e-8 when the offset is added, so levels may move by about as much.
        a, b = optimise(plain), optimise(moved)
        assert a.status is b.status
        if a.status is Status.OPTIMAL:
            compared += 1
            assert b.levels - 1e8 == pytest.approx(a.levels, abs=1e-6)
    assert compared > 20


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6, 1e8])
def test_an_offset_does_not_falsify_the_proof(joint: bool, offset: float) -> None:
    """What the residual and the error bound say holds for the table as it is, offset and all."""
    for rng in many(99, 12):
        p = planted(rng, shape="normal", heat=1.0, joint=joint).problem
        by = offset * spread(p)
        moved = replace(p, values=p.values + by, lower=p.lower + by, upper=p.upper + by)
        found = optimise(moved)
        assert found.status is Status.OPTIMAL
        check(moved, found)


def shuffled(p: Problem, rng: np.random.Generator) -> Problem:
    """The same pilot with prompts, and candidates inside prompts, in another order."""
    order = rng.permutation(len(p.weights))
    rows = [rng.permutation(np.arange(p.starts[g], p.starts[g + 1])) for g in order]
    starts = np.append(0, np.cumsum(p.sizes[order]))
    return replace(p, values=p.values[np.concatenate(rows)], starts=starts, weights=p.weights[order])


def doubled(p: Problem, *, prompts: bool) -> Problem:
    """Every candidate twice in its prompt, or every prompt twice at half its weight."""
    if prompts:
        starts = np.append(p.starts, p.starts[-1] + p.starts[1:])
        return replace(p, values=np.tile(p.values, (2, 1)), starts=starts, weights=np.tile(p.weights / 2, 2))
    rows = np.concatenate([np.tile(np.arange(a, b), 2) for a, b in zip(p.starts, p.starts[1:], strict=False)])
    return replace(p, values=p.values[rows], starts=2 * p.starts)


def test_order_and_duplication_do_not_matter() -> None:
    for rng in many(73, 60):
        p = random_palette(rng)
        if abs(oracles.margin(p)) < 1e-6:
            continue
        found = optimise(p)
        same(p, found, optimise(shuffled(p, rng)))
        same(p, found, optimise(doubled(p, prompts=True)))
        same(p, found, optimise(doubled(p, prompts=False)))


# ---- constant, collinear, implied


def with_column(p: Problem, column: np.ndarray, lower: float, upper: float) -> Problem:
    return replace(
        p,
        values=np.column_stack([p.values, column]),
        lower=np.append(p.lower, lower),
        upper=np.append(p.upper, upper),
    )


@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e30, 1e99])
def test_a_constant_is_decided_to_the_last_bits_in_any_units(level: float) -> None:
    near, far = level * (1 + 1e-15), (level or 1e-9) * (1 + 1e-12)
    for bound, status in ((near, Status.OPTIMAL), (far, Status.INFEASIBLE), (far * 1e6, Status.INFEASIBLE)):
        values = np.column_stack([np.full(4, level), [0.0, 1.0, 2.0, 5.0]])
        found = optimise(problem(values, [2, 2], [bound, 2.5]))
        assert found.status is status
        if found.certificate is not None:
            assert found.certificate.direction.tolist() == [1.0, 0.0]
            assert found.certificate.gap == pytest.approx(bound - level, rel=1e-9, abs=1e-14 * level)


def test_a_bound_that_is_the_base_level_but_for_rounding_is_the_base_level() -> None:
    p = problem(1e8 + np.array([0.0, 0.0, 0.25, 0.25, 0.0, 0.5, 0.0, 0.5]), [4, 4], 0.0)
    base = groups(p).base
    for bound in (base, np.nextafter(base, INF), np.nextafter(base, -INF)):
        # One candidate leaves no choice: what is above the base level by more than rounding cannot be had.
        assert optimise(replace(p, lower=bound), block=1).status is Status.OPTIMAL
    assert optimise(replace(p, lower=base + 1e-7), block=1).status is Status.INFEASIBLE


def test_a_constant_value_is_vacuous_or_impossible() -> None:
    for rng in many(74, 30):
        p = planted(rng, heat=1.0, joint=False).problem
        without = optimise(p)
        # Constant inside every prompt, though not between prompts; the base level summed in another order.
        level = rng.normal(size=len(p.weights)) * 3.7 + 0.1
        column, base = level[p.prompt], float(np.sum(level * p.weights))
        for low, high in ((base, INF), (-INF, base), (base, base), (base - 1, base + 1), (-INF, INF)):
            found = optimise(with_column(p, column, low, high))
            assert found.status is Status.OPTIMAL
            assert found.weights[-1] == 0.0
            assert found.levels[-1] == pytest.approx(base)
            assert found.weights[:-1] * spread(p) == pytest.approx(without.weights * spread(p), abs=1e-7)
        lost = with_column(p, column, base + 0.5, INF)
        check(lost, optimise(lost))
        assert optimise(lost).status is Status.INFEASIBLE
        assert optimise(with_column(p, column, -INF, base - 0.5)).status is Status.INFEASIBLE


def test_collinear_values_that_agree() -> None:
    """The same value twice in other units: levels are unique, and the smallest weights are returned."""
    for rng in many(75, 40):
        p = planted(rng, heat=1.0).problem
        without = optimise(p)
        column = 3.0 * p.values[:, 0] + 2.0
        twice = with_column(p, column, 3.0 * p.lower[0] + 2.0, 3.0 * p.upper[0] + 2.0)
        found = optimise(twice)
        assert found.status is Status.OPTIMAL
        assert violation(twice, found.weights) <= 2e-9
        same(p, without, replace(found, levels=found.levels[:-1]))
        unit = spread(twice)
        standard = found.weights * unit
        # Minimum norm: the two carry equal standardised weight.
        assert standard[0] == pytest.approx(standard[-1], abs=1e-6)
        assert standard[0] + standard[-1] == pytest.approx(without.weights[0] * spread(p)[0], abs=1e-6)


def test_collinear_values_that_do_not_agree() -> None:
    for rng in many(76, 40):
        p = planted(rng, heat=1.0).problem
        level = float(tilt(p, np.zeros(p.features)).levels[0])
        for by in (0.01, 1.0):
            step = by * float(spread(p)[0])
            wanted = replace(
                p, lower=np.where(np.arange(p.features) == 0, level + step, p.lower), upper=p.upper
            )
            wanted = replace(wanted, upper=np.where(np.arange(p.features) == 0, INF, wanted.upper))
            lost = with_column(wanted, -p.values[:, 0], -level, INF)
            found = optimise(lost)
            assert found.status is Status.INFEASIBLE
            check(lost, found)


def test_a_sum_of_the_others_is_collinear() -> None:
    for rng in many(77, 30):
        p = random_palette(rng, features=3, prompts=12, push=0.1)
        if abs(oracles.margin(p)) < 1e-6:
            continue
        column = p.values @ np.array([1.0, -2.0, 0.5])
        at = float(tilt(p, 0.3 * np.ones(3) / spread(p)).levels @ np.array([1.0, -2.0, 0.5]))
        wide = with_column(p, column, at, INF)
        if abs(oracles.margin(wide)) < 1e-6:
            continue
        found = optimise(wide)
        want = verdict(wide)
        assert want in ("either", NAME[found.status])
        if found.status is Status.OPTIMAL:
            assert violation(wide, found.weights) <= 2e-9


def test_implied_equalities_have_an_optimum() -> None:
    """r ≥ c with −r ≥ −c leaves no slack, but weights exist all the same."""
    for rng in many(78, 40):
        p = planted(rng, heat=1.0).problem
        level = float(tilt(p, 0.5 * rng.normal(size=p.features) / spread(p)).levels[0])
        kept = replace(p, lower=np.full(p.features, -INF), upper=np.full(p.features, INF))
        kept = replace(kept, lower=np.append(level, kept.lower[1:]))
        tied = with_column(kept, -p.values[:, 0], -level, INF)
        found = judge(tied)
        assert found.status is Status.OPTIMAL
        assert found.levels[0] == pytest.approx(level)
        equal = optimise(replace(kept, upper=np.append(level, kept.upper[1:])))
        same(p, equal, replace(found, levels=found.levels[:-1]))


def test_bounds_that_cross_cannot_be_had() -> None:
    p = problem([0.0, 1.0, 2.0], [3], [1.2], [0.8])
    found = optimise(p)
    assert found.status is Status.INFEASIBLE
    assert found.certificate is not None
    assert found.certificate.gap > 0


# ---- theorem 4, and zero


def test_what_the_base_already_gives_costs_nothing() -> None:
    for rng in many(79, 60):
        p = pilot(rng)
        base, unit = tilt(p, np.zeros(p.features)).levels.astype(float), spread(p)
        slack = rng.choice([0.0, 0.1], size=p.features) * unit
        found = optimise(replace(p, lower=base - slack - 1e-12 * np.abs(base)))
        assert found.status is Status.OPTIMAL
        assert np.array_equal(found.weights, np.zeros(p.features))
        assert found.kl == pytest.approx(0.0, abs=1e-15)
    free = optimise(pilot(np.random.default_rng(0)))
    assert free.status is Status.OPTIMAL
    assert not free.weights.any()


def test_the_base_level_itself_is_kept_at_no_cost() -> None:
    """`keep` resolves to the base level as the package computes it: the weight must be exactly zero."""
    for rng in many(80, 60):
        p = pilot(rng)
        found = optimise(replace(p, lower=groups(p).base))
        assert found.status is Status.OPTIMAL
        assert np.array_equal(found.weights, np.zeros(p.features))
        assert found.kl == pytest.approx(0.0, abs=1e-15)


def test_asking_for_less_than_the_tolerance_does_not_prove_a_weight_of_zero() -> None:
    for rng in many(98, 20):
        p = pilot(rng, shape="normal")
        found = optimise(replace(p, lower=groups(p).base + 5e-10 * spread(p)))
        assert found.status is Status.OPTIMAL
        # The weights are about 5e-10: an error of zero would be false.
        assert np.all(found.error * spread(p) > 1e-10)


def test_lowering_a_bound_keeps_a_palette_reachable_and_cheaper() -> None:
    lowered = 0
    for rng in many(81, 80):
        p = random_palette(rng, push=0.1)
        found = optimise(p)
        if found.status is Status.INFEASIBLE:
            continue
        lowered += 1
        step = rng.uniform(0, 0.5, size=p.features) * spread(p)
        there = optimise(replace(p, lower=p.lower - step, upper=p.upper + rng.integers(2) * step))
        assert there.status is not Status.INFEASIBLE
        assert there.kl <= found.kl + 1e-9
    assert lowered > 30


def test_weights_that_do_not_bind_are_exactly_zero() -> None:
    zeros = 0
    for rng in many(82, 60):
        case = planted(rng)
        found = optimise(case.problem)
        loose = (case.weights == 0) & (case.problem.lower != case.problem.upper)
        assert np.array_equal(found.weights[loose], np.zeros(loose.sum()))
        zeros += int(loose.sum())
    assert zeros > 50


def test_the_covariance_is_the_response_of_the_weights_to_the_bounds() -> None:
    """dλ/dc = V⁻¹ on the bounds that bind, zero elsewhere (the paper has the sign reversed)."""
    for rng in many(83, 30):
        case = planted(rng, heat=0.5)
        p = case.problem
        found = optimise(p)
        active = np.flatnonzero(found.weights)
        if len(active) == 0:
            continue
        unit, i = spread(p), int(rng.choice(active))
        h = 1e-5 * unit[i] * np.eye(p.features)[i]
        ahead = optimise(replace(p, lower=p.lower + h, upper=p.upper + h))
        behind = optimise(replace(p, lower=p.lower - h, upper=p.upper - h))
        response = (ahead.weights - behind.weights) / (2 * h[i])
        inner = found.covariance[np.ix_(active, active)]
        want = np.zeros(p.features)
        want[active] = np.linalg.inv(inner / np.outer(unit[active], unit[active]))[:, active == i][:, 0]
        assert response * unit * unit[i] == pytest.approx(want, rel=1e-3, abs=1e-4 * np.abs(want).max())


# ---- certificates


def test_a_certificate_is_as_sharp_as_the_pilot_allows() -> None:
    seen = 0
    for rng in many(84, 80):
        p = random_palette(rng, push=1.0)
        found = optimise(p)
        if found.status is not Status.INFEASIBLE or np.any(p.lower > p.upper):
            continue
        check(p, found)
        best = -oracles.distance(p)
        assert found.certificate is not None
        size = float(np.abs(found.certificate.direction) @ spread(p))
        assert found.certificate.gap / size == pytest.approx(best, rel=0.01, abs=1e-6)
        seen += 1
    assert seen > 25


def test_the_standard_error_of_a_certificate_is_by_prompt() -> None:
    rng = np.random.default_rng(85)
    p = pilot(rng, prompts=30, candidates=6, features=3, joint=False, weighted=False, shape="effects")
    far = replace(p, lower=p.values.mean(axis=0) + 3 * p.values.std(axis=0))
    found = optimise(far)
    assert found.certificate is not None
    best = prompt_support(groups(p), found.certificate.direction)
    assert found.certificate.se == pytest.approx(best.std(ddof=1) / np.sqrt(30), rel=0.03)


# ---- k of K


def expected(p: Problem, weights: np.ndarray, k: int) -> np.ndarray:
    """The level of a decoder that draws k of the pilot's candidates, exactly."""
    return tilt(subsets(p, k), weights).levels.astype(float)


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_calibrated_weights_give_a_decoder_of_k_the_levels_asked(k: int) -> None:
    rng = np.random.default_rng([86, k])
    p = pilot(rng, prompts=250, candidates=8, features=2, joint=False, weighted=False, shape="effects")
    unit, base = spread(p), tilt(p, np.zeros(2)).levels.astype(float)
    p = replace(p, lower=base + np.array([0.3, 0.15]) * unit)
    found = optimise(p, block=k)
    assert found.status is Status.OPTIMAL
    assert found.levels == pytest.approx(p.lower)
    assert found.prompt_levels.shape == (250, 2)
    assert p.weights @ found.prompt_levels == pytest.approx(found.levels)
    assert found.base == pytest.approx(base)
    realised = (expected(p, found.weights, k) - p.lower) / unit
    assert realised == pytest.approx([0, 0], abs=0.01)
    if k < 4:
        short = (expected(p, optimise(p).weights, k) - p.lower) / unit
        assert short.min() < -0.03  # the weights of all eight would not do


def test_blocks_of_all_candidates_are_no_blocks() -> None:
    for rng in many(87, 20):
        p = random_palette(rng, prompts=5, candidates=6, joint=False)
        a, b = optimise(p), optimise(p, block=6)
        same(p, a, b)
        assert np.array_equal(a.weights, b.weights)


def test_what_the_base_gives_costs_nothing_at_any_k() -> None:
    for k in (1, 2, 3, 4, 5, 7):
        for rng in many(88, 10):
            p = pilot(rng, prompts=5, candidates=7, joint=False)
            found = optimise(replace(p, lower=groups(p).base), block=k)
            assert found.status is Status.OPTIMAL
            assert not found.weights.any()


def test_the_verdict_at_k_is_that_of_all_subsets_whatever_the_seed() -> None:
    """The blocks would say otherwise near the edge, and not always the same."""
    seen: Counter[Status] = Counter()
    for rng in many(89, 12):
        p = pilot(rng, prompts=4, candidates=6, joint=False, shape="normal", features=2)
        unit, base = spread(p), tilt(p, np.zeros(2)).levels.astype(float)
        for k in (2, 3):
            whole = subsets(replace(p, lower=base), k)
            reach = oracles.farthest(whole, unit)
            for share in (0.97, 0.995, 1.005, 1.03):
                near = replace(p, lower=base + share * reach * unit)
                status = {optimise(near, block=k, seed=seed).status for seed in range(3)}
                assert len(status) == 1
                seen.update(status)
                assert (Status.INFEASIBLE in status) == (share > 1)
                for found in (optimise(near, block=k),):
                    if found.certificate is not None:
                        d = found.certificate.direction
                        asks, best = oracles.asked(near, d), oracles.support(subsets(near, k), d)
                        assert asks > best
                        assert found.certificate.reach == pytest.approx(float(best), rel=1e-9)
    assert min(seen[Status.OPTIMAL], seen[Status.INFEASIBLE]) > 10


def test_on_the_boundary_at_k_the_levels_are_those_of_all_subsets() -> None:
    """The face is that of random blocks, whose best is not quite that of all k-subsets."""
    p = pilot(np.random.default_rng(2), prompts=30, candidates=8, joint=False, shape="normal", features=3)
    first = np.array([1.0, 0.0, 0.0])
    best = float(oracles.support(subsets(p, 3), first))
    edge = replace(p, lower=np.where(first > 0, best, -np.inf))
    for seed in range(4):
        found = optimise(edge, block=3, seed=seed)
        assert found.status is Status.BOUNDARY
        assert found.levels[0] == pytest.approx(best, abs=1e-9)
        assert p.weights @ found.prompt_levels == pytest.approx(found.levels)


def test_a_block_larger_than_a_prompt_is_refused() -> None:
    p = problem([0.0, 1.0, 0.0, 1.0, 2.0], [2, 3], [0.8])
    with pytest.raises(ValueError, match="3"):
        optimise(p, block=3)
    with pytest.raises(ValueError):
        optimise(p, block=0)


def test_the_seed_decides_the_blocks_and_nothing_else() -> None:
    rng = np.random.default_rng(90)
    p = pilot(rng, prompts=40, candidates=8, joint=False, features=2, shape="normal")
    p = replace(p, lower=groups(p).base + 0.2 * spread(p))
    a, b, c = (optimise(p, block=4, seed=s) for s in (0, 0, 1))
    assert np.array_equal(a.weights, b.weights)
    assert not np.array_equal(a.weights, c.weights)
    assert a.levels == pytest.approx(c.levels)
    assert np.array_equal(optimise(p, seed=0).weights, optimise(p, seed=5).weights)


# ---- a decoder


def simulate(rng: np.random.Generator, prompts: int, candidates: int) -> np.ndarray:
    """Answers of a made-up model: two correlated, skewed values whose mean and spread depend on the prompt."""
    skill = rng.normal(size=(prompts, 1, 2))
    width = np.exp(0.3 * rng.normal(size=(prompts, 1, 1)))
    noise = rng.normal(size=(prompts, candidates, 2))
    first = noise[..., 0]
    second = 0.5 * np.exp(0.6 * (0.5 * first + noise[..., 1])) - 0.3 * first
    return skill + width * np.stack([first, second], axis=-1)


def decode(rng: np.random.Generator, weights: np.ndarray, k: int, prompts: int) -> np.ndarray:
    """Gains over a random candidate, one row per fresh prompt: k candidates, one drawn by softmax(λᵀr)."""
    drawn = simulate(rng, prompts, k)
    score = drawn @ weights
    law = np.exp(score - score.max(axis=1, keepdims=True))
    law /= law.sum(axis=1, keepdims=True)
    pick = (law.cumsum(axis=1) > rng.random((prompts, 1))).argmax(axis=1)
    return drawn[np.arange(prompts), pick] - drawn.mean(axis=1)


@pytest.mark.parametrize("k", [2, 4, 8, 16])
def test_a_simulated_decoder_realises_the_levels(k: int) -> None:
    rng = np.random.default_rng([91, k])
    prompts, candidates, fresh = 3_000, 16, 100_000
    table = simulate(rng, prompts, candidates)
    base = table.mean(axis=(0, 1))
    p = problem(table.reshape(-1, 2), np.full(prompts, candidates), base + np.array([0.2, 0.1]))
    found = optimise(p, block=k)
    assert found.status is Status.OPTIMAL
    gains = found.prompt_levels - table.mean(axis=1)

    def standardised(weights: np.ndarray) -> np.ndarray:
        got = decode(rng, weights, k, fresh)
        se = np.sqrt(got.var(axis=0) / fresh + gains.var(axis=0) / prompts)
        assert se.max() < 0.02
        return (got.mean(axis=0) - (found.levels - found.base)) / se

    assert np.abs(standardised(found.weights)).max() < 4
    if k < 16:
        all_of_them = optimise(p, block=16)
        assert standardised(all_of_them.weights).min() < -4  # weights made for sixteen fall short


def test_joint_weights_promise_more_than_a_decoder_delivers() -> None:
    """Half of the spread lies between the prompts, which no decoder can move."""
    rng = np.random.default_rng(92)
    table = rng.normal(size=(2_000, 1)) + rng.normal(size=(2_000, 8))
    p = problem(table.reshape(-1), np.full(2_000, 8), [table.mean() + 0.5 * table.std()], joint=True)
    promised = optimise(p)
    delivered = tilt(replace(p, joint=False), promised.weights).levels
    assert promised.levels == pytest.approx(p.lower)
    assert float(delivered[0] - table.mean()) < 0.6 * 0.5 * table.std()


# ---- the checks can fail


def test_a_perturbed_answer_does_not_pass() -> None:
    for rng in many(93, 20):
        case = planted(rng, heat=1.0)
        found = optimise(case.problem)
        if not found.weights.any():
            continue
        step = 1e-6 / spread(case.problem) * (found.weights != 0)
        for wrong in (
            replace(found, weights=found.weights + step),
            replace(found, levels=found.levels + 1e-6 * spread(case.problem)),
            replace(found, kl=found.kl + 1e-6),
            replace(found, status=Status.BOUNDARY),
            replace(found, status=Status.INFEASIBLE),
        ):
            with pytest.raises(AssertionError):
                check(case.problem, wrong)


def test_a_false_certificate_does_not_pass() -> None:
    p = problem([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [3], [0.9, 1.1])
    found = optimise(p)
    check(p, found)
    assert found.certificate is not None
    for wrong in (
        replace(found.certificate, direction=-found.certificate.direction),
        replace(found.certificate, direction=np.array([1.0, 0.0])),
        replace(found.certificate, reach=found.certificate.reach - 0.05),
        replace(found.certificate, gap=2 * found.certificate.gap),
    ):
        with pytest.raises(AssertionError):
            check(p, replace(found, certificate=wrong))


# ---- arguments


def test_numbers_that_are_none_are_refused() -> None:
    for bad in (np.nan, np.inf):
        p = problem([0.0, bad], [2], [0.3])
        with pytest.raises(ValueError, match="values"):
            optimise(p)


@pytest.mark.parametrize(("lower", "upper"), [(INF, INF), (-INF, -INF)])
def test_bounds_are_infinite_only_where_nothing_is_asked(lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match=r"lower|upper"):
        optimise(problem([0.0, 1.0], [2], [lower], [upper]))


def test_arguments_are_named_in_errors() -> None:
    p = problem([[0.0, 0.0], [1.0, 1.0]], [2], [0.5, 0.5])
    with pytest.raises(ValueError, match="lower"):
        dual.optimise(groups(p), np.array([0.5]), p.upper)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        dual.optimise(groups(p), np.array([0.5, np.nan]), p.upper)
    with pytest.raises(ValueError, match="block"):
        dual.optimise(groups(p), p.lower, p.upper, joint=True, block=2)


# ---- long


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_fuzz(part: int) -> None:
    for rng in many(9_000 + part, 300):
        p = random_palette(rng)
        judge(p)
        try:
            target = float(rng.choice([1, -1]) * 10.0 ** rng.uniform(-7, -1))
            judge(at_margin(p, target))
        except ValueError:
            continue


@pytest.mark.slow
def test_fuzz_the_boundary() -> None:
    for rng in many(95, 600):
        features, prompts = int(rng.integers(1, 5)), int(rng.choice([1, 2, 4, 8, 16]))
        found = judge(lattice(rng, joint=bool(rng.integers(2)), prompts=prompts, features=features))
        assert found.status is Status.BOUNDARY


@pytest.mark.slow
@pytest.mark.extra("cvxpy")
def test_fuzz_against_the_cone_solver() -> None:
    for rng in many(96, 600):
        case = planted(rng)
        found, other = optimise(case.problem), cone(case.problem)
        if other.solved:
            assert found.kl == pytest.approx(other.kl, abs=1e-8)


def test_the_source_of_a_solution_is_the_one_that_was_tested() -> None:
    """Levels at k are those of the blocks that `tilted` cuts."""
    rng = np.random.default_rng(97)
    p = pilot(rng, prompts=40, candidates=7, joint=False, features=2, shape="normal")
    p = replace(p, lower=groups(p).base + 0.2 * spread(p))
    found = optimise(p, block=3, seed=4)
    unit = spread(p)
    at = tilted(groups(p), unit, block=3, seed=4).pass_(found.weights * unit)
    assert at.levels * unit + found.base == pytest.approx(found.levels)
