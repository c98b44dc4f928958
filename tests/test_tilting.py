from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import Problem, largest_of_subset, spread, subsets, support, tilt
from problems import groups, many, pilot
from valuepalette import grouping, tilting
from valuepalette.grouping import Groups
from valuepalette.laying import tilted
from valuepalette.tilting import Tilted, prompt_support, subset_weights


def source(p: Problem, **cut: int) -> Tilted:
    return tilted(groups(p), spread(p), joint=p.joint, **cut)


def compare(p: Problem, weights: np.ndarray, tolerance: float = 1e-12) -> None:
    """One pass at `weights`, given in standard units, against extended precision."""
    unit = spread(p)
    got, want = source(p).pass_(weights), tilt(p, weights / unit)
    base = tilt(p, np.zeros(p.features)).levels
    size = 1 + np.abs(weights).sum()
    assert got.levels == pytest.approx(((want.levels - base) / unit).astype(float), abs=tolerance * size)
    assert got.covariance == pytest.approx(
        (want.covariance / np.outer(unit, unit)).astype(float), abs=tolerance * size * 10
    )
    shift = float(weights / unit @ base)
    assert got.log_partition == pytest.approx(float(want.log_partition) - shift, abs=tolerance * size)
    assert got.support == pytest.approx(float(support(p, weights / unit)) - shift, abs=1e-11 * size)


def test_one_pass_by_hand() -> None:
    """Two prompts, rewards 0 and 1 against 0 and 3, weight log 2: levels 2/3 and 3 · 8/9."""
    table = Groups(np.array([[0.0], [1.0], [0.0], [3.0]]), np.array([0, 2, 4]), np.array([0.25, 0.75]))
    got = tilted(table, np.ones(1)).pass_(np.array([np.log(2.0)]))
    levels = 0.25 * 2 / 3 + 0.75 * 8 / 3
    base = 0.25 * 0.5 + 0.75 * 1.5
    assert got.levels[0] == pytest.approx(levels - base)
    assert got.covariance[0, 0] == pytest.approx(0.25 * 2 / 9 + 0.75 * 9 * 8 / 81)
    centred = 0.25 * np.log(1.5) + 0.75 * np.log(4.5) - np.log(2.0) * base
    assert got.log_partition == pytest.approx(centred)
    assert got.support == pytest.approx(np.log(2.0) * (0.25 * 1 + 0.75 * 3 - base))


def test_one_pass_equals_extended_precision() -> None:
    for rng in many(11, 120):
        p = pilot(rng)
        compare(p, rng.normal(size=p.features) * rng.choice([0.0, 0.1, 1.0, 10.0]))


def test_weights_of_any_size_neither_overflow_nor_lose_the_covariance() -> None:
    for rng in many(12, 40):
        p = pilot(rng)
        for heat in (1e2, 1e4, 1e8):
            got = source(p).pass_(heat * rng.normal(size=p.features))
            assert np.isfinite(got.levels).all()
            assert np.isfinite([got.log_partition, got.support]).all()
            assert np.linalg.eigvalsh(got.covariance).min() >= -1e-12 * np.abs(got.covariance).max()
    # At the end of the tilt the second-best candidate still shows, as far as doubles go: 1e-30 of the weight.
    p = Problem(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1), np.zeros(1), np.ones(1))
    weight = np.array([30 * np.log(10.0)])
    assert tilted(groups(p), np.ones(1)).pass_(weight).covariance[0, 0] == pytest.approx(1e-30, rel=1e-9)


@pytest.mark.parametrize("joint", [False, True])
def test_chunks_make_no_difference(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks: within a long prompt, across prompts, one row left over."""
    rng = np.random.default_rng(13)
    sizes = np.array([1, 70, 3, 3, 129, 3, 64, 65, 1, 2])
    table = rng.normal(size=(sizes.sum(), 3)) * [1.0, 50.0, 0.1] + 4.0
    share = rng.dirichlet(np.ones(len(sizes)))
    p = Problem(table, np.append(0, np.cumsum(sizes)), share, np.zeros(3), np.ones(3), joint=joint)
    weights = np.array([1.0, -2.0, 0.5])
    whole = source(p)
    for rows in (64, 10, 3):
        monkeypatch.setattr(grouping, "CELLS", 3 * rows)
        compare(p, weights)
        cut = source(p)
        assert len(cut.chunks) > len(whole.chunks)
        assert cut.support(weights)[0] == pytest.approx(whole.support(weights)[0])
        assert cut.support(weights)[1] == pytest.approx(whole.support(weights)[1])
        assert cut.row_weights(weights) == pytest.approx(whole.row_weights(weights))
        assert cut.kish(weights) == pytest.approx(whole.kish(weights))
        assert cut.diameters() == pytest.approx(whole.diameters())
        a, b = cut.face(weights, 0.3), whole.face(weights, 0.3)
        assert a.pass_(weights).levels == pytest.approx(b.pass_(weights).levels)
        assert a.pass_(weights).log_partition == pytest.approx(b.pass_(weights).log_partition)
        if not joint:
            near = pytest.approx(whole.subset_support(weights, 1)[1], abs=1e-12)
            assert cut.subset_support(weights, 1)[1] == near


@pytest.mark.parametrize("joint", [False, True])
def test_the_number_of_threads_changes_no_digit(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pilot(np.random.default_rng(27), prompts=400, joint=joint, features=3)
    weights = np.array([1.0, -2.0, 0.5])
    monkeypatch.setattr(grouping, "CELLS", 30)
    monkeypatch.setattr(tilting.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(tilting, "THREADS", 1)
    alone = source(p).pass_(weights)
    for threads in (2, 3, 8):
        monkeypatch.setattr(tilting, "THREADS", threads)
        shared = source(p).pass_(weights)
        assert (shared.log_partition, shared.support) == (alone.log_partition, alone.support)
        assert np.array_equal(shared.levels, alone.levels)
        assert np.array_equal(shared.covariance, alone.covariance)


@pytest.mark.parametrize("joint", [False, True])
def test_more_rows_than_a_chunk_holds(joint: bool) -> None:
    rng = np.random.default_rng(14)
    sizes = np.array([20_000, 7, 7, 1, 9_000])
    p = Problem(
        rng.normal(size=(sizes.sum(), 2)),
        np.append(0, np.cumsum(sizes)),
        np.full(5, 0.2),
        np.zeros(2),
        np.ones(2),
        joint=joint,
    )
    compare(p, np.array([1.5, -0.7]))


def test_row_weights_are_the_law_of_the_tilted_model() -> None:
    for rng in many(15, 30):
        p = pilot(rng)
        weights = rng.normal(size=p.features)
        want = tilt(p, weights / spread(p))
        rows = source(p).row_weights(weights)
        assert rows == pytest.approx((p.share[p.group] * want.probabilities).astype(float), abs=1e-13)
        square = np.bincount(p.group, (want.probabilities**2).astype(float))
        assert source(p).kish(weights) == pytest.approx(float(p.share @ (1 / square)), rel=1e-10)


def test_support_and_the_point_that_attains_it() -> None:
    for rng in many(16, 40):
        p = pilot(rng)
        d = rng.normal(size=p.features)
        unit = spread(p)
        base = tilt(p, np.zeros(p.features)).levels
        value, point = source(p).support(d)
        assert value == pytest.approx(float(support(p, d / unit) - d / unit @ base), abs=1e-10)
        assert value == pytest.approx(d @ point)
        # The point is reachable: no other direction separates it.
        for _ in range(10):
            other = rng.normal(size=p.features)
            assert other @ point <= source(p).support(other)[0] + 1e-10


def test_diameters_are_those_of_the_widest_group() -> None:
    for rng in many(17, 20):
        p = pilot(rng)
        want = [max(np.ptp(p.values[p.group == g, i]) for g in np.unique(p.group)) for i in range(p.features)]
        assert source(p).diameters() == pytest.approx(want / spread(p))


def test_a_face_keeps_the_best_candidates_of_every_group() -> None:
    values = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 0.0], [5.0, 5.0], [5.0, 4.0]])
    table = Groups(values, np.array([0, 4, 6]), np.array([0.5, 0.5]))
    whole = tilted(table, np.ones(2))
    kept = whole.face(np.array([1.0, 1.0]), 1e-9)
    weights = kept.row_weights(np.zeros(2))
    assert weights == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0, 0.5, 0])
    # Three of four, then one of two: the base weights are not renormalised, so F carries what was given up.
    assert kept.pass_(np.zeros(2)).log_partition == pytest.approx(0.5 * np.log(0.75) + 0.5 * np.log(0.5))
    further = kept.face(np.array([1.0, 0.0]), 1e-9)
    assert further.row_weights(np.zeros(2)) == pytest.approx([0.5, 0, 0, 0, 0.5, 0])
    assert further.support(np.array([0.0, 1.0]))[1] == pytest.approx([3.5 - 2.875, 2.5 - 2.625])
    assert kept.diameters() == pytest.approx([2.0, 2.0])


def test_an_offset_of_1e8_costs_only_the_digits_it_must() -> None:
    for rng in many(18, 20):
        p = pilot(rng, shape="normal")
        unit = spread(p)
        plain = replace(p, values=p.values / unit)
        moved = replace(plain, values=plain.values + 1e8)
        weights = rng.normal(size=p.features)
        a, b = source(plain).pass_(weights), source(moved).pass_(weights)
        assert b.levels == pytest.approx(a.levels, abs=1e-6)
        assert b.log_partition == pytest.approx(a.log_partition, abs=1e-6)


# ---- k of K


@pytest.mark.parametrize("size", range(1, 9))
def test_subset_weights_by_counting(size: int) -> None:
    for k in range(1, size + 1):
        assert subset_weights(size, k) == pytest.approx(largest_of_subset(k, size), abs=1e-15)


@pytest.mark.parametrize(("size", "k"), [(100_000, 2), (100_000, 50_000), (5_000, 5_000), (64, 1)])
def test_subset_weights_do_not_overflow(size: int, k: int) -> None:
    weights = subset_weights(size, k)
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)
    assert weights.min() >= 0
    assert weights[-1] == pytest.approx(k / size)


@pytest.mark.parametrize("k", [0, 5, -1])
def test_subset_weights_refuse_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=rf"between 1 and the 4 candidates of a prompt, got {k}"):
        subset_weights(4, k)


def test_the_support_at_k_is_the_mean_over_all_subsets() -> None:
    for rng in many(20, 20):
        p = pilot(rng, prompts=3, candidates=6, joint=False)
        d = rng.normal(size=p.features) / spread(p)
        for k in (1, 2, 3, 6):
            want = float(support(subsets(p, k), d))
            got = prompt_support(groups(p), d, k)
            assert got.shape == (3,)
            assert float(p.share @ got) == pytest.approx(want, rel=1e-11)
            base = tilt(p, np.zeros(p.features)).levels
            value, point = source(p).subset_support(d * spread(p), k)
            assert value == pytest.approx(want - float(d @ base), abs=1e-10)
            assert point @ (d * spread(p)) == pytest.approx(value)
        assert prompt_support(groups(p), d) == pytest.approx(prompt_support(groups(p), d, 6))


def test_the_support_at_k_of_ragged_prompts() -> None:
    rng = np.random.default_rng(21)
    p = pilot(rng, prompts=12, joint=False, shape="ties")
    k = int(p.sizes.min())
    d = rng.normal(size=p.features)
    got = prompt_support(groups(p), d, k)
    for g, size in enumerate(p.sizes):
        scores = np.sort(p.values[p.starts[g] : p.starts[g + 1]] @ d)
        assert got[g] == pytest.approx(scores @ largest_of_subset(k, int(size)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_the_support_at_k_grows_with_k_and_is_convex(size: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = pilot(rng, prompts=2, candidates=max(size, 2), features=1, joint=False)
    table, k = groups(p), min(k, size)
    d, e = rng.normal(size=(2, 1))
    if k > 1:
        assert np.all(prompt_support(table, d, k) >= prompt_support(table, d, k - 1) - 1e-9)
    middle = prompt_support(table, (d + e) / 2, k)
    assert np.all(middle <= (prompt_support(table, d, k) + prompt_support(table, e, k)) / 2 + 1e-9)


def test_blocks_of_everything_are_the_prompts_themselves() -> None:
    for rng in many(22, 10):
        p = pilot(rng, candidates=6, joint=False)
        weights = rng.normal(size=p.features)
        whole = source(p).pass_(weights)
        for seed in (0, 1):
            assert source(p, block=6, seed=seed).pass_(weights).levels == pytest.approx(whole.levels)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_blocks_leave_the_base_where_it_is(k: int) -> None:
    """Leftovers (k not dividing K) must not move it, or 'keep' would have a weight."""
    for rng in many(23, 8):
        p = pilot(rng, prompts=5, candidates=7, joint=False)
        at = source(p, block=k, seed=3).pass_(np.zeros(p.features))
        assert at.levels == pytest.approx(np.zeros(p.features), abs=1e-14)
        assert at.log_partition == pytest.approx(0.0, abs=1e-14)


def test_blocks_are_disjoint_and_a_prompt_keeps_its_weight() -> None:
    p = pilot(np.random.default_rng(24), prompts=4, candidates=8, joint=False, weighted=True)
    cut = source(p, block=3, partitions=1)
    rows = cut.row_weights(np.zeros(p.features)).reshape(4, 8)
    assert rows.sum(axis=1) == pytest.approx(p.weights)
    for row, share in zip(rows, p.weights, strict=True):  # two blocks of three, two candidates left over
        assert sorted(row / share) == pytest.approx([0, 0] + [1 / 6] * 6)


def test_blocks_follow_from_the_seed() -> None:
    p = pilot(np.random.default_rng(25), prompts=4, candidates=8, joint=False)
    weights = np.ones(p.features)
    one, same, other = (source(p, block=2, seed=s).pass_(weights).levels for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_many_partitions_reach_the_exact_expectation_over_all_subsets() -> None:
    rng = np.random.default_rng(26)
    p = pilot(rng, prompts=3, candidates=5, features=2, joint=False, shape="normal", weighted=True)
    weights = np.array([1.5, -1.0])
    unit = spread(p)
    base = tilt(p, np.zeros(2)).levels
    for k in (2, 3):
        want = ((tilt(subsets(p, k), weights / unit).levels - base) / unit).astype(float)
        far = np.abs(tilt(p, weights / unit).levels.astype(float) - base - want * unit) / unit
        got = source(p, block=k, partitions=20_000).pass_(weights).levels
        assert got == pytest.approx(want, abs=4e-3)
        assert far.max() > 0.1  # the levels of all five candidates would not pass for these
