# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Confidence sequences: intervals for a mean that hold at all times at once, however often one looks.

An ordinary 95 % interval that is looked at after every request is wrong at some time, almost surely. These two are
wrong at any time with probability alpha at most.

**Unbounded numbers**, variance finite: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 52, 2024),
Theorem 2.2 and, where observations depend on what came before, Proposition 2.5. After n observations with the standard
deviation s the mean is known to

    s √( 2 (nρ² + 1) / (n²ρ²) · log( √(nρ² + 1) / alpha ) ).

Any ρ > 0 is allowed; the one that makes it narrowest about n = b, which has to be settled beforehand, is
ρ² = (−2 log alpha + log(−2 log alpha + 1)) / b. As the central limit theorem it takes 2 + δ moments, and holds from the
n on from which a sum of such numbers is about normal: nobody is told anything before `FIRST`.

**Numbers between known ends**, w apart: no approximation. Sums of X_i − E X_i are sub-exponential with the intrinsic
time V_n = Σ (X_i − g_i)², where g_i is any guess made before X_i (Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49, 2021, Theorem 4): for every
0 ≤ h < 1, exp(h S − V (−log(1 − h) − h)) is a supermartingale, where w = 1. Averaged over h by a gamma law of 1 − h
that is cut at 1, shape and rate a (their Proposition 9), it is, with z = S + V,

    M(S, V) = aᵃ / (Γ(a) P(a, a)) · e^z · Γ(a + V) P(a + V, a + z) / (a + z)^(a + V),

P the regularised incomplete gamma function, and stays below 1 / alpha for ever with probability 1 − alpha (Ville).

Either way the mean is that of E[X_i | what came before], averaged over what was seen so far: of independent draws the
expectation, of others still something that one can mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc, gammaln

from valuepalette.grouping import Array

__all__ = ["BEST", "FIRST", "Interval", "Running", "Tally", "asymptotic_half", "bounded_half", "log_wealth"]

FIRST = 100
"""Observations before which nothing is said of an unbounded mean: skewed numbers take some to look normal."""
BEST = 3000
"""Observations about which an unbounded sequence is narrowest. Late rather than early: the first looks, when sums are
least normal, are then the most careful, and the price at 500 is a tenth of the width."""
_SHAPE = 4.0
"""a: narrowest about V = 80, some 500 shares near one half or 3,000 near a hundredth; nearly so from 5 to 500."""


def asymptotic_half(count: Array, variance: Array, alpha: float, best: float = BEST) -> Array:
    """Half of the width after `count` observations of variance `variance`; infinite before `FIRST`.

    >>> asymptotic_half(np.array([50.0, 1000.0, 100_000.0]), np.ones(3), alpha=0.05).round(3)
    array([  inf, 0.1  , 0.011])
    """
    log = -2 * math.log(alpha)
    rho = (log + math.log(log + 1)) / best
    n = np.maximum(count, 1.0)
    half = np.sqrt(variance * 2 * (n * rho + 1) / (n * n * rho) * np.log(np.sqrt(n * rho + 1) / alpha))
    return np.where(count >= FIRST, half, np.inf)


def log_wealth(excess: Array, spent: Array) -> Array:
    """log M(S, V) for sums S and intrinsic times V of numbers within one of each other; of S < 0 as of 0."""
    a, z = _SHAPE, np.maximum(excess, 0.0) + spent
    start = a * math.log(a) - gammaln(a) - math.log(gammainc(a, a))
    return start + z + gammaln(a + spent) + np.log(gammainc(a + spent, a + z)) - (a + spent) * np.log(a + z)


def bounded_half(count: Array, spent: Array, width: Array, alpha: float) -> Array:
    """Half of the width after `count` observations in an interval as wide as `width` whose V is `spent`.

    Never more than `width`. The chance alpha is split over the two sides.

    >>> bounded_half(np.array([10.0, 1000.0]), np.array([0.5, 20.0]), np.ones(2), alpha=0.05).round(3)
    array([0.766, 0.017])
    """
    limit = math.log(2 / alpha)
    out = np.array(width, float)
    for i in np.flatnonzero(count > 0):
        v = np.array(spent[i] / width[i] ** 2)

        def over(s: float, v: Array = v) -> float:
            return float(log_wealth(np.array(s), v)) - limit

        if over(float(count[i])) > 0:
            root = cast("float", brentq(over, 0.0, float(count[i])))
            out[i] = root / count[i] * width[i]
    return out


@dataclass(frozen=True, eq=False)
class Interval:
    """Means (m,), each known to ± `half`, infinite where nothing can be said, and on how many observations."""

    count: Array
    mean: Array
    half: Array


class Tally:
    """What the sequences need of the observations of m quantities; nan is no observation. Takes no more room with time.

    centre  (m,) the first guess of a bounded quantity
    """

    def __init__(self, centre: Array) -> None:
        self._centre = centre
        m = len(centre)
        self.count, self.mean = np.zeros(m), np.zeros(m)
        self._squares, self.spent = np.zeros(m), np.zeros(m)

    def add(self, observed: Array) -> None:
        """Observations (n, m), in the order in which they came."""
        there = ~np.isnan(observed)
        x = np.where(there, observed, 0.0)
        new = there.sum(axis=0).astype(float)
        # Before each: how many there were, and their sum. So V is the same however observations are cut into calls.
        before = self.count + np.cumsum(there, axis=0) - there
        sums = self.count * self.mean + np.cumsum(x, axis=0) - x
        guesses = (self._centre + sums) / (before + 1)
        self.spent = self.spent + (np.where(there, x - guesses, 0.0) ** 2).sum(axis=0)
        own = x.sum(axis=0) / np.maximum(new, 1.0)
        squares = (np.where(there, x - own, 0.0) ** 2).sum(axis=0)
        total = np.maximum(self.count + new, 1.0)
        apart = np.where(self.count > 0, own - self.mean, 0.0) * (new > 0)
        self._squares = self._squares + squares + apart**2 * self.count * new / total
        self.mean = np.where(new > 0, (self.count * self.mean + new * own) / total, self.mean)
        self.count = self.count + new

    @property
    def variance(self) -> Array:
        """Of one observation, (m,); zero of one alone."""
        return self._squares / np.maximum(self.count - 1, 1.0)

    def interval(self, alpha: float, width: Array) -> Interval:
        """`width` (m,) of each quantity's range, infinite where it has no ends."""
        known = np.isfinite(width)
        half = asymptotic_half(self.count, self.variance, alpha)
        if known.any():
            half = half.copy()
            half[known] = bounded_half(self.count[known], self.spent[known], width[known], alpha)
        return Interval(self.count, np.where(self.count > 0, self.mean, np.nan), half)


class Running:
    """Means of m quantities, with intervals that all hold at all times at once, for each with probability 1 − alpha.

    lower, upper  (m,) ends that a quantity cannot leave; infinite where there are none
    window        rows after which a sequence begins anew

    Two kinds of interval are told: of all rows so far, and of the latest window, so that a change is seen soon however
    long all was well before. Half of alpha goes to the whole, the other half to the windows: alpha / (2 j (j − 1)) to
    window j, from the second on, as the first is the whole.

    >>> running = Running(np.zeros(1), np.ones(1), alpha=0.05)
    >>> running.add(np.tile([[0.0], [1.0]], (600, 1)))
    >>> running.whole.mean, running.whole.half.round(3), running.lately.count
    (array([0.5]), array([0.054]), array([200.]))
    """

    def __init__(self, lower: Array, upper: Array, *, alpha: float, window: int = 1000) -> None:
        self.alpha, self.window, self.rows = alpha, window, 0
        known = np.isfinite(lower) & np.isfinite(upper)
        self._width = np.where(known, upper, np.inf) - np.where(known, lower, 0.0)
        self._centre = np.where(known, (np.where(known, lower, 0.0) + np.where(known, upper, 0.0)) / 2, 0.0)
        self._whole = Tally(self._centre)
        self._number, self._here, self._before = 1, self._whole, None

    def add(self, observed: Array) -> None:
        """Rows (n, m), in the order in which they came; nan where a row has nothing of a quantity."""
        while len(observed):
            room = self.window - self.rows % self.window
            part, observed = observed[:room], observed[room:]
            self._whole.add(part)
            if self._here is not self._whole:
                self._here.add(part)
            self.rows += len(part)
            if self.rows % self.window == 0:
                self._before = None if self._here is self._whole else self._here
                self._number, self._here = self._number + 1, Tally(self._centre)

    @property
    def whole(self) -> Interval:
        """Of all rows."""
        return self._whole.interval(self.alpha / 2, self._width)

    @property
    def lately(self) -> Interval:
        """Of the rows of this window; where it says nothing of a quantity yet, of the one before. None in the first."""
        if self._number == 1:
            none = np.zeros(len(self._width))
            return Interval(none, np.full_like(none, np.nan), np.full_like(none, np.inf))
        here = self._told(self._here, self._number)
        if self._before is None:
            return here
        before = self._told(self._before, self._number - 1)
        young = (here.count < FIRST) & (here.count < before.count)
        return Interval(
            *(
                np.where(young, getattr(before, part), getattr(here, part))
                for part in ("count", "mean", "half")
            )
        )

    def _told(self, tally: Tally, number: int) -> Interval:
        return tally.interval(self.alpha / (2 * number * (number - 1)), self._width)
