"""Weights at random, and which of them make nothing worse (paper, Figure 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import pose
from valuepalette.tilting import spread

__all__ = ["Cloud", "cloud"]


@dataclass(frozen=True, eq=False)
class Cloud:
    """Weights drawn at random, with the levels they have.

    values      m names
    weights     (n, m) λ, of values counted in their own unit or in within-prompt standard deviations
    levels      (n, m) E_λ r
    base        (m,)
    desirable   (n,) where no level lies below the base's
    radius      Σ λ_i at most
    per         "deviation" or "unit": what the weights are by
    candidates  the k it holds for; None in joint mode
    """

    values: tuple[str, ...]
    weights: Array
    levels: Array
    base: Array
    desirable: NDArray[np.bool_]
    radius: float
    per: Literal["deviation", "unit"]
    candidates: int | None

    @property
    def share(self) -> float:
        """Of weights that are desirable."""
        return float(self.desirable.mean())

    @property
    def se(self) -> float:
        """Of the share, over draws."""
        return math.sqrt(self.share * (1 - self.share) / len(self.desirable))


def cloud(
    pilot: Pilot,
    values: Sequence[str],
    draws: int = 1000,
    candidates: int | None = None,
    *,
    radius: float = 6.0,
    per: Literal["deviation", "unit"] = "deviation",
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
) -> Cloud:
    """How much of what one would try at random improves on every value, or at least takes nothing away.

    λ = s·u with s uniform on (0, `radius`) and u uniform on the simplex (paper, Section 3.3): what one tries who
    does not know how strong a weight to take, nor which mixture.

    per  "deviation" counts a value in within-prompt standard deviations, so that units do not matter; "unit" in its
         own, as the paper does
    candidates, mode, weighting, seed  as for `solve`

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0], "tone": [1.0, 0.0]}, prompt_id=[0, 0])
    >>> cloud(pilot, ["humor"], 50).share, cloud(pilot, ["humor", "tone"], 50).share
    (1.0, 0.0)
    """
    if isinstance(values, str) or not values or len(set(values)) < len(values):
        raise ValueError(f"values must be a list of different names, got {values!r}")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws must be a positive whole number, got {draws!r}")
    number = isinstance(radius, int | float | np.integer | np.floating) and not isinstance(radius, bool)
    if not number or not 0 < radius < math.inf:
        raise ValueError(f"radius must be a positive, finite number, got {radius!r}")
    if per not in ("deviation", "unit"):
        raise ValueError(f'per must be "deviation" or "unit", got {per!r}')
    if candidates == "limit":
        raise ValueError('candidates must be a number here: weights at random have no limit, got "limit"')
    posed = pose(pilot, Palette(dict.fromkeys(values, "free")), candidates, mode, weighting, seed)
    at = [posed.resolved.features.index(name) for name in values]
    groups = Groups(posed.groups.values[:, at], posed.groups.starts, posed.groups.weights)
    scale = spread(groups, joint=posed.joint)
    source = tilted(groups, scale, joint=posed.joint, block=posed.block, seed=posed.seed)
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0, radius, (draws, 1)) * rng.dirichlet(np.ones(len(at)), draws)
    raised = np.array(
        [source.pass_(each if per == "deviation" else each * source.scale).levels for each in weights]
    )
    return Cloud(
        tuple(values),
        weights,
        groups.base + raised * scale,
        groups.base,
        np.all(raised >= -1e-9, axis=1),
        float(radius),
        per,
        posed.block,
    )
