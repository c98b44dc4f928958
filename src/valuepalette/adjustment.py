# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""What can be had instead of a palette that cannot: part of the way, value by value, or the nearest.

Every method moves bounds along a line from what the base model already meets, and asks how far: `stretch` says how
far the levels go, and a budget of KL how far one is willing to go. The answer is then taken back just inside, so that
finite weights reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.dual import Optimum, Status, optimise
from valuepalette.feasibility import Stretch, Support, farthest, stretch
from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.newton import maximise
from valuepalette.projection import approach, project, within_budget
from valuepalette.tilting import Tilt, Tilted, spread

__all__ = ["Adjustment", "Limit", "greedy", "highest", "interpolate", "nearest"]

GAP = 1e-6
"""How accurate limits are, and how far inside them bounds are set at least; within-group standard deviations."""

ROOM = 0.95
"""The part of its range that a feature keeps which cannot have its ask, so that later ones have room."""

Mask = NDArray[np.bool_]

EASE = 1e-8
"""How far granted bounds give way to linear programmes; their tolerance is 1e-10."""

BLOCKS = 300_000
"""Numbers in the random blocks of a k below K: so many that a palette which just can be had is solved on them."""

HAD = (Status.OPTIMAL, Status.BOUNDARY)


@dataclass(frozen=True, slots=True)
class Limit:
    """What stood in the way of a feature.

    by        "reach": no choice among the candidates goes further; "kl": the budget does not
    features  the numbers of those that pull against each other there, the strongest first
    """

    by: Literal["reach", "kl"]
    features: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Bounds that can be had, in the units of the features.

    lower, upper  (m,) never beyond what was asked
    rho           the part of the way from the base to the ask that every feature has gone: the least; 1 as asked
    inside        how far the bounds were taken back from the limit so that finite weights reach them, the most of
                  any bound, in within-group standard deviations; 0 where none had to be
    optimum       the answer to these bounds
    limits        what stood in the way, for each feature that fell short, by its number
    """

    lower: Array
    upper: Array
    rho: float
    inside: float
    optimum: Optimum
    limits: dict[int, Limit]


@dataclass(frozen=True, slots=True)
class _Line:
    """Bounds at t, in standardised units: lower + t·rise_lower ≤ L ≤ upper + t·rise_upper; 1 is what is wanted."""

    lower: Array
    upper: Array
    rise_lower: Array
    rise_upper: Array

    @classmethod
    def to(cls, low: Array, high: Array) -> _Line:
        """From these bounds relaxed to the base level, where they exclude it."""
        return cls(np.minimum(low, 0), np.maximum(high, 0), np.maximum(low, 0), np.minimum(high, 0))

    def of(self, moving: Mask, low: Array, high: Array) -> _Line:
        """Only the features `moving`; the others held at `low` and `high`."""
        return _Line(
            np.where(moving, self.lower, low),
            np.where(moving, self.upper, high),
            np.where(moving, self.rise_lower, 0.0),
            np.where(moving, self.rise_upper, 0.0),
        )

    @property
    def steep(self) -> float:
        """How many standard deviations the fastest bound moves from 0 to 1."""
        return float(max(self.rise_lower.max(), -self.rise_upper.min()))

    @property
    def rises(self) -> Mask:
        """The features with a bound that moves."""
        return (self.rise_lower > 0) | (self.rise_upper < 0)

    def at(self, t: float) -> tuple[Array, Array]:
        return self.lower + t * self.rise_lower, self.upper + t * self.rise_upper


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where a line ends: t, why, the pull (m,) of the features there, and a reachable level (m,) that gets to t."""

    t: float
    by: Literal["reach", "kl"]
    pull: Array
    point: Array

    def limit(self) -> Limit:
        strength = np.abs(self.pull)
        named = np.flatnonzero(strength > 1e-6 * strength.max())
        return Limit(self.by, tuple(int(i) for i in named[np.argsort(-strength[named], kind="stable")]))


@dataclass(frozen=True, slots=True)
class _Pushed:
    """A source whose weights are measured from `push`."""

    source: Tilted
    push: Array

    @property
    def size(self) -> int:
        return self.source.size

    def pass_(self, weights: Array) -> Tilt:
        return self.source.pass_(weights + self.push)

    def support(self, direction: Array) -> tuple[float, Array]:
        return self.source.support(direction)


class _Problem:
    """A palette on a pilot in standardised units: levels less the base level, by the spread within groups.

    `support` is exact, over all k-subsets. `source` is what weights are solved on: for k < K random blocks, which
    reach a little less far or a little farther.
    """

    def __init__(
        self, groups: Groups, lower: Array, upper: Array, joint: bool, block: int | None, seed: int
    ) -> None:
        scale = spread(groups, joint=joint)
        full = tilted(groups, scale, joint=joint)
        self.exact = joint or block is None or bool((groups.sizes == block).all())
        self.support: Support = full.support if self.exact else partial(full.subset_support, k=block or 0)
        partitions = 4
        while 4 * partitions * groups.values.size <= BLOCKS:
            partitions *= 4
        self.source = full
        if not self.exact:
            self.source = tilted(groups, scale, block=block, seed=seed, partitions=partitions)
        self.groups, self.lower, self.upper, self.scale = groups, lower, upper, full.scale
        self.block, self.seed = block, seed
        low, high = groups.above(lower) / full.scale, groups.above(upper) / full.scale
        # What is asked to stay as it is, moves by rounding alone.
        self.low, self.high = np.where(np.abs(low) < 1e-12, 0, low), np.where(np.abs(high) < 1e-12, 0, high)
        self._optimise = partial(optimise, joint=joint, block=block, seed=seed)

    def raw(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds in the features' units, not beyond those asked; one that is as asked, to the last bit."""
        base, scale = self.groups.base, self.scale
        lower, upper = base + scale * low, base + scale * high
        lower = np.where(np.isfinite(self.lower), np.minimum(lower, self.lower), lower)
        upper = np.where(np.isfinite(self.upper), np.maximum(upper, self.upper), upper)
        return np.where(low == self.low, self.lower, lower), np.where(high == self.high, self.upper, upper)

    def optimise(self, low: Array, high: Array) -> Optimum:
        return self._optimise(self.groups, *self.raw(low, high))

    def limit(self, line: _Line, points: Array, kl: float | None, ease: float = 0.0) -> _Stop:
        """How far a line goes, to 1 at most, for no more than `kl` nats; bounds that do not move give way by `ease`."""
        if not line.rises.any():
            return _Stop(1.0, "reach", np.zeros(len(self.low)), points[0])
        eased = line.of(line.rises, line.lower - ease, line.upper + ease)
        far = _stretch(self.support, eased, points, above=1.0)
        t = 1.0 if far.low >= 1 - 1e-9 else max(far.low, 0.0)
        stop = _Stop(t, "reach", far.direction, far.point)
        return stop if kl is None else self.spend(line, stop, kl, t if t == 1 else t - GAP / line.steep)

    def spend(self, line: _Line, stop: _Stop, kl: float, first: float) -> _Stop:
        """The largest t up to `stop` that costs at most `kl`: Newton on √V, V(t) the least KL at t, V(0) ≤ kl.

        V is convex with V′ = λᵀrise, and starts like a parabola, so that its root starts like a straight line. It
        begins at `first`, and stays at `stop` if that is cheap enough.
        """
        low, high, t, pull = 0.0, stop.t, max(0.0, first), stop.pull
        for turn in range(100):
            found = self.optimise(*line.at(t))
            weights = found.weights * self.scale
            cost = found.kl if found.status in HAD else np.inf
            if cost > kl * (1 + 1e-9):
                high, pull = t, weights if found.status is Status.OPTIMAL else pull
            elif turn == 0:
                return stop
            else:
                low = t
            if abs(cost - kl) <= 1e-9 * kl or high - low <= 1e-9 * high:
                break
            slope = float(weights @ np.where(weights > 0, line.rise_lower, line.rise_upper))
            newton = np.nan
            if found.status is Status.OPTIMAL and slope > 0:
                newton = t + 2 * (np.sqrt(kl * cost) - cost) / slope
            t = newton if low < newton < high else (low + high) / 2
        return _Stop(float(low), "kl", pull, stop.point)

    def holds(self, low: Array, high: Array) -> bool:
        """Whether these bounds leave room, for the exact support and for what weights are solved on."""
        supports = [self.support] if self.exact else [self.support, self.source.support]
        room = np.where(low < high, 10 * GAP, 0.0)
        return not any(project(support, low + room, high - room, gap=GAP)[0].any() for support in supports)

    def pushed(self, i: int, low: Array, high: Array, kl: float) -> float | None:
        """The most of L_i that `kl` nats buy while the bounds hold; None where reach ends before the budget.

        λ_i is raised and the others solved again: level and KL both grow, dKL/dλ_i = λ_i S, S the curvature that the
        active others leave. Newton on √KL.
        """
        source = (
            self.source if self.exact else tilted(self.groups, self.scale, block=self.block, seed=self.seed)
        )
        unit = np.where(np.arange(len(low)) == i, 1.0, 0.0)
        least, most, push, weights = 0.0, np.inf, 0.0, np.zeros(len(low))
        while push < 1e6:
            at = maximise(_Pushed(source, push * unit), low, high, weights, max_separation=np.inf)
            if at.kkt > 1e-9:
                return None
            weights, total, H = at.weights, at.weights + push * unit, at.tilt.covariance
            cost = float(total @ at.tilt.levels) - at.tilt.log_partition
            if abs(cost - kl) <= 1e-9 * kl or most - least <= 1e-14 * push:
                return float(at.tilt.levels[i])
            least, most = (push, most) if cost < kl else (least, push)
            held = weights != 0
            lift = np.linalg.pinv(H[np.ix_(held, held)], hermitian=True) @ H[held, i]
            left = 0.0 if held[i] else float(H[i, i] - H[i, held] @ lift)
            top = most if np.isfinite(most) else 8 * push + 1
            trial = top
            if left > 0 and push > 0:
                trial = push + 2 * (np.sqrt(kl * cost) - cost) / (total[i] * left)
            elif left > 0:
                trial = np.sqrt(2 * (kl - cost) / left)
            push = float(trial) if least < trial < top else (top if np.isinf(most) else (least + most) / 2)
        return None

    def settle(self, line: _Line, t: float, short: float = GAP) -> tuple[float, Optimum]:
        """The place `short` standard deviations before t, or as much before as finite weights need, and its answer."""
        if not self.exact and t > 0 and line.rises.any():
            points = _corners(self.source.support, *line.at(1.0))
            t = min(t, max(0.0, _stretch(self.source.support, line, points, above=t).low))
        return self.before(line, t, short)

    def before(self, line: _Line, t: float, short: float) -> tuple[float, Optimum]:
        """`settle` where what weights are solved on reaches t too."""
        while True:
            place = max(0.0, t - short / line.steep) if line.rises.any() else 0.0
            found = self.optimise(*line.at(place))
            if found.status is Status.OPTIMAL or place == 0:
                return place, found
            short = max(GAP, 10 * short)

    def adjustment(self, line: _Line, stop: _Stop, rho: float, limits: dict[int, Limit]) -> Adjustment:
        """The answer where a line ends; with nothing in the way the palette as it was asked."""
        if not limits:
            found = self.optimise(self.low, self.high)
            if found.status in HAD or not line.rises.any():
                return Adjustment(self.lower, self.upper, 1.0, 0.0, found, limits)
        place, found = self.settle(line, stop.t, 0.0 if stop.by == "kl" else GAP)
        return Adjustment(*self.raw(*line.at(place)), rho, (stop.t - place) * line.steep, found, limits)


def _stretch(support: Support, line: _Line, points: Array, above: float) -> Stretch:
    bounds = (line.lower, line.upper, line.rise_lower, line.rise_upper)
    points = approach(support, *bounds, points)
    return stretch(support, *bounds, points, gap=GAP / line.steep, above=above, max_calls=1000)


def _corners(support: Support, low: Array, high: Array) -> Array:
    """Reachable points to begin with: the base level and each bound's own extreme."""
    unit = np.eye(len(low))
    towards = [unit[i] for i in np.flatnonzero(np.isfinite(low))]
    towards += [-unit[i] for i in np.flatnonzero(np.isfinite(high))]
    return np.array([np.zeros(len(low)), *(support(direction)[1] for direction in towards)])


def interpolate(
    groups: Groups,
    lower: Array,
    upper: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    kl: float | None = None,
) -> Adjustment:
    """The largest ρ ≤ 1 with c0 + ρ(c − c0) reachable, and within `kl` nats where that is given (paper, Algorithm 3).

    Bounds that the base level c0 meets stay as they are; the others move together from c0 to what is asked. Of an
    equality or interval the end that c0 misses moves. ρ is right to 1e-6 standard deviations of the bound that moves
    most. Arguments as for `dual.optimise`.

    >>> groups = Groups(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1))
    >>> found = interpolate(groups, np.array([1.5]), np.array([np.inf]))
    >>> round(found.rho, 6), found.lower.round(5), found.limits[0].by
    (0.5, array([1.]), 'reach')
    """
    problem = _Problem(groups, lower, upper, joint, block, seed)
    line = _Line.to(problem.low, problem.high)
    stop = problem.limit(line, _corners(problem.support, problem.low, problem.high), kl)
    fell = np.flatnonzero(line.rises) if stop.t < 1 else []
    return problem.adjustment(line, stop, stop.t, {int(i): stop.limit() for i in fell})


def greedy(
    groups: Groups,
    lower: Array,
    upper: Array,
    order: Sequence[int],
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    kl: float | None = None,
) -> Adjustment:
    """One feature after another as far as it can go, never beyond its ask, while the earlier ones hold.

    A feature that cannot have its ask, by reach or by what is left of `kl` nats, keeps 95 % of the way it could go: at
    its very end it would leave the others a face of almost nothing. The last that asks for anything keeps all of it.
    Until its turn comes a feature stays where the base meets it. Those not in `order` are held there for good.

    >>> values = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> groups = Groups(values, np.array([0, 3]), np.ones(1))
    >>> found = greedy(groups, np.array([0.6, 0.6]), np.full(2, np.inf), [1, 0])
    >>> found.lower.round(4)
    array([0.4, 0.6])
    """
    problem = _Problem(groups, lower, upper, joint, block, seed)
    line = _Line.to(problem.low, problem.high)
    turns = [i for i in order if line.rises[i]]
    points = _corners(problem.support, problem.low, problem.high)
    places, limits = np.zeros(len(lower)), dict[int, Limit]()
    stop = _Stop(1.0, "reach", np.zeros(len(lower)), points[0])
    for i in turns:
        held = line.lower + places * line.rise_lower, line.upper + places * line.rise_upper
        step = line.of(np.arange(len(lower)) == i, *held)
        # What has been granted to the last bit would leave the next programme no point to start from.
        stop = problem.limit(step, np.concatenate([stop.point[None], points]), kl, EASE)
        places[i] = stop.t if stop.t == 1 or i == turns[-1] else ROOM * stop.t
        if stop.t < 1:
            limits[i] = stop.limit()
    got_low, got_high = line.lower + places * line.rise_lower, line.upper + places * line.rise_upper
    cut = np.isin(np.arange(len(lower)), list(limits))
    final = _Line.to(got_low, got_high).of(cut, got_low, got_high)
    if not problem.holds(*final.at(0.0)):
        # What was granted in full leaves no room of its own: all go back together.
        final = _Line.to(got_low, got_high)
    rho = min((float(places[i]) for i in turns), default=1.0)
    end = _Stop(1.0, stop.by, stop.pull, stop.point)
    return problem.adjustment(final, end, rho, limits)


def nearest(
    groups: Groups,
    lower: Array,
    upper: Array,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
    kl: float | None = None,
) -> Adjustment:
    """The bounds nearest to those asked, in within-group standard deviations, that can be had; for `kl` nats at most.

    min Σ_i (what is missing of bound i)² over all levels within reach. What is missing is, as a direction, a proof that
    the palette cannot be had. Other than the ways from the base, it may take a feature that the base meets below
    its bound, and ρ below zero.

    >>> values = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> groups = Groups(values, np.array([0, 3]), np.ones(1))
    >>> nearest(groups, np.array([0.8, 0.6]), np.full(2, np.inf)).lower.round(4)
    array([0.6, 0.4])
    """
    problem = _Problem(groups, lower, upper, joint, block, seed)
    support = problem.support if kl is None else within_budget(problem.source, kl)
    missing, _ = project(support, problem.low, problem.high, gap=GAP)
    missing = np.where(np.abs(missing) > GAP, missing, 0.0)
    low = np.where(missing > 0, problem.low - missing, problem.low)
    high = np.where(missing < 0, problem.high - missing, problem.high)
    line, asked = _Line.to(low, high), _Line.to(problem.low, problem.high)
    up, down = asked.rise_lower > 0, asked.rise_upper < 0
    gone = np.concatenate([low[up] / asked.rise_lower[up], high[down] / asked.rise_upper[down]])
    dear = kl is not None and support(missing)[0] < (1 - 1e-9) * problem.support(missing)[0]
    stop = _Stop(1.0, "kl" if dear else "reach", missing, np.zeros(len(lower)))
    if kl is not None and line.rises.any():
        stop = problem.spend(line, stop, kl, 1.0)
    limits = {int(i): stop.limit() for i in np.flatnonzero(missing)}
    return problem.adjustment(line, stop, min(1.0, float(gone.min(initial=1.0))), limits)


def highest(
    groups: Groups,
    lower: Array,
    upper: Array,
    turns: Sequence[int],
    kl: float,
    *,
    joint: bool = False,
    block: int | None = None,
    seed: int = 0,
) -> Array:
    """`lower`, raised for the features `turns` as far as the other bounds and `kl` nats in all allow; shape (m,).

    One after another, in this order; each but the last keeps 95 % of what it could gain, so that the next have room.
    Where the budget is spent already, or the others cannot be had, nothing is raised.

    >>> groups = Groups(np.array([[0.0], [1.0]]), np.array([0, 2]), np.ones(1))
    >>> p = float(highest(groups, np.array([-np.inf]), np.array([np.inf]), [0], kl=0.1)[0])
    >>> round(p, 6), round(float(np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p)), 6)
    (0.719795, 0.1)
    """
    problem = _Problem(groups, lower, upper, joint, block, seed)
    low, high, nothing = problem.low.copy(), problem.high, np.zeros(len(lower))
    supports = [problem.support] if problem.exact else [problem.support, problem.source.support]
    for i in turns:
        found = problem.optimise(low, high)
        if found.status not in HAD or found.kl >= kl:
            break
        unit = np.where(np.arange(len(low)) == i, 1.0, 0.0)
        at = float((found.levels - groups.base)[i] / problem.scale[i])
        bought = problem.pushed(i, low, high, kl)
        far = np.inf
        if bought is None or not problem.exact:
            far = min(farthest(support, low, high, at * unit, unit, gap=GAP).low for support in supports)
        # Random blocks may seem to reach further than k candidates do.
        if bought is not None and bought - at < far - GAP:
            low[i] = bought if i == turns[-1] else at + ROOM * (bought - at)
            continue
        far = min(far, float(high[i]) - at)
        if far <= 10 * GAP:
            continue
        line = _Line(np.where(unit > 0, at, low), high, unit, nothing)
        stop = problem.spend(line, _Stop(far, "reach", unit, nothing), kl, far - GAP)
        if i != turns[-1]:
            low[i] = at + ROOM * stop.t
        else:
            low[i] = at + problem.before(line, stop.t, 0.0 if stop.by == "kl" else GAP)[0]
    return problem.raw(low, high)[0]
