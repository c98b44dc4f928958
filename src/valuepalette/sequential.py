# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One value after another: block-coordinate ascent on the dual, which reaches the same weights as all at once.

For those who hold one reward at a time: a step needs the columns of its own block, and λᵀr of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.newton import maximise, residuals, separation
from valuepalette.tilting import Tilt, Tilted, spread

__all__ = ["Step", "ascend"]


@dataclass(frozen=True)
class Step:
    """Where things stand after one block was solved.

    turn      the round, from 1
    block     the features that moved
    weights   λ, shape (m,), raw units
    levels    E_λ r, shape (m,), raw units
    kl        KL(p_λ ‖ p_0), nats
    residual  the largest that any bound has left, in within-group standard deviations
    """

    turn: int
    block: tuple[int, ...]
    weights: Array
    levels: Array
    kl: float
    residual: float


def ascend(
    column: Callable[[int], Array],
    groups: Groups,
    lower: Array,
    upper: Array,
    blocks: Sequence[Sequence[int]],
    *,
    rounds: int = 100,
    tol: float = 1e-9,
    joint: bool = False,
    candidates: int | None = None,
    seed: int = 0,
    increments: bool = False,
) -> list[Step]:
    """Maximises the dual over the features of one block at a time, the sign set on the *total* λ.

    column        reads one feature, shape (n,), rows as `groups` has them. Each step reads its block, then every
                  feature once, one at a time, for the levels
    groups        prompts and their weights; its values are not read
    lower, upper  (m,) raw units, infinite where nothing is asked
    blocks        which features are solved together, in which order
    rounds        at most; ends with the step that leaves no residual above `tol`
    candidates    k of random blocks of candidates, as `tilted` cuts them by `seed`; None for all of a prompt's
    increments    the paper's form, λ ≥ 0 on each increment (Theorem 5, eq. 9), which stops short of the optimum;
                  here to show that it does

    The steps are Hildreth's (Dykstra's for KL): they converge to the optimum of all bounds at once, where one exists.
    Where none does they end early, with a residual above `tol`: at a block that cannot be solved whatever the others
    are, or at a λ that proves that the bounds cannot be had. They may also go on without end; `rounds` sees to that.
    """
    m = len(lower)
    base, unit, low, high = (np.zeros(m) for _ in range(4))
    for i in range(m):
        alone = Groups(column(i)[:, None], groups.starts, groups.weights)
        base[i], unit[i] = alone.base[0], spread(alone, joint=joint)[0]
        low[i], high[i] = (alone.above(np.array([end]))[0] for end in (lower[i], upper[i]))
    scale = np.where(unit > 0, unit, 1.0)
    low, high = low / scale, high / scale

    def read(i: int) -> Array:
        """A feature less its centre, in standard deviations; zero where it has none."""
        alone = Groups(column(i)[:, None], groups.starts, groups.weights)
        centre = alone.base if joint else np.repeat(alone.means, groups.sizes, axis=0)
        return (alone.values - centre)[:, 0] * (unit[i] > 0) / scale[i]

    exact = joint or candidates is None or bool((groups.sizes == candidates).all())

    def cut(columns: Array) -> Tilted:
        inside = Groups(columns, groups.starts, groups.weights)
        ones = np.ones(columns.shape[1])
        return tilted(inside, ones, joint=joint, block=None if exact else candidates, seed=seed)

    n = int(groups.starts[-1])
    # What blocks of candidates leave out of a prompt's mean is in these, and not in the base weights.
    even = cut(np.zeros((n, 1))).row_weights(np.zeros(1))
    weights, levels, score = np.zeros(m), np.zeros(m), np.zeros(n)
    steps: list[Step] = []
    for turn in range(1, rounds + 1):
        for block in blocks:
            index = np.array(block, np.intp)
            own = np.column_stack([read(i) for i in block])
            rest = score - own @ weights[index]
            source = cut(np.column_stack([own, rest]))
            start = weights[index]
            offset = start if increments else np.zeros(len(index))
            at = maximise(
                _Held(source, offset), low[index], high[index], start - offset, tol=max(tol / 10, 1e-13)
            )
            weights = weights.copy()
            weights[index] = at.weights + offset
            score = rest + own @ weights[index]
            whole = np.append(weights[index], 1.0)
            tilt = source.pass_(whole)
            change = source.row_weights(whole) - even
            levels = np.array([float(change @ read(i)) for i in range(m)])
            levels[index] = tilt.levels[:-1]
            left = float(np.abs(residuals(weights, levels, low, high)).max(initial=0.0))
            kl = max(0.0, float(whole @ tilt.levels) - tilt.log_partition)
            named = tuple(int(i) for i in index)
            steps.append(Step(turn, named, weights / scale, base + scale * levels, kl, left))
            if left <= tol:
                return steps
            hopeless = separation(weights, tilt.support, low, high) > 1e-8
            if not increments and (hopeless or at.kkt > max(tol, 1e-9)):
                return steps
    return steps


@dataclass(frozen=True)
class _Held:
    """A source whose last feature, what the others add up to, keeps weight one; the rest start from `offset`."""

    source: Tilted
    offset: Array

    @property
    def size(self) -> int:
        return self.source.size - 1

    def pass_(self, weights: Array) -> Tilt:
        tilt = self.source.pass_(np.append(weights + self.offset, 1.0))
        # The support of a part of λᵀr separates nothing: an infinite one keeps Newton from reading it so.
        return Tilt(tilt.log_partition, tilt.levels[:-1], tilt.covariance[:-1, :-1], np.inf)

    def support(self, direction: Array) -> tuple[float, Array]:
        value, point = self.source.support(np.append(direction, 0.0))
        return value, point[:-1]
