"""The levels of two values that can be had together: where every trade-off between them ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from valuepalette.grouping import Array, Groups
from valuepalette.laying import tilted
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import pose
from valuepalette.tilting import spread

__all__ = ["Region", "region"]


@dataclass(frozen=True, eq=False)
class Region:
    """What levels of two values some choice among the candidates has; a convex set.

    values      the two, in the order of all pairs
    base        (2,) levels of the base model
    points      (n, 2) corners, counter-clockwise; every level inside can be had
    error       how far beyond them the region may go, in within-prompt standard deviations
    candidates  the k it holds for; None in joint mode
    """

    values: tuple[str, str]
    base: Array
    points: Array
    error: float
    candidates: int | None


def region(
    pilot: Pilot,
    first: str,
    second: str,
    candidates: int | None = None,
    *,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    directions: int = 180,
) -> Region:
    """The reachable levels of two values, all others left free, from the farthest level in each of many directions.

    candidates, mode, weighting  as for `solve`
    directions                   evenly spread in units of within-prompt standard deviations; 8 or more

    Raises ValueError for a value that is unknown or never varies.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 0.0], "tone": [0.0, 0.0, 1.0]}, prompt_id=[0, 0, 0])
    >>> found = region(pilot, "humor", "tone")
    >>> found.points.round(3).tolist()
    [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    """
    if first == second:
        raise ValueError(f"first and second must be two values, got {first!r} twice")
    if isinstance(directions, bool) or not isinstance(directions, int) or directions < 8:
        raise ValueError(f"directions must be a whole number, 8 or more, got {directions!r}")
    if candidates == "limit":
        raise ValueError('candidates must be a number here: what k → ∞ reaches no pilot tells, got "limit"')
    posed = pose(pilot, Palette({first: "free", second: "free"}), candidates, mode, weighting, 0)
    at = [posed.resolved.features.index(name) for name in (first, second)]
    groups = Groups(posed.groups.values[:, at], posed.groups.starts, posed.groups.weights)
    scale = spread(groups, joint=posed.joint)
    for name, unit in zip((first, second), scale, strict=True):
        if not unit:
            raise ValueError(f"{name!r} must vary between answers to one prompt, got a value that never does")
    source = tilted(groups, scale, joint=posed.joint)
    k = posed.block
    whole = posed.joint or k is None or bool((groups.sizes == k).all())
    angles = 2 * np.pi * np.arange(directions) / directions
    towards = np.column_stack([np.cos(angles), np.sin(angles)])
    found = [source.support(each) if whole else source.subset_support(each, k or 1) for each in towards]
    heights, points = np.array([height for height, _ in found]), np.array([point for _, point in found])
    fresh = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1) > 1e-12
    return Region(
        (first, second),
        groups.base,
        groups.base + points[fresh] * scale,
        _beyond(towards, heights, points),
        k,
    )


def _beyond(towards: Array, heights: Array, points: Array) -> float:
    """The largest distance from the polygon of points to the corners of the one that their tangents make."""
    after, highest, then = np.roll(towards, -1, axis=0), np.roll(heights, -1), np.roll(points, -1, axis=0)
    corners = np.linalg.solve(
        np.stack([towards, after], axis=1), np.stack([heights, highest], axis=1)[:, :, None]
    )
    away, along = corners[:, :, 0] - points, then - points
    size = np.maximum((along**2).sum(axis=1), np.finfo(float).tiny)
    share = np.clip((away * along).sum(axis=1) / size, 0, 1)
    return float(np.linalg.norm(away - share[:, None] * along, axis=1).max())
