"""The function that solving climbs, on a grid of weights (paper, Figure 12)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valuepalette.grouping import Array
from valuepalette.laying import tilted
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import pose
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.tilting import spread

__all__ = ["Landscape", "landscape"]


@dataclass(frozen=True, eq=False)
class Landscape:
    """The dual objective over the weights of one or two features, those of the others held at the optimum.

    g(λ) = Σ λ_i⁺ lower_i − λ_i⁻ upper_i − F(λ), concave; its largest value is the KL of the solution.

    features  one or two names
    grid      of each feature, (n,) weights, in its own units
    heights   (n,) or (n₁, n₂) g in nats
    solution  its optimum
    """

    features: tuple[str, ...]
    grid: tuple[Array, ...]
    heights: Array
    solution: Solution

    @property
    def at(self) -> Array:
        """(1,) or (2,) the optimal weights."""
        return np.array([self.solution.weights[name] for name in self.features])


def landscape(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    features: Sequence[str] | None = None,
    candidates: int | None = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
    steps: int = 41,
) -> Landscape:
    """The dual objective of a palette around its optimum.

    features  one or two that the palette asks of; None takes the first one or two
    steps     of the grid along each feature, which reaches from 0, where a bound allows no other sign, to twice the
              optimal weight, and at least one within-prompt standard deviation's worth

    Raises Infeasible and ValueError as `solve` does, and ValueError for "max", whose bound is no number of the palette.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    >>> found = landscape(pilot, {"humor": 0.75})
    >>> round(float(found.heights.max()), 4), round(found.solution.kl, 4)
    (0.1308, 0.1308)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 3:
        raise ValueError(f"steps must be a whole number, 3 or more, got {steps!r}")
    if candidates == "limit":
        raise ValueError('candidates must be a number here: k → ∞ has no dual on a pilot, got "limit"')
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    if palette.maximised:
        raise ValueError(f'palette must ask no "max", whose bound depends on the rest, got {palette!r}')
    posed = pose(pilot, palette, candidates, mode, weighting, seed)
    resolved, groups = posed.resolved, posed.groups
    bound = np.isfinite(resolved.lower) | np.isfinite(resolved.upper)
    asked = [name for name, one in zip(resolved.features, bound, strict=True) if one]
    chosen = tuple(asked[:2] if features is None else features)
    if (
        not 1 <= len(chosen) <= 2
        or len(set(chosen)) < len(chosen)
        or any(name not in asked for name in chosen)
    ):
        raise ValueError(
            f"features must be one or two of what the palette asks of ({', '.join(asked) or 'none'}), got "
            f"{', '.join(chosen) or 'none'}"
        )
    solution = solve(pilot, palette, candidates, mode=mode, weighting=weighting, seed=seed)
    if len(solution.faces):
        raise ValueError(
            "palette must lie inside what can be had, where weights are finite, got one on the very edge"
        )
    scale = spread(groups, joint=posed.joint)
    source = tilted(groups, scale, joint=posed.joint, block=posed.block, seed=posed.seed)
    low, high = groups.above(resolved.lower) / source.scale, groups.above(resolved.upper) / source.scale
    best = solution.weights.array * source.scale
    places = [resolved.features.index(name) for name in chosen]
    grids = [_grid(best[i], math.isfinite(low[i]), math.isfinite(high[i]), steps) for i in places]
    heights = np.empty([len(grid) for grid in grids])
    for where in np.ndindex(heights.shape):
        weights = best.copy()
        weights[places] = [grid[i] for grid, i in zip(grids, where, strict=True)]
        pull = np.where(weights > 0, low, high)
        gained = float(weights[weights != 0] @ pull[weights != 0])
        heights[where] = gained - source.pass_(weights).log_partition
    return Landscape(
        chosen,
        tuple(grid / source.scale[i] for grid, i in zip(grids, places, strict=True)),
        heights,
        solution,
    )


def _grid(best: float, from_below: bool, from_above: bool, steps: int) -> Array:
    """Weights per standard deviation of the signs that a feature's bounds allow, the best one among them."""
    far = max(2 * abs(best), 1.0)
    low, high = (-far if from_above else 0.0), (far if from_below else 0.0)
    grid = np.linspace(low, high, steps)
    grid[np.abs(grid - best).argmin()] = best
    return grid
