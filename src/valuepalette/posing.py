"""A palette posed on a pilot: groups, features and bounds, which is all that the mathematics needs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valuepalette.dual import Optimum, evaluate_at, optimise
from valuepalette.features import Resolved
from valuepalette.grouping import Array, Groups
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.resolving import featured, resolve
from valuepalette.tilting import spread

__all__ = [
    "Candidates",
    "Posed",
    "calibrated",
    "check",
    "check_units",
    "extrapolated",
    "pose",
    "reweighs_prompts",
]

SMALLEST = 1e-100
"""A spread below this is refused: its square would leave what float64 can hold."""
FARTHEST = 1e6
"""A bound so many standard deviations from the base level is refused: no pilot comes near, and linear programmes would
call it infinite."""

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
    check(mode, seed)
    groups = pilot.groups(weighting)
    joint = reweighs_prompts(mode, float(groups.weights[groups.sizes > 1].sum()), 4)
    if candidates is None and not joint:
        _check_ragged(groups.sizes)
    k = calibrated(groups.sizes, candidates, joint)
    within = int(groups.sizes.max()) if not isinstance(k, int) else k
    scales = {name: pilot.scale(name) for name in pilot.values}
    columns = {name: pilot.column(name) for name in palette.columns if name in pilot.table.column_names}
    resolved = resolve(
        palette, groups, pilot.values, candidates=within, joint=joint, scales=scales, columns=columns
    )
    features = featured(resolved.specs, groups, pilot.values, columns)
    ends = np.array([features.above(resolved.lower), features.above(resolved.upper)])
    check_units(resolved, spread(features, joint=joint), ends)
    return Posed(pilot, palette, features, resolved, k, joint, weighting, int(seed))


def check_units(resolved: Resolved, scale: Array, ends: Array) -> None:
    """Numbers that float64 can compute with: spreads whose squares it holds, bounds not absurdly far away.

    `scale` (m,) are the spreads, `ends` (2, m) the bounds less the base level.
    """
    for i in np.flatnonzero(scale < SMALLEST):
        # The square of the least spreads is zero: then the numbers are asked themselves.
        if scale[i] > 0 or 0 < np.ptp(resolved.quantiles[i]) < SMALLEST:
            raise ValueError(
                f"{resolved.features[i]} varies by less than {SMALLEST:g}, which cannot be computed with; give it in "
                "larger units"
            )
    far = np.isfinite(ends) & (scale > 0) & (np.abs(ends) > FARTHEST * scale)
    for i in np.flatnonzero(far.any(axis=0)):
        away = np.abs(ends[far[:, i], i]).max() / scale[i]
        raise ValueError(
            f"palette[{resolved.features[i]!r}]: {resolved.asked[i]} lies {away:.2g} standard deviations from the base "
            f"level {resolved.reported(resolved.base)[i]:.6g}, at most {FARTHEST:g} are allowed; is it in the value's "
            "units?"
        )


def check(mode: object, seed: object) -> None:
    """ValueError of one line where these are nothing to solve with."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, got {seed!r}")
    if mode not in (None, "prompt", "joint"):
        raise ValueError(f'mode must be "prompt", "joint" or None, got {mode!r}')


def reweighs_prompts(mode: str | None, choice: float, stacklevel: int) -> bool:
    """Whether the mode is "joint"; `choice` is the weight of the prompts with two candidates or more."""
    joint = mode == "joint" or (mode is None and choice < 0.5)
    if joint and mode is None:
        warnings.warn(
            f"only {choice:.0%} of the prompts have two candidates or more, so prompts are re-weighted too "
            '(mode="joint"); a decoder, which cannot, reaches less',
            stacklevel=stacklevel,
        )
    return joint


def _check_ragged(sizes: NDArray[np.intp]) -> None:
    """ValueError where prompts have different numbers of candidates, with the few that hold the others back."""
    least = int(sizes.min())
    if least == sizes.max():
        return
    more = int(np.unique(sizes)[1])
    raise ValueError(
        "candidates must say k where prompts have different numbers of candidates: any from 1 to the smallest, "
        f"{least}, which {(sizes == least).sum()} of {len(sizes)} prompts have, got None; for k = {more} leave those "
        f"out: pilot.select(pilot.sizes[pilot.prompt_index] >= {more})"
    )


def calibrated(sizes: NDArray[np.intp], candidates: Candidates, joint: bool) -> Candidates:
    """The k to calibrate for, checked against the numbers of candidates of the prompts."""
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
        left = f"pilot.select(pilot.sizes[pilot.prompt_index] >= {candidates})"
        raise ValueError(
            f"candidates must be at most each prompt's own number, got {candidates} where {len(short)} prompts have "
            f"fewer (prompts {named}, counted from 0 in order of appearance; the smallest has {sizes.min()})"
            + (f"; leave them out: {left}" if len(short) < len(sizes) else "")
        )
    return int(candidates)


def extrapolated(whole: Optimum, half: Optimum) -> Optimum:
    """Twice the figures at K less those at K/2: what is of order 1/k cancels."""
    names = ("levels", "prompt_levels", "log_partition", "kl")
    return replace(whole, **{name: 2 * getattr(whole, name) - getattr(half, name) for name in names})
