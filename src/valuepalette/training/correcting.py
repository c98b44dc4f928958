"""One correction round: where training stopped short of the palette, fresh answers say which weights go further.

If the trained π is p0·exp(λᵀf)/Z, the palette's own weights are the λ′ that maximise λ′ᵀc − F_π(λ′ − λ), F_π measured
on answers of π. If π fell short, for want of steps or of capacity, the same step pushes it where it has not arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from valuepalette.figures import Figures
from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.newton import maximise
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.tilting import Tilt, Tilted, spread

__all__ = ["corrected"]


def corrected(solution: Solution, answers: Pilot) -> Solution:
    """The solution with the weights that answers of the trained model ask for; bounds and promises stay.

    answers  scored answers of the model that was trained with `solution`, to the pilot's prompts, as many to each, an
             even number of 4 or more

    The sign of a weight is bound on the total, not on the change. Raises ValueError where no choice among the answers
    has the levels asked, which more training must bring nearer first.
    """
    solution.reward_weights(1.0)
    k = answers.candidates
    if k is None or k < 4 or k % 2:
        raise ValueError(
            f"answers must be the same even number for each prompt, 4 or more, got {answers.sizes.min()} to "
            f"{answers.sizes.max()}"
        )
    features, measured = solution.features_of(answers)
    now = solution.weights.array
    if (now * ~measured).any():
        raise ValueError("answers must be scored by every value that has a weight")
    groups = answers.groups(solution.weighting)
    features = features[answers.order]
    groups = Groups(features, groups.starts, groups.weights)
    lower, upper = solution.aimed or (solution.resolved.lower, solution.resolved.upper)
    lower, upper = np.where(measured, lower, -np.inf), np.where(measured, upper, np.inf)
    whole = _weights(groups, lower, upper, now, None)
    half = _weights(groups, lower, upper, now, k // 2)
    weights = 2 * whole - half
    weights = np.where(np.isinf(lower), np.minimum(weights, 0), weights)
    weights = np.where(np.isinf(upper), np.maximum(weights, 0), weights)
    return replace(solution, weights=Figures(solution.features, weights))


def _weights(groups: Groups, lower: Array, upper: Array, now: Array, block: int | None) -> Array:
    """λ′ at k = `block`, all of a prompt's answers where None."""
    unit = spread(groups, joint=False)
    scale = np.where(unit > 0, unit, 1.0)
    beside = Groups(np.column_stack([groups.values, -groups.values @ now]), groups.starts, groups.weights)
    source = tilted(beside, np.append(scale, 1.0), block=block)
    low, high = groups.above(lower) / scale, groups.above(upper) / scale
    at = maximise(_Held(source), low, high, now * scale)
    if at.kkt > 1e-6:
        raise ValueError(
            "the palette cannot be had by choosing among the trained model's answers: train for more steps, ask a "
            "little less, or draw more answers"
        )
    return at.weights / scale


@dataclass(frozen=True)
class _Held:
    """A source whose last feature, −λᵀf of the weights that made it, keeps weight one."""

    source: Tilted

    @property
    def size(self) -> int:
        return self.source.size - 1

    def pass_(self, weights: Array) -> Tilt:
        tilt = self.source.pass_(np.append(weights, 1.0))
        return Tilt(tilt.log_partition, tilt.levels[:-1], tilt.covariance[:-1, :-1], np.inf)

    def support(self, direction: Array) -> tuple[float, Array]:
        value, point = self.source.support(np.append(direction, 0.0))
        return value, point[:-1]
