"""Descriptions against hand-worked numbers, brute force and the published table."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from helpers import SHARED, needs_shared
from valuepalette.describing import _numbers, describe
from valuepalette.grouping import Groups
from valuepalette.pilot import Pilot
from valuepalette.tilting import prompt_support


def random_groups(sizes: list[int], columns: int = 3, seed: int = 0) -> Groups:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shift = np.repeat(rng.normal(size=(len(sizes), columns)), sizes, axis=0)
    weights = rng.uniform(0.5, 2, len(sizes))
    return Groups(rng.normal(size=(starts[-1], columns)) + shift, starts, weights / weights.sum())


def test_by_hand() -> None:
    """Two prompts of two: means 1 and 4, deviations 1, so half of 13/4 … within is 1 of 1 + 9/4."""
    groups = Groups(np.array([[0.0], [2.0], [3.0], [5.0]]), np.array([0, 2, 4]), np.array([0.5, 0.5]))
    described = describe(groups, ["humor"])
    assert described.mean == 2.5
    assert described.sd == pytest.approx(np.sqrt(13 / 4))
    assert described.within == pytest.approx(4 / 13)
    assert (described.minimum, described.maximum) == (0, 5)
    assert described.ks == (2,)
    assert (described.lowest[0, 0], described.highest[0, 0]) == (1.5, 3.5)
    assert described.quantiles[2, 0] == 2.5


@pytest.mark.parametrize("k", [2, 4, 5])
def test_reach_is_the_mean_over_all_subsets(k: int) -> None:
    groups = random_groups([5, 5, 5])
    described = describe(groups, list("abc"))
    assert described.ks == (2, 4, 5)
    planes = groups.values.reshape(3, 5, 3)
    for best, found in ((np.max, described.highest), (np.min, described.lowest)):
        subsets = [best(planes[:, list(chosen)], axis=1) for chosen in combinations(range(5), k)]
        assert found[described.ks.index(k)] == pytest.approx(groups.weights @ np.mean(subsets, axis=0))


def test_reach_is_the_support_function_of_the_solver() -> None:
    groups = random_groups([7, 4, 5, 9, 4])
    described = describe(groups, list("abc"))
    assert described.ks == (2, 4, None)
    for row, k in enumerate(described.ks):
        for i, direction in enumerate(np.eye(3)):
            assert described.highest[row, i] == pytest.approx(
                groups.weights @ prompt_support(groups, direction, k)
            )
            assert described.lowest[row, i] == pytest.approx(
                -groups.weights @ prompt_support(groups, -direction, k)
            )


def test_moments_are_weighted_by_prompt() -> None:
    groups = random_groups([1, 2, 6])
    described = describe(groups, list("abc"))
    weights = np.repeat(groups.weights / groups.sizes, groups.sizes)
    mean = weights @ groups.values
    centred = groups.values - mean
    covariance = centred.T @ (centred * weights[:, None])
    scale = np.sqrt(np.diag(covariance))
    assert described.mean == pytest.approx(mean)
    assert described.sd == pytest.approx(scale)
    assert described.correlation == pytest.approx(covariance / np.outer(scale, scale))
    inside = groups.values - np.repeat(groups.means, groups.sizes, axis=0)
    within = inside.T @ (inside * weights[:, None])
    assert described.within == pytest.approx(np.diag(within) / np.diag(covariance))
    scale = np.sqrt(np.diag(within))
    assert described.correlation_within == pytest.approx(within / np.outer(scale, scale))


def test_candidate_counts() -> None:
    def ks(*sizes: int) -> tuple[int | None, ...]:
        return describe(random_groups([*sizes]), list("abc")).ks

    assert ks(1, 1) == ()
    assert ks(1, 2) == (None,)
    assert ks(2, 2) == (2,)
    assert ks(3, 3) == (2, 3)
    assert ks(16, 16) == (2, 4, 8, 16)
    assert ks(16, 17) == (2, 4, 8, 16, None)


def test_a_constant_has_no_spread_to_share() -> None:
    values = np.full((4, 2), 1e8 + 0.1)
    values[:, 1] = [0, 1, 0, 1]
    described = describe(Groups(values, np.array([0, 2, 4]), np.array([0.5, 0.5])), ["flat", "odd"])
    assert described.sd.tolist() == [0, 0.5]
    assert np.isnan(described.within[0])
    assert np.isnan(described.correlation[0]).all()
    assert described.correlation[1, 1] == 1
    assert "–" in str(described)


def test_it_prints_like_this() -> None:
    groups = Groups(
        np.array([[0.0, -1e-5], [2.0, 0], [3.0, 123456.0], [5.0, 0]]),
        np.array([0, 2, 4]),
        np.array([0.5, 0.5]),
    )
    described = describe(groups, ["humor", "a name longer than its column"], blank=1, truncated=1200)
    assert str(described) == EXPECTED
    assert repr(described) == EXPECTED


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ([-99.9994, 0.0001], [" -99.999", "   0.000"]),
        ([-99_999.4, -0.2], ["  -99999", "       0"]),
        ([-1.234e-3, 0.0], [" -1.2e-3", "       0"]),
        ([-1.234e12, 2e100], [" -1.2e12", " 2.0e100"]),
        ([-1.5e-120], [" -2e-120"]),
    ],
)
def test_numbers_take_eight_characters(numbers: list[float], texts: list[str]) -> None:
    assert _numbers(numbers) == [f"{text:>8}" for text in texts]
    assert all(text.startswith(" ") for text in _numbers(numbers))


EXPECTED = """\
4 rows, 2 prompts, 2 candidates each; weighted by prompts
responses: 1 blank, 1,200 cut at the token limit

value                 mean      sd     min     q10     q25     q50     q75     q90     max  within
humor                2.500   1.803   0.000   0.600   1.500   2.500   3.500   4.400   5.000     31%
a name longer th…    30864   53458       0       0       0       0   30864   86419  123456     67%
within: the share of the variance that lies between answers to one prompt; min, max: over all rows

Reach of one value alone, lowest and highest, choosing among k candidates of a prompt
value                        k = 2
humor                1.500   3.500
a name longer th…        0   61728

Correlation: below the diagonal over all rows, above it within prompts
value                  1     2
1 humor                · -0.71
2 a name longer …   0.16     ·"""


@pytest.mark.parametrize("count", [0, 1, 6, 30])
def test_it_fits_a_hundred_columns(count: int) -> None:
    rng = np.random.default_rng(0)
    names = [f"a value with a long name {i}" for i in range(count)]
    values = rng.normal(size=(256, count)) * 10.0 ** rng.integers(-9, 9, count)
    described = describe(
        Groups(values, np.arange(0, 257, 128), np.array([0.5, 0.5])), names, weighting="rows"
    )
    lines = str(described).splitlines()
    assert max(map(len, lines)) <= 100
    assert all(len(line.split()) > 1 for line in lines if line)


def test_a_pilot_without_values_says_so() -> None:
    described = Pilot.from_arrays({}, prompt_id=[0, 0, 1]).describe()
    assert "no values" in str(described)
    assert described.candidates == (1, 2)


@needs_shared
@pytest.mark.parametrize(
    ("file", "blank", "means", "sds", "maxima"),
    [
        (
            "pilot-opt1.3b-anthropic.parquet",
            1,
            [2.070340, -1.471347, 0.245212, 0.876293, 0.433845, -3.336730],
            [1.0277, 1.0357, 1.1768, 0.1040, 0.1813, 0.5181],
            [2.606, 2.159, 3.595, 0.970, 0.935, -1.410],
        ),
        (
            "pilot-llama2chat-anthropic.parquet",
            20,
            [0.604148, -1.010978, 1.248416, 0.847935, 0.521142, -1.374731],
            [1.7719, 1.1094, 1.1104, 0.1193, 0.1768, 0.4474],
            [2.587, 2.816, 4.246, 0.969, 0.945, -0.555],
        ),
    ],
)
def test_the_papers_pilots(
    file: str, blank: int, means: list[float], sds: list[float], maxima: list[float]
) -> None:
    pilot = Pilot.read(SHARED / file)
    described = pilot.describe(weighting="rows")
    assert (described.rows, described.prompts, described.candidates) == (2312, 2178, (1, 3))
    assert described.blank == blank
    assert described.truncated is None
    assert described.mean == pytest.approx(means, abs=5e-7)
    assert described.sd == pytest.approx(sds, abs=6e-4)
    assert described.maximum == pytest.approx(maxima, abs=6e-4)
    assert described.quantiles == pytest.approx(np.quantile(pilot.array, described.probabilities, axis=0))
    assert described.correlation == pytest.approx(np.corrcoef(pilot.array.T))
