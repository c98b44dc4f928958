"""Weights without levels: λ drawn at random, and λ of palettes drawn at random (paper, Section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valuepalette.dual import Status
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import reach, solve

__all__ = ["Drawn", "palette_weights", "simplex_draws", "simplex_weights"]

_TRIES = 100  # palettes for each solution that is wanted


@dataclass(frozen=True)
class Drawn:
    """Solutions of palettes drawn at random.

    solutions  those kept
    tried      how many palettes were drawn for them
    had        how many of these could be had, whatever their weights
    """

    solutions: tuple[Solution, ...]
    tried: int
    had: int


def simplex_weights(
    pilot: Pilot,
    values: Sequence[str],
    count: int,
    candidates: int | None = None,
    *,
    bound: float = 6.0,
    weighting: str = "prompts",
    seed: int = 0,
) -> tuple[Solution, ...]:
    """MORL's way: λ = s·u, s uniform on (0, `bound`) and u uniform on the simplex over `values`, raw units.

    `candidates` is k of the decoder that will use them. Each comes as a solution, so that it can be decoded and
    judged like one.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0], "tone": [1.0, 0.0]}, prompt_id=[0, 0])
    >>> [round(float(sum(found.weights.array)), 2) for found in simplex_weights(pilot, ["humor", "tone"], 3)]
    [3.82, 0.1, 3.64]
    """
    _check(pilot, values, count, bound)
    return tuple(
        Solution.from_weights(pilot, weights, candidates, weighting=weighting)
        for weights in simplex_draws(values, count, bound, seed)
    )


def simplex_draws(values: Sequence[str], count: int, bound: float, seed: int) -> list[dict[str, float]]:
    """`count` times λ = s·u by value, s uniform on (0, `bound`) and u uniform on the simplex."""
    rng = np.random.default_rng(seed)
    drawn = (rng.uniform(0, bound) * rng.dirichlet(np.ones(len(values))) for _ in range(count))
    return [dict(zip(values, weights.tolist(), strict=True)) for weights in drawn]


def palette_weights(
    pilot: Pilot,
    values: Sequence[str],
    count: int,
    candidates: int | None = None,
    *,
    bound: float = 6.0,
    weighting: str = "prompts",
    seed: int = 0,
) -> Drawn:
    """λ of palettes that ask each of `values` for a level between its base and the most it can reach alone.

    Levels are uniform and independent; a palette is kept if it can be had with Σ|λ| ≤ `bound`, raw units. So every
    solution improves all of `values`, on the pilot.

    Raises ValueError where a hundred palettes for each solution do not suffice.
    """
    _check(pilot, values, count, bound)
    rng = np.random.default_rng(seed)
    ends = [reach(pilot, None, value, candidates, weighting=weighting) for value in values]
    solutions: list[Solution] = []
    had = 0
    for tried in range(1, _TRIES * count + 1):
        palette = Palette({end.value: float(rng.uniform(end.base, end.high)) for end in ends})
        found = solve(pilot, palette, candidates, weighting=weighting, on_infeasible="return")
        had += found.certificate is None
        if found.status is Status.OPTIMAL and np.abs(found.weights.array).sum() <= bound:
            solutions.append(found)
            if len(solutions) == count:
                return Drawn(tuple(solutions), tried, had)
    raise ValueError(
        f"bound must leave palettes enough: of {_TRIES * count} drawn, {had} can be had and {len(solutions)} have "
        f"weights that sum to {bound:g} at most, {count} are wanted"
    )


def _check(pilot: Pilot, values: Sequence[str], count: int, bound: float) -> None:
    if isinstance(values, str) or not values or len(set(values)) < len(values):
        raise ValueError(f"values must be a list of different names, got {values!r}")
    if unknown := [value for value in values if value not in pilot.values]:
        raise ValueError(
            f"values must be among the pilot's ({', '.join(pilot.values)}), got {', '.join(unknown)}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if not 0 < bound < float("inf"):
        raise ValueError(f"bound must be positive and finite, got {bound}")
