# pyright: strict
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""One value after another: block-coordinate ascent on the dual, which reaches the same weights as all at once.

For those who hold one reward model in memory: a step needs the columns of its own block and λᵀr of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from valuepalette.newton import maximise, residuals
from valuepalette.tilting import Array, Groups, Tilt, Tilted, spread, tilted

__all__ = ["Step", "ascend"]


@dataclass(frozen=True)
class Step:
    """Where the weights stand after one block was solved.

    block    the features that moved
    weights  λ, shape (m,), raw units
    kl       KL(p_λ ‖ p_0), nats
    levels   of the features of the block, raw units, shape (len(block),)
    residual the largest that any feature of the block had before its step, in within-group standard deviations
    """

    block: tuple[int, ...]
    weights: Array
    kl: float
    levels: Array
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
    increments: bool = False,
) -> list[Step]:
    """Maximises the dual over the features of one block at a time, the sign set on the *total* λ.

    column        reads one feature, shape (n,), rows as `groups` has them; called again in every round
    groups        prompts and their weights; its values are not read
    lower, upper  (m,) raw units, infinite where nothing is asked
    blocks        which features are solved together, in which order
    rounds        at most; stops when no block had a residual above `tol` for a whole round
    increments    the paper's form, λ ≥ 0 on each increment (Theorem 5, eq. 9), which stops short of the optimum;
                  here to show that it does

    The steps are Hildreth's (Dykstra's for KL): they converge to the optimum of all bounds at once, where one exists.
    """
    m = len(lower)
    weights = np.zeros(m)
    score = np.zeros(int(groups.starts[-1]))
    steps: list[Step] = []
    for _ in range(rounds):
        worst = 0.0
        for block in blocks:
            index = np.array(block, np.intp)
            own = np.column_stack([column(int(i)) for i in index])
            within = Groups(
                np.column_stack([own, score - own @ weights[index]]), groups.starts, groups.weights
            )
            scale = spread(within, joint=joint)
            source = tilted(within, scale, joint=joint)
            low = within.above(np.append(lower[index], -np.inf))[:-1] / source.scale[:-1]
            high = within.above(np.append(upper[index], np.inf))[:-1] / source.scale[:-1]
            start = weights[index] * source.scale[:-1]
            # The score of the other features stands fixed at weight one.
            offset = start if increments else np.zeros(len(index))
            held, begin = _Held(source, float(source.scale[-1]), offset), start - offset
            before = held.pass_(begin)
            residual = float(np.abs(residuals(begin, before.levels, low, high)).max())
            worst = max(worst, residual)
            at = maximise(held, low, high, begin, tol=tol * 0.1)
            total = at.weights + offset
            fresh = total / source.scale[:-1]
            score = score + own @ (fresh - weights[index])
            weights = weights.copy()
            weights[index] = fresh
            z = np.append(total, source.scale[-1])
            tilt = source.pass_(z)
            kl = float(z @ tilt.levels) - tilt.log_partition
            levels = within.base[:-1] + source.scale[:-1] * tilt.levels[:-1]
            steps.append(Step(tuple(int(i) for i in index), weights, max(0.0, kl), levels, residual))
        if worst <= tol:
            break
    return steps


@dataclass(frozen=True)
class _Held:
    """A source whose last feature keeps its weight, and whose others start from `offset`."""

    source: Tilted
    last: float
    offset: Array

    @property
    def size(self) -> int:
        return self.source.size - 1

    def pass_(self, weights: Array) -> Tilt:
        tilt = self.source.pass_(np.append(weights + self.offset, self.last))
        # The support of a part of λᵀr separates nothing: an infinite one keeps Newton from reading it so.
        return Tilt(tilt.log_partition, tilt.levels[:-1], tilt.covariance[:-1, :-1], np.inf)

    def support(self, direction: Array) -> tuple[float, Array]:
        value, point = self.source.support(np.append(direction, 0.0))
        return value, point[:-1]
