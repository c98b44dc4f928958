"""The palette language: what it reads, what it refuses, and what each entry asks of a pilot."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers import SHARED, needs_shared
from valuepalette.features import Resolved
from valuepalette.grouping import Groups
from valuepalette.palette import Palette, parse
from valuepalette.quantities import quantile
from valuepalette.resolving import resolve


def groups(values, sizes, weights=None):
    sizes = np.asarray(sizes)
    weights = np.full(len(sizes), 1 / len(sizes)) if weights is None else np.asarray(weights, float)
    return Groups(np.asarray(values, float).reshape(sizes.sum(), -1), np.append(0, np.cumsum(sizes)), weights)


def bounds(entry, pilot, *, candidates=None, joint=False, scale="real"):
    """Lower, upper and their influences for one entry on a pilot of one value."""
    k = int(pilot.sizes.min()) if candidates is None else candidates
    on = resolve(Palette({"v": entry}), pilot, ["v"], candidates=k, joint=joint, scales={"v": scale})
    return on.lower[0], on.upper[0], on.influence_lower[:, 0], on.influence_upper[:, 0]


@pytest.fixture
def pilot():
    """Ragged, weighted, with an effect of the prompt."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 7, size=30)
    values = rng.normal(size=sizes.sum()) + np.repeat(rng.normal(size=30), sizes)
    return groups(values, sizes, rng.dirichlet(np.ones(30)))


# ---- the language


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (0.5, "0.5"),
        (3, "3"),
        (-0.3, "-0.3"),
        (np.float32(0.5), "0.5"),
        (np.int64(-2), "-2"),
        (Fraction(1, 4), "0.25"),
        ("-0.3", "-0.3"),
        ("1e-5", "1e-05"),
        (" >= -.5 ", "-0.5"),
        ("<=60", "<= 60"),
        ("== 2.5", "== 2.5"),
        ("q80", "q80"),
        ("q0", "q0"),
        ("q100", "q100"),
        ("q97.5", "q97.5"),
        ("<= q80  within", "<= q80 within"),
        ("keep", "keep"),
        (">= keep", "keep"),
        ("==keep", "== keep"),
        ("+0", "keep"),
        ("+0.3", "+0.3"),
        ("<= + 0.3", "<= +0.3"),
        ("base + .3", "+0.3"),
        ("base-0.3", "base-0.3"),
        ("x1.2", "x1.2"),
        ("<= x.5", "<= x0.5"),
        ("reach 50%", "reach 50%"),
        ("<= reach 12.5 %", "<= reach 12.5%"),
        ("free", "free"),
    ],
)
def test_reads_and_writes_every_entry(entry, text):
    palette = Palette({"v": entry})
    assert palette.entries == {"v": text}
    assert Palette(palette.entries) == palette


def test_a_signed_number_is_a_level_unless_a_plus_makes_it_an_offset():
    pilot = groups([1, 3], [2])
    assert bounds(-0.3, pilot)[0] == bounds("-0.3", pilot)[0] == -0.3
    assert bounds("+0.3", pilot)[0] == 2.3
    assert bounds("base-0.3", pilot)[0] == 1.7


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        (True, TypeError, "got bool: True"),
        (np.True_, TypeError, "a number or a text"),
        (None, TypeError, "got NoneType"),
        ({}, TypeError, "got dict"),
        (b"q80", TypeError, "got bytes"),
        (1j, TypeError, "got complex"),
        (float("nan"), ValueError, "a finite number, got nan"),
        (np.float32("inf"), ValueError, "a finite number, got inf"),
        (10**400, ValueError, "too large"),
        ("1e999", ValueError, "a finite number, got inf"),
        ("+1e999", ValueError, "an offset must be a finite number, got inf"),
        ("", ValueError, "got ''"),
        (" ", ValueError, "got ' '"),
        (">=", ValueError, "got '>='"),
        ("> 3", ValueError, "got '> 3'"),
        ("80%", ValueError, "got '80%'"),
        ("nan", ValueError, "got 'nan'"),
        ("Q80", ValueError, "got 'Q80'"),
        ("q80within", ValueError, "got 'q80within'"),
        ("q 80", ValueError, "got 'q 80'"),
        ("keep\n0.5", ValueError, r"got 'keep\n0.5'"),
        ("<= free", ValueError, "got '<= free'"),
        ("reach 50", ValueError, "got 'reach 50'"),
        ("q100.1", ValueError, "q takes a percentage from 0 to 100, got 100.1"),
        ("q-1", ValueError, "q takes a percentage from 0 to 100, got -1"),
        ("q101 within", ValueError, "q takes a percentage from 0 to 100, got 101"),
        ("reach 101%", ValueError, "reach takes a percentage from 0 to 100, got 101"),
        ("== reach 50%", ValueError, 'takes ">=" or "<=", got \'== reach 50%\''),
        ("x0", ValueError, "x takes a positive finite factor, got 0"),
        ("x-1", ValueError, "x takes a positive finite factor, got -1"),
        (">= max", ValueError, "got '>= max'"),
        ("P(< 0) max", ValueError, 'a tail asks "<=" or ">="'),
        ("q80 @ audience=children", ValueError, "a cohort stands in cohorts, "),
        ([], ValueError, "a list must hold at least one entry, got none"),
        ([["keep"]], TypeError, "got list: ['keep']"),
        (["keep", "much"], ValueError, "got 'much'"),
        ("P(< -2)", ValueError, 'a tail asks "<=" or ">=" of a share'),
        ("P(-2) <= 0.02", ValueError, "a tail asks"),
        ("P(= -2) <= 0.02", ValueError, "a tail asks"),
        ("P(< -2) 0.02", ValueError, "got 'P(< -2) 0.02'"),
        ("P(< -2) < 0.02", ValueError, "a tail asks"),
        ("P(< -2) == 0.02", ValueError, "a tail asks"),
        ("P(< keep) <= 0.02", ValueError, "a tail asks"),
        ("P(< -2) <= q80", ValueError, "a tail asks"),
        ("P(< -2) <= q80 within", ValueError, "a tail asks"),
        ("P(< -2) <= free", ValueError, "a tail asks"),
        (">= P(< -2) <= 0.02", ValueError, "an entry is"),
        ("P(< -2) <= 2", ValueError, "a share must be a finite number from 0 to 1, got 'P(< -2) <= 2'"),
        ("P(< -2) <= -0.1", ValueError, "a share must be a finite number from 0 to 1"),
        ("P(< q101) <= 0.1", ValueError, "q takes a percentage from 0 to 100, got 101"),
        ("P(< 1e999) <= 0.1", ValueError, "a finite number, got inf"),
    ],
)
def test_refuses_in_one_line(entry, error, says):
    with pytest.raises(error) as caught:
        parse("humor", entry)
    assert str(caught.value).startswith("palette['humor']: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Palette({}), ValueError, "at least one entry, got none"),
        (lambda: Palette("q80"), TypeError, "got str"),
        (lambda: Palette({1: "q80"}), TypeError, "got 1"),
        (lambda: Palette({"": "q80"}), TypeError, "got ''"),
        (lambda: Palette({"a\nb": "q80"}), TypeError, r"by a text of one line, got 'a\nb'"),
        (lambda: Palette({"v": 1}, cohorts={"a=b\nc": {"v": 1}}), ValueError, r"got 'a=b\nc'"),
        (
            lambda: Palette({"v": "max"}, kl=10**400),
            ValueError,
            "kl must be a number of nats above 0, got 1000",
        ),
        (lambda: Palette({"v": 1}, cohorts={"a=b": {}}), ValueError, "a=b needs at least one entry"),
        (lambda: Palette({"v": 1}, cohorts={"a": {"v": 1}}), ValueError, "COLUMN=ENTRY, such as"),
        (lambda: Palette({"v": 1}, cohorts={"a=": {"v": 1}}), ValueError, "COLUMN=ENTRY, such as"),
        (lambda: Palette({"v": 1}, cohorts={1: {"v": 1}}), TypeError, "COLUMN=ENTRY, got 1"),
        (lambda: Palette({"v": 1}, cohorts=["a=b"]), TypeError, "got list"),
        (lambda: Palette({"v": 1}, cohorts={"a=b": "q80"}), TypeError, "the cohort a=b maps names"),
        (
            lambda: Palette({}, cohorts={"a=b": {"v": "much"}}),
            ValueError,
            "palette.cohorts['a=b']['v']: an entry is",
        ),
        (lambda: Palette({"v": 1}, kl=0.5), ValueError, 'kl is the budget of an entry "max", got 0.5'),
        (lambda: Palette({"v": "max"}, kl=0), ValueError, "kl must be a number of nats above 0, got 0"),
        (
            lambda: Palette({"v": "max"}, kl=np.inf),
            ValueError,
            "kl must be a number of nats above 0, got inf",
        ),
    ],
)
def test_refuses_what_is_not_a_palette(call, error, says):
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_value_is_refused_with_the_nearest():
    with pytest.raises(ValueError) as caught:
        resolve(
            Palette({"humour": "keep"}), groups([1, 2], [2]), ["humor"], candidates=2, joint=False, scales={}
        )
    assert str(caught.value) == (
        "the palette names 'humour', the pilot's values are humor; did you mean 'humor'?"
    )


def test_a_palette_is_a_value():
    palette = Palette({"humor": "q60", "tone": "free"})
    assert palette == Palette({"humor": ">= q60", "tone": "free"})
    assert hash(palette) == hash(copy.deepcopy(palette)) == hash(pickle.loads(pickle.dumps(palette)))
    assert palette != Palette({"tone": "free", "humor": "q60"}), "the order of values is part of it"
    assert palette != {"humor": "q60"}
    assert repr(palette) == "Palette({'humor': 'q60', 'tone': 'free'})"


# ---- what entries ask


def test_the_relation_says_which_end():
    pilot = groups([1, 2, 3, 6], [2, 2])
    assert bounds("2.5", pilot)[:2] == (2.5, np.inf)
    assert bounds("<= 2.5", pilot)[:2] == (-np.inf, 2.5)
    assert bounds("== 2.5", pilot)[:2] == (2.5, 2.5)
    assert bounds("free", pilot)[:2] == (-np.inf, np.inf)


def test_order_and_what_is_not_named(pilot):
    three = Groups(
        np.column_stack([pilot.values, -pilot.values, pilot.values**2]), pilot.starts, pilot.weights
    )
    on = resolve(
        Palette({"c": "<= keep", "a": 1}), three, ["a", "b", "c"], candidates=2, joint=False, scales={}
    )
    assert on.features == ("c", "a", "b")
    assert on.asked == ("<= keep", "1", "free")
    np.testing.assert_array_equal(on.lower, [-np.inf, 1, -np.inf])
    np.testing.assert_array_equal(on.upper, [on.base[0], np.inf, np.inf])
    np.testing.assert_allclose(on.base, three.base[[2, 0, 1]], rtol=1e-14)
    np.testing.assert_array_equal(on.features_of(three.values, ["a", "b", "c"]), three.values[:, [2, 0, 1]])


def test_keep_is_exactly_the_base(pilot):
    rng = np.random.default_rng(1)
    values = np.column_stack([pilot.values, 1e8 + rng.normal(size=(len(pilot.values), 4))])
    five, names = Groups(values, pilot.starts, pilot.weights), list("abcde")
    on = resolve(
        Palette(dict.fromkeys("edacb", "== keep")), five, names, candidates=2, joint=False, scales={}
    )
    base = Groups(on.features_of(np.asfortranarray(values), names), pilot.starts, pilot.weights).base
    for exact in (on.base, on.lower, on.upper):
        np.testing.assert_array_equal(exact, base)


def test_x_means_what_the_scale_says():
    pilot = groups([0.1, 0.3, 0.2, 0.6], [2, 2])
    assert bounds("x1.5", pilot, scale="probability")[0] == pytest.approx(0.45)
    np.testing.assert_allclose(bounds("x1.5", pilot, scale="probability")[2], [0.3, 0.6])
    logs = groups(np.log(pilot.values), [2, 2])
    assert bounds("<= x0.5", logs, scale="log-probability")[1] == pytest.approx(logs.base[0] - np.log(2))
    with pytest.raises(ValueError, match=r"palette\['v'\]: \"x1.5\" needs a value whose scale"):
        bounds("x1.5", pilot, scale="real")


def test_reach_by_hand():
    """Two of (0, 1, 5): the largest is 1, 5 or 5; the smallest 0, 0 or 1."""
    pilot = groups([5, 0, 1], [3])
    assert bounds("reach 100%", pilot, candidates=2)[0] == pytest.approx(11 / 3)
    assert bounds("<= reach 100%", pilot, candidates=2)[1] == pytest.approx(1 / 3)
    assert bounds("reach 50%", pilot, candidates=2)[0] == pytest.approx((2 + 11 / 3) / 2)
    assert bounds("reach 100%", pilot, candidates=1)[0] == pytest.approx(2)
    assert bounds("reach 0%", pilot, candidates=3)[0] == 2


def test_reach_is_the_best_of_k_over_all_subsets(pilot):
    def brute(side, k):
        per_prompt = [
            np.mean([side * max(side * np.array(chosen)) for chosen in itertools.combinations(own, k)])
            for own in np.split(pilot.values[:, 0], pilot.starts[1:-1])
        ]
        return np.array(per_prompt)

    lower, _, psi, none = bounds("reach 30%", pilot, candidates=2)
    _, upper, _, psi_upper = bounds("<= reach 30%", pilot, candidates=2)
    np.testing.assert_allclose(psi, 0.7 * pilot.means[:, 0] + 0.3 * brute(1, 2), rtol=1e-12)
    np.testing.assert_allclose(psi_upper, 0.7 * pilot.means[:, 0] + 0.3 * brute(-1, 2), rtol=1e-12)
    assert lower == pytest.approx(pilot.weights @ psi)
    assert upper == pytest.approx(pilot.weights @ psi_upper)
    assert not none.any()


def test_reach_in_joint_mode_goes_to_the_largest_row(pilot):
    lower, _, psi, _ = bounds("reach 25%", pilot, joint=True)
    assert lower == pytest.approx(0.75 * pilot.base[0] + 0.25 * pilot.values.max())
    np.testing.assert_allclose(psi, 0.75 * pilot.means[:, 0])
    assert bounds("<= reach 100%", pilot, joint=True)[1] == pytest.approx(pilot.values.min())


def test_reach_with_more_candidates_than_a_prompt_has_is_refused():
    with pytest.raises(ValueError, match="k must lie between 1 and the 2 candidates of a prompt, got 3"):
        bounds("reach 50%", groups([1, 2, 3, 4, 5], [2, 3]), candidates=3)


def test_within_is_the_mean_of_the_prompts_own_quantiles(pilot):
    lower, _, psi, _ = bounds("q80 within", pilot)
    own = [np.quantile(rows, 0.8) for rows in np.split(pilot.values[:, 0], pilot.starts[1:-1])]
    np.testing.assert_allclose(psi, own, rtol=1e-14)
    assert lower == pytest.approx(pilot.weights @ own)


@pytest.mark.parametrize("entry", ["keep", "+0.3", "q80 within", "reach 40%", "<= reach 40%", "q60"])
def test_bounds_follow_a_shift_and_a_scale(entry, pilot):
    moved = Groups(1e8 + 1e3 * pilot.values, pilot.starts, pilot.weights)
    entry_moved = entry.replace("+0.3", "+300")
    for plain, far in zip(
        bounds(entry, pilot, candidates=2)[:2], bounds(entry_moved, moved, candidates=2)[:2], strict=True
    ):
        assert far == pytest.approx(1e8 + 1e3 * plain, abs=1e-6)


# ---- quantiles


@pytest.mark.parametrize("n", [1, 2, 7, 100, 4096])
def test_equal_weights_give_numpys_quantile_exactly(n):
    rng = np.random.default_rng(n)
    values, shares = np.round(rng.normal(size=n), 2), np.append(rng.random(20), [0, 1])
    np.testing.assert_array_equal(quantile(values, np.full(n, 1 / n), shares), np.quantile(values, shares))


def test_the_weighted_rule_is_the_same_rule():
    rng = np.random.default_rng(3)
    values, shares = rng.normal(size=50), np.linspace(0, 1, 21)
    nearly = 1 + 1e-9 * rng.random(50)
    np.testing.assert_allclose(quantile(values, nearly, shares), np.quantile(values, shares), atol=1e-7)
    weights = rng.dirichlet(np.ones(50))
    np.testing.assert_allclose(quantile(values, weights, shares), -quantile(-values, weights, 1 - shares))
    tied = np.round(values)
    order = rng.permutation(50)
    np.testing.assert_allclose(quantile(tied, weights, shares), quantile(tied[order], weights[order], shares))


def test_weights_count_as_copies_do_when_rows_are_many():
    rng = np.random.default_rng(4)
    values, copies = rng.normal(size=20_000), rng.integers(1, 5, size=20_000)
    shares = np.array([0.1, 0.5, 0.9])
    repeated = np.quantile(np.repeat(values, copies), shares)
    np.testing.assert_allclose(quantile(values, copies / copies.sum(), shares), repeated, atol=2e-3)


def test_a_pooled_quantile_weighs_prompts_not_rows():
    values = np.concatenate([np.zeros(1000), np.ones(10)])
    assert bounds("q60", groups(values, [1000, 10]))[0] == pytest.approx(1)
    assert bounds("q60", groups(values, [1000, 10], [1000 / 1010, 10 / 1010]))[0] == 0


@pytest.mark.parametrize("percent", [20, 60, 90])
def test_the_influence_of_a_pooled_quantile_predicts_its_scatter(percent):
    """Over many pilots with an effect of the prompt: the standard error by prompt against the real one."""
    rng = np.random.default_rng(percent)
    levels, errors = [], []
    for _ in range(400):
        values = rng.normal(size=(100, 1)) + rng.normal(size=(100, 6))
        lower, _, psi, _ = bounds(f"q{percent}", groups(values, np.full(100, 6)))
        levels.append(lower)
        errors.append(psi.std(ddof=1) / 10)
    assert 0.9 < np.mean(errors) / np.std(levels) < 1.2


def test_influence_is_zero_where_the_level_does_not_move():
    ties = groups(np.tile([0.0, 0.0, 0.0, 1.0], 50), np.full(50, 4))
    assert not bounds("q40", ties)[2].any(), "deep inside a run of equal values"
    assert not bounds(0.5, ties)[2].any()
    assert np.isfinite(bounds("q0", ties)[2]).all()
    assert np.isfinite(bounds("q100", ties)[2]).all()


@needs_shared
def test_pooled_quantiles_of_the_papers_pilot():
    """The levels of HHH-80 on OPT-1.3B, as the paper's submit scripts have them."""
    import pyarrow.parquet as pq

    table = pq.read_table(SHARED / "pilot-opt1.3b-anthropic.parquet")
    names = ("humor", "helpfulness", "harmlessness")
    rows = np.column_stack([table[name].to_numpy() for name in names]).astype(float)
    one = groups(rows, np.ones(len(rows), int))
    on = resolve(Palette(dict.fromkeys(names, "q80")), one, names, candidates=1, joint=True, scales={})
    np.testing.assert_allclose(on.lower, [2.534, -0.613, 1.268], atol=6e-4)


# ---- Resolved


def test_the_grid_of_quantiles(pilot):
    on = resolve(Palette({"v": "keep"}), pilot, ["v"], candidates=2, joint=False, scales={})
    assert on.quantiles.shape == (1, 101)
    assert on.quantiles[0, 0] == pilot.values.min()
    assert on.quantiles[0, 100] == pilot.values.max()
    assert on.quantiles[0, 30] == bounds("q30", pilot)[0]
    assert (np.diff(on.quantiles) >= 0).all()


def test_it_survives_json(pilot):
    two = Groups(np.column_stack([pilot.values, pilot.values**2]), pilot.starts, pilot.weights)
    on = resolve(Palette({"b": "<= q60"}), two, ["a", "b"], candidates=2, joint=False, scales={})
    back = Resolved.from_dict(json.loads(json.dumps(on.to_dict(), allow_nan=False)))
    assert (back.features, back.asked) == (on.features, on.asked)
    for name in ("lower", "upper", "base", "quantiles"):
        np.testing.assert_array_equal(getattr(back, name), getattr(on, name))
    assert back.influence_lower.shape == back.influence_upper.shape == (0, 2)
    np.testing.assert_array_equal(
        back.features_of(two.values, ["a", "b"]), on.features_of(two.values, ["a", "b"])
    )


def test_features_of_fresh_answers(pilot):
    on = resolve(Palette({"v": "keep"}), pilot, ["v"], candidates=2, joint=False, scales={})
    fresh = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(on.features_of(fresh, ["check", "v"]), fresh[:, 1:])
    with pytest.raises(ValueError, match="values must include v, got none for v"):
        on.features_of(fresh, ["check", "other"])
    with pytest.raises(ValueError, match=r"a column for each of 1 names, got \(3, 2\)"):
        on.features_of(fresh, ["v"])


def test_the_entries_of_the_page_can_be_read():
    page = Path(__file__).parents[1] / "docs" / "palette.md"
    table = page.read_text().split("## Entries")[1].split("Before an entry")[0]
    entries = [
        entry
        for row in table.splitlines()
        if row.startswith("| `")
        for entry in re.findall("`([^`]+)`", row.split("|")[1])
    ]
    assert len(entries) == 13
    for entry in entries:
        parse("v", entry.strip('"'))
