"""The sentence of a certificate is checked as a reader would check it: from its own words and figures."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from oracles import Problem, problem, subsets, support
from problems import asked as random_palette
from problems import groups, many
from valuepalette import dual
from valuepalette.certificates import certificate_sentence
from valuepalette.dual import Status
from valuepalette.features import Resolved

INF = np.inf
NAMES = ("humor", "tone", "care", "length", "wit", "calm")


def sentence(p: Problem, block: int | None = None, se: float = np.nan) -> str:
    found = dual.optimise(groups(p), p.lower, p.upper, joint=p.joint, block=block)
    assert found.status is Status.INFEASIBLE
    assert found.certificate is not None
    m = p.features
    none = np.zeros((len(p.weights), m))
    names = NAMES[:m]
    resolved = Resolved(names, p.lower, p.upper, found.base, ("",) * m, np.zeros((m, 101)), none, none)
    return certificate_sentence(groups(p), resolved, found.certificate, se, joint=p.joint, block=block)


# ---- by hand


def test_one_value_of_two_prompts() -> None:
    """The best answers have 1 and 3, the mean of which is 2."""
    p = problem([0.0, 1.0, 0.0, 3.0], [2, 2], [2.25])
    assert sentence(p) == (
        "Choosing among 2 candidates, on these 2 prompts, humor cannot average above 2.00; the palette asks 2.25. "
        "humor alone is beyond reach, which ends at 2.00: prompts differ, and even the best answer to each averages "
        "no more."
    )


def test_the_mirror_image_speaks_of_an_upper_bound() -> None:
    p = problem([0.0, -1.0, 0.0, -3.0], [2, 2], [-INF], [-2.25])
    said = sentence(p)
    assert "humor cannot average below -2.00; the palette asks -2.25." in said
    assert "which ends at -2.00: prompts differ" in said
    assert "no answer of the pilot is as low as -4.00." in sentence(replace(p, upper=np.array([-4.0])))


def test_a_level_that_no_answer_has() -> None:
    p = problem([0.0, 1.0, 0.0, 3.0], [2, 2], [3.5])
    assert sentence(p).endswith("which ends at 2.00: no answer of the pilot is as high as 3.50.")
    joint = replace(p, joint=True)
    assert sentence(joint) == (
        "Re-weighting these 4 answers, humor cannot average above 3.00; the palette asks 3.50. "
        "humor alone is beyond reach: no answer of the pilot is as high as 3.50."
    )


def test_a_value_that_nothing_moves() -> None:
    said = sentence(problem([2.0, 2.0, 2.0], [2, 1], [2.5]))
    assert "humor cannot average above 2.00; the palette asks 2.50." in said
    assert said.endswith("no answer of the pilot is as high as 2.50.")


def test_the_standard_error_is_said_where_there_is_one() -> None:
    p = problem([0.0, 1.0, 0.0, 3.0], [2, 2], [2.25])
    assert "asks 2.25 (standard error of the gap 0.12). humor" in sentence(p, se=0.123)
    assert "standard error" not in sentence(p, se=0.0)


def test_a_conflict_of_two_values() -> None:
    """One answer is funny, the other polite: no mixture is more than half of both."""
    p = problem([[0.0, 1.0], [1.0, 0.0]], [2], [0.6, 0.6])
    assert sentence(p) == (
        "Choosing among 2 candidates, on this one prompt, 0.5·humor + 0.5·tone cannot average above 0.50; "
        "the palette asks 0.60. Each value alone is within reach; together they conflict."
    )
    against = problem([[0.0, -1.0], [1.0, 0.0]], [2], [0.6, -INF], [INF, -0.6])
    assert "0.5·humor − 0.5·tone cannot average above 0.50; the palette asks 0.60." in sentence(against)


def test_bounds_that_cross() -> None:
    """d⁺ and d⁻ on one value cancel: there is no combination to speak of."""
    p = problem([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], [3], [0.1, 0.70004], [INF, 0.7])
    assert sentence(p) == "The bounds on tone contradict each other: at least 0.700040 and at most 0.700000."


def test_a_small_gap_is_told_with_the_digits_that_show_it() -> None:
    p = problem([0.0, 1.0, 0.0, 3.0], [2, 2], [2.0004])
    assert "above 2.00000; the palette asks 2.00040." in sentence(p)
    assert "which ends at 2.00000:" in sentence(p)


def test_a_limit_is_rounded_to_the_side_that_keeps_it_true() -> None:
    p = problem([0.0, 0.611, 0.0, 0.611], [2, 2], [1.0])
    assert "cannot average above 0.62; the palette asks 1.00." in sentence(p)
    down = problem([0.0, -0.611, 0.0, -0.611], [2, 2], [-INF], [-1.0])
    assert "cannot average below -0.62; the palette asks -1.00." in sentence(down)


# ---- k


def test_the_k_that_is_named_reaches_it_and_the_one_before_does_not() -> None:
    named = set()
    for rng in many(201, 30):
        table = rng.normal(size=(5, 8))
        whole = problem(table.reshape(-1), np.full(5, 8), [-INF])
        share = rng.uniform(0.3, 0.99)
        low = table.mean() + share * (table.max(axis=1).mean() - table.mean())
        p = replace(whole, lower=np.array([low]))
        reach = [float(support(subsets(p, k), [1.0])) for k in range(1, 9)]
        if reach[1] >= low:
            continue
        said = sentence(p, block=2)
        assert "Choosing among k = 2 of these 8 candidates" in said
        found = re.search(r"k is too small, k = (\d) would reach it", said)
        assert found is not None
        k = int(found[1])
        assert reach[k - 1] >= low > reach[k - 2]
        named.add(k)
    assert len(named) > 3


def test_no_k_is_named_where_none_would_do() -> None:
    p = problem([0.0, 1.0, 2.0, 0.0, 3.0, 0.0], [3, 3], [2.75])
    said = sentence(p, block=2)
    assert "would reach it" not in said
    assert "with k = 3 at 2.50: prompts differ" in said


def test_ragged_prompts_name_the_range_and_promise_no_more_than_the_smallest_has() -> None:
    p = problem([0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 1.0], [3, 4], [2.75])
    said = sentence(p, block=2)
    assert "k = 2 of these 3 to 4 candidates" in said
    most = float(support(subsets(p, 3), [1.0]))
    assert f"with k = 3 at {np.ceil(most * 100) / 100:.2f}:" in said


def test_a_conflict_at_k_that_all_candidates_resolve() -> None:
    p = problem([[0.0, 2.0], [2.0, 0.0], [1.0, 1.0], [1.4, 1.4]], [4], [1.25, 1.25])
    assert dual.optimise(groups(p), p.lower, p.upper).status is Status.OPTIMAL
    said = sentence(p, block=2)
    assert said.endswith("they conflict at k = 2; with all 4 candidates the palette can be had.")
    far = replace(p, lower=np.array([1.45, 1.45]))
    assert sentence(far, block=2).endswith("Each value alone is within reach; together they conflict.")


# ---- the sentence proves what it says


def direction(said: str, names: tuple[str, ...]) -> np.ndarray:
    what = re.search(r"(?:prompts?|answers), (.+) cannot average", said)
    assert what is not None
    d = np.zeros(len(names))
    if what[1] in names:
        d[names.index(what[1])] = -1.0 if "cannot average below" in said else 1.0
        return d
    for sign, size, name in re.findall(r"(−?) ?([0-9.e-]+)·(\w+)", what[1]):
        d[names.index(name)] = float(size) * (-1 if sign else 1)
    return d


@pytest.mark.parametrize("block", [None, 3])
def test_a_reader_can_check_the_figures(block: int | None) -> None:
    """Values whose units differ by up to 1e4: every feature that matters is named, whatever its unit."""
    seen = combined = 0
    for rng in many(202, 80):
        joint = block is None and bool(rng.integers(2))
        p = random_palette(rng, prompts=6, candidates=5, joint=joint, push=0.7, shape="normal")
        if np.any(p.lower > p.upper):
            continue
        found = dual.optimise(groups(p), p.lower, p.upper, joint=p.joint, block=block)
        if found.status is not Status.INFEASIBLE:
            continue
        said = sentence(p, block)
        d = direction(said, NAMES[: p.features])
        figures = re.search(r"cannot average \w+ (-?[0-9.]+); the palette asks (-?[0-9.]+[0-9])", said)
        assert figures is not None
        side = -1.0 if "below" in said else 1.0
        reach, asks = side * float(figures[1]), side * float(figures[2])
        last = 10.0 ** -len(figures[2].partition(".")[2])
        most = float(support(subsets(p, block) if block else p, d))
        assert reach - 1.01 * last <= most <= reach + 1e-9 * abs(reach)
        bound = np.where(d > 0, p.lower, np.where(d < 0, p.upper, 0.0))
        assert asks == pytest.approx(float(d @ bound), abs=0.51 * last)
        assert asks > reach
        seen += 1
        combined += np.count_nonzero(d) > 1
    assert seen > 15
    assert combined > 8
