"""Confidence sequences: how often they are wrong at any of thousands of looks, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammainc, gammaln

from valuepalette.anytime import FIRST, Running, Tally, asymptotic_half, bounded_half, log_wealth
from valuepalette.grouping import Array

Law = Callable[[np.random.Generator, tuple[int, int]], Array]
MEANS = 8
"""Candidates that a request averages."""


def _averaged(law: Law) -> Law:
    """What monitoring looks at: means over the candidates of a request, which share its prompt."""
    return lambda rng, shape: law(rng, shape) + sum(law(rng, shape) for _ in range(MEANS)) / MEANS


LAWS: dict[str, tuple[Law, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "heavy": (lambda rng, shape: rng.standard_t(4, size=shape), 0.0),
    "skewed": (_averaged(lambda rng, shape: rng.lognormal(size=shape)), 2 * np.exp(0.5)),
}
BOUNDED: dict[str, tuple[Law, float]] = {
    "rare": (lambda rng, shape: (rng.random(shape) < 0.02).astype(float), 0.02),
    "even": (lambda rng, shape: (rng.random(shape) < 0.5).astype(float), 0.5),
    "smooth": (lambda rng, shape: rng.beta(0.3, 3.0, size=shape), 0.3 / 3.3),
}


def _ever_wrong(law: Law, mean: float, runs: int, looks: int, alpha: float) -> float:
    """The share of runs in which the asymptotic sequence misses the mean at some look from `FIRST` on."""
    rng, wrong = np.random.default_rng(0), 0
    count = np.arange(1.0, looks + 1)
    for _ in range(runs // 50):
        x = law(rng, (50, looks))
        found = x.cumsum(axis=1) / count
        variance = ((x * x).cumsum(axis=1) / count - found**2) * count / np.maximum(count - 1, 1)
        half = asymptotic_half(count, np.maximum(variance, 0), alpha)
        wrong += int((np.abs(found - mean) > half).any(axis=1).sum())
    return wrong / runs


def _ever_rich(law: Law, mean: float, runs: int, looks: int, alpha: float) -> float:
    """The same of the bounded sequence: the mean is left out where the wealth passes 2 / alpha on either side."""
    rng, wrong = np.random.default_rng(0), 0
    count = np.arange(1.0, looks + 1)
    for _ in range(runs // 50):
        x = law(rng, (50, looks))
        guesses = (0.5 + x.cumsum(axis=1) - x) / count
        spent = ((x - guesses) ** 2).cumsum(axis=1)
        excess = (x - mean).cumsum(axis=1)
        most = np.maximum(log_wealth(excess, spent), log_wealth(-excess, spent))
        wrong += int((most >= np.log(2 / alpha)).any(axis=1).sum())
    return wrong / runs


def _at_most(share: float, alpha: float, runs: int) -> bool:
    """Whether a share of runs is no more than alpha, to within what chance does once in ten thousand times."""
    return share <= alpha + NormalDist().inv_cdf(0.9999) * np.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_an_unbounded_mean_is_covered_at_all_of_two_thousand_looks(name: str, alpha: float) -> None:
    assert _at_most(_ever_wrong(*LAWS[name], runs=400, looks=2000, alpha=alpha), alpha, 400)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bounded_mean_is_covered_at_all_of_two_thousand_looks(name: str) -> None:
    assert _at_most(_ever_rich(*BOUNDED[name], runs=400, looks=2000, alpha=0.05), 0.05, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_an_unbounded_mean_is_covered_for_long(name: str, alpha: float) -> None:
    """Of skewed numbers, far out, up to twice as often wrong: a central limit theorem is no more than that."""
    allowed = 2 * alpha if name == "skewed" and alpha < 0.01 else alpha
    assert _at_most(_ever_wrong(*LAWS[name], runs=4000, looks=10_000, alpha=alpha), allowed, 4000)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_a_bounded_mean_is_covered_for_long(name: str) -> None:
    assert _at_most(_ever_rich(*BOUNDED[name], runs=2000, looks=5000, alpha=0.05), 0.05, 2000)


def test_an_ordinary_interval_is_not_enough() -> None:
    """The same looks with ± 1.96 standard errors: the check can fail."""
    rng = np.random.default_rng(0)
    x, count = rng.normal(size=(200, 2000)), np.arange(1.0, 2001)
    far = np.abs(x.cumsum(axis=1)) / np.sqrt(count)
    assert (far[:, FIRST:] > 1.96).any(axis=1).mean() > 0.3


def test_the_wealth_is_the_mixture_that_it_says() -> None:
    """Averaging exp(h S − V (−log(1 − h) − h)) over the law of h, number by number."""
    a = 4.0

    def integrand(u: float, s: float, v: float) -> float:
        law = a * np.log(a) - gammaln(a) - np.log(gammainc(a, a)) + (a - 1) * np.log(u) - a * u
        return float(np.exp(law + (1 - u) * s + v * (np.log(u) + 1 - u)))

    for s, v in ((3.0, 2.0), (10.0, 40.0), (0.0, 1.0)):
        by_hand = quad(integrand, 0, 1, args=(s, v), epsabs=1e-12)[0]
        assert float(log_wealth(np.array(s), np.array(v))) == pytest.approx(np.log(by_hand), abs=1e-8)


def test_widths_scale_and_shrink() -> None:
    count, variance = np.array([200.0, 2000.0, 20_000.0]), np.ones(3)
    half = asymptotic_half(count, variance, 0.05)
    assert (np.diff(half) < 0).all()
    np.testing.assert_allclose(asymptotic_half(count, 9 * variance, 0.05), 3 * half)
    # Twice an ordinary interval, no more: what looking always costs.
    assert (half < 2.6 * 1.96 / np.sqrt(count)).all()
    spent = np.array([2.0, 20.0, 200.0])
    own = bounded_half(count, spent, np.ones(3), 0.05)
    assert (np.diff(own) < 0).all()
    np.testing.assert_allclose(bounded_half(count, 100 * spent, np.full(3, 10.0), 0.05), 10 * own)
    assert bounded_half(np.array([0.0]), np.array([0.0]), np.ones(1), 0.05) == 1.0
    assert np.isinf(asymptotic_half(np.array([FIRST - 1.0]), np.ones(1), 0.05))


def test_a_tally_is_that_of_all_at_once() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(500, 3)) + 1e3
    x[rng.random(x.shape) < 0.3] = np.nan
    whole, parts = Tally(np.zeros(3)), Tally(np.zeros(3))
    whole.add(x)
    for cut in np.split(x, [1, 2, 77, 300]):
        parts.add(cut)
    for tally in (whole, parts):
        np.testing.assert_allclose(tally.count, (~np.isnan(x)).sum(axis=0))
        np.testing.assert_allclose(tally.mean, np.nanmean(x, axis=0))
        np.testing.assert_allclose(tally.variance, np.nanvar(x, axis=0, ddof=1))
    np.testing.assert_allclose(whole.spent, parts.spent)
    guesses = (np.cumsum([0, *x[~np.isnan(x[:, 0]), 0]])[:-1]) / np.arange(1, whole.count[0] + 1)
    assert whole.spent[0] == pytest.approx(((x[~np.isnan(x[:, 0]), 0] - guesses) ** 2).sum())


def test_windows_begin_anew_and_tell_the_latest() -> None:
    running = Running(np.full(1, -np.inf), np.full(1, np.inf), alpha=0.05, window=300)
    rng = np.random.default_rng(0)
    running.add(rng.normal(size=(250, 1)))
    assert running.lately.count[0] == 0
    running.add(rng.normal(5.0, size=(400, 1)))  # rows 250 to 649: window 3 began at 600
    # Window 3 is too young to say anything, so the second is told, whole.
    assert running.lately.count[0] == 300
    assert running.lately.mean[0] == pytest.approx(5.0, abs=0.3)
    assert running.whole.count[0] == 650
    running.add(rng.normal(9.0, size=(150, 1)))
    assert running.lately.count[0] == 200
    assert np.isfinite(running.lately.half[0])


def test_the_chances_of_the_windows_add_up() -> None:
    """Half of alpha to the whole, and 1/2 + 1/6 + 1/12 + … of the other half to the windows."""
    shares = [1 / (j * (j - 1)) for j in range(2, 100_000)]
    assert sum(shares) == pytest.approx(1, abs=2e-5)


def test_one_of_many_windows_is_hardly_ever_wrong() -> None:
    """All windows and the whole together, looked at every 50 rows: 200 runs of 40 windows."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        running = Running(np.full(2, -np.inf), np.full(2, np.inf), alpha=0.1, window=200)
        ever = np.zeros(2, bool)
        for _ in range(80):
            running.add(rng.exponential(size=(50, 2)))
            for told in (running.whole, running.lately):
                ever |= np.abs(told.mean - 1) > told.half
        wrong += int(ever.sum())
    assert _at_most(wrong / 200, 0.1, 200)
