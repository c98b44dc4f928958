"""A palette posed on a pilot: groups, features and bounds, which is all that the mathematics needs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from valuepalette.dual import Optimum, evaluate_at, optimise
from valuepalette.palette import Palette, Resolved, resolve
from valuepalette.pilot import Pilot
from valuepalette.tilting import Array, Groups

__all__ = ["Candidates", "Posed", "extrapolated", "pose"]

Candidates = int | Literal["limit"] | None


@dataclass(frozen=True)
class Posed:
    """A palette resolved on a pilot: everything that solving needs."""

    pilot: Pilot
    palette: Palette
    groups: Groups
    resolved: Resolved
    candidates: Candidates
    joint: bool
    weighting: str
    seed: int

    @property
    def block(self) -> int | None:
        """k for the mathematics; None where all of a prompt's candidates, or all rows, are one group."""
        return self.candidates if isinstance(self.candidates, int) else None

    def optimise(self, block: int | None) -> Optimum:
        lower, upper = self.resolved.lower, self.resolved.upper
        return optimise(self.groups, lower, upper, joint=self.joint, block=block, seed=self.seed)

    def evaluate(self, weights: Array, block: int | None) -> Optimum:
        return evaluate_at(self.groups, weights, joint=self.joint, block=block, seed=self.seed)

    @property
    def half(self) -> int:
        return int(self.groups.sizes[0]) // 2


def pose(
    pilot: Pilot,
    palette: Palette,
    candidates: Candidates,
    mode: Literal["prompt", "joint"] | None,
    weighting: str,
    seed: int,
) -> Posed:
    """Resolves `palette` on `pilot`; ValueError of one line for a k, mode or weighting that makes no sense there."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, got {seed!r}")
    if mode not in (None, "prompt", "joint"):
        raise ValueError(f'mode must be "prompt", "joint" or None, got {mode!r}')
    groups = pilot.groups(weighting)
    choice = float(groups.weights[groups.sizes > 1].sum())
    joint = mode == "joint" or (mode is None and choice < 0.5)
    if joint and mode is None:
        warnings.warn(
            f"only {choice:.0%} of the prompts have two candidates or more, so prompts are re-weighted too "
            '(mode="joint"); a decoder, which cannot, reaches less',
            stacklevel=3,
        )
    k = _candidates(groups, candidates, joint)
    within = int(groups.sizes.max()) if not isinstance(k, int) else k
    scales = {name: pilot.scale(name) for name in pilot.values}
    columns = {name: pilot.column(name) for name in palette.columns if name in pilot.table.column_names}
    resolved = resolve(
        palette, groups, pilot.values, candidates=within, joint=joint, scales=scales, columns=columns
    )
    by_row = {name: np.repeat(entries, groups.sizes) for name, entries in columns.items()}
    table = resolved.features_of(groups.values, pilot.values, by_row)
    features = Groups(table, groups.starts, groups.weights)
    return Posed(pilot, palette, features, resolved, k, joint, weighting, int(seed))


def _candidates(groups: Groups, candidates: Candidates, joint: bool) -> Candidates:
    """The k to calibrate for, checked against the pilot."""
    sizes = groups.sizes
    if joint:
        if candidates is not None:
            raise ValueError(f"candidates must be None in joint mode, which has no k, got {candidates!r}")
        return None
    uniform = int(sizes[0]) if (sizes == sizes[0]).all() else None
    if candidates is None:
        if uniform is None:
            raise ValueError(
                "candidates must say k where prompts have different numbers of candidates: "
                f"any from 1 to the smallest, {sizes.min()}, got None"
            )
        return uniform
    if candidates == "limit":
        if uniform is None or uniform < 4 or uniform % 2:
            raise ValueError(
                'candidates="limit" needs a pilot with the same even number of candidates, 4 or more, for every '
                f"prompt, got {sizes.min()} to {sizes.max()}"
            )
        return "limit"
    if isinstance(candidates, bool) or not isinstance(candidates, int | np.integer) or candidates < 1:
        raise ValueError(f'candidates must be a positive integer, "limit" or None, got {candidates!r}')
    short = np.flatnonzero(sizes < candidates)
    if len(short):
        named = ", ".join(str(g) for g in short[:5]) + (", …" if len(short) > 5 else "")
        raise ValueError(
            f"candidates must be at most each prompt's own number, got {candidates} where {len(short)} prompts have "
            f"fewer (prompts {named}, counted from 0 in order of appearance; the smallest has {sizes.min()})"
        )
    return int(candidates)


def extrapolated(whole: Optimum, half: Optimum) -> Optimum:
    """Twice the figures at K less those at K/2: what is of order 1/k cancels."""
    names = ("levels", "prompt_levels", "log_partition", "kl")
    return replace(whole, **{name: 2 * getattr(whole, name) - getattr(half, name) for name in names})
