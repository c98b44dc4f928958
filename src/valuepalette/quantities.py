# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Quantities: what an entry of a palette wants, and what that is in raw units once a pilot says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, Protocol

import numpy as np

from valuepalette.grouping import Array, Groups
from valuepalette.tilting import prompt_support

__all__ = [
    "Base",
    "Bound",
    "Level",
    "Most",
    "Quantile",
    "Quantity",
    "Reach",
    "Scored",
    "Side",
    "Times",
    "Within",
    "bandwidth",
    "quantile",
]

Side = Literal[1, -1]
Bound = tuple[float, Array]
"""A level in raw units, and the influence ψ_g of each prompt on it, shape (N,)."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One feature of a pilot, and what is needed to say how far it is to go.

    groups      its numbers by prompt, one column
    base        c0, its level under the base model
    candidates  k, of which the decoder chooses one; without effect in joint mode
    joint       whether prompts are re-weighted too, so that the largest of all rows is in reach
    scale       "real", "probability" or "log-probability"
    """

    groups: Groups
    base: float
    candidates: int
    joint: bool
    scale: str

    @property
    def rows(self) -> Array:
        return self.groups.values[:, 0]

    @property
    def means(self) -> Array:
        return self.groups.means[:, 0]


class Quantity(Protocol):
    """What an entry wants, once a pilot says what that is in raw units. `str()` is its text."""

    def bound(self, scored: Scored, side: Side) -> Bound:
        """The level asked for; `side` is +1 for a lower bound and −1 for an upper one."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """`0.5`: a number is a level."""

    at: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.at):
            raise ValueError(f"a level must be a finite number, got {self.at}")

    def __str__(self) -> str:
        return _plain(self.at)

    def bound(self, scored: Scored, side: Side) -> Bound:
        return self.at, np.zeros_like(scored.means)


@dataclass(frozen=True, slots=True)
class Quantile:
    """`q80`: a quantile of all candidates of all prompts."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("q", self.percent)

    def __str__(self) -> str:
        return f"q{_plain(self.percent)}"

    def of(self, groups: Groups) -> float:
        """The quantile of the one column of `groups`."""
        return float(quantile(groups.values[:, 0], groups.row_weights, np.array([self.percent / 100]))[0])

    def bound(self, scored: Scored, side: Side) -> Bound:
        share, weights = self.percent / 100, scored.groups.row_weights
        reach = bandwidth(share, 1 / float(weights @ weights))
        low, high = max(share - reach, 0.0), min(share + reach, 1.0)
        below, level, above = quantile(scored.rows, weights, np.array([low, share, high]))
        # (q − 1{r ≤ Q}) / f(Q). One over the density is the slope of the quantile function.
        excess = share - (scored.rows <= level)
        mean = np.add.reduceat(excess, scored.groups.starts[:-1]) / scored.groups.sizes
        return float(level), mean * (above - below) / (high - low)


@dataclass(frozen=True, slots=True)
class Within:
    """`q80 within`: the mean over prompts of each prompt's own quantile."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("q", self.percent)

    def __str__(self) -> str:
        return f"q{_plain(self.percent)} within"

    def bound(self, scored: Scored, side: Side) -> Bound:
        own = np.empty_like(scored.means)
        sizes = scored.groups.sizes
        for size in np.unique(sizes):
            which = np.flatnonzero(sizes == size)
            plane = scored.rows[scored.groups.starts[which][:, None] + np.arange(size)]
            own[which] = np.quantile(plane, self.percent / 100, axis=1)
        return scored.base + float(scored.groups.weights @ (own - scored.means)), own


@dataclass(frozen=True, slots=True)
class Base:
    """`keep`, `+0.3`, `base-0.3`: the base level, moved by a number."""

    offset: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.offset):
            raise ValueError(f"an offset must be a finite number, got {self.offset}")

    def __str__(self) -> str:
        if not self.offset:
            return "keep"
        return f"+{_plain(self.offset)}" if self.offset > 0 else f"base{_plain(self.offset)}"

    def bound(self, scored: Scored, side: Side) -> Bound:
        return scored.base + self.offset, scored.means


@dataclass(frozen=True, slots=True)
class Times:
    """`x1.2`: a probability times 1.2; the same for a log-probability, whose level moves by log 1.2."""

    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"x takes a positive finite factor, got {_plain(self.factor)}")

    def __str__(self) -> str:
        return f"x{_plain(self.factor)}"

    def bound(self, scored: Scored, side: Side) -> Bound:
        if scored.scale == "log-probability":
            return scored.base + math.log(self.factor), scored.means
        if scored.scale == "probability":
            return scored.base * self.factor, scored.means * self.factor
        raise ValueError(
            f'"{self}" needs a value whose scale is "probability" or "log-probability", got "{scored.scale}"'
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """`reach 50%`: half way from the base level to the most, or least, that this value alone can reach."""

    percent: float

    def __post_init__(self) -> None:
        _check_percent("reach", self.percent)

    def __str__(self) -> str:
        return f"reach {_plain(self.percent)}%"

    def bound(self, scored: Scored, side: Side) -> Bound:
        share = self.percent / 100
        if scored.joint:
            # The largest row is an extreme of the pilot, not an average over prompts: taken as given.
            largest = float(side * (side * scored.rows).max())
            return scored.base + share * (largest - scored.base), (1 - share) * scored.means
        best = side * prompt_support(scored.groups, np.array([float(side)]), scored.candidates)
        step = share * (best - scored.means)
        return scored.base + float(scored.groups.weights @ step), scored.means + step


@dataclass(frozen=True, slots=True)
class Most:
    """`max`: as high as the other entries and the palette's budget of KL allow. Solving puts a level in its place."""

    def __str__(self) -> str:
        return "max"

    def bound(self, scored: Scored, side: Side) -> Bound:
        return -np.inf, np.zeros_like(scored.means)


def quantile(values: Array, weights: Array, shares: Array) -> Array:
    """Weighted quantiles of `values` (n,) at `shares` in [0, 1], with `weights` (n,) of any positive sum.

    Piecewise linear through the sorted values, two neighbours as far apart on the axis of shares as half the
    sum of their weights; share 0 is the smallest and 1 the largest. At equal weights that is numpy's "linear"
    rule, exactly. Equal values share their weight evenly, so that the order of rows means nothing.

    >>> quantile(np.array([0.0, 10.0, 20.0]), np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.5, 1.0]))
    array([ 0. , 12.5, 20. ])
    """
    if np.ptp(weights) <= 8 * np.finfo(float).eps * weights.max():
        return np.quantile(np.sort(values), shares)
    distinct, place, count = np.unique(values, return_inverse=True, return_counts=True)
    even = np.bincount(place, weights) / count
    gaps = np.repeat(even, count)
    at = np.concatenate([[0.0], np.cumsum((gaps[1:] + gaps[:-1]) / 2)])
    return np.interp(shares, at / at[-1], np.repeat(distinct, count))


def bandwidth(share: float, rows: float) -> float:
    """Bofinger's half-width for the slope of a quantile function; at an extreme, one row."""
    if not 0 < share < 1:
        return 1 / rows
    normal = NormalDist()
    z = normal.inv_cdf(share)
    width = (4.5 * normal.pdf(z) ** 4 / (2 * z * z + 1) ** 2 / rows) ** 0.2
    return max(width, 1 / rows)


def _check_percent(what: str, percent: float) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"{what} takes a percentage from 0 to 100, got {_plain(percent)}")


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
