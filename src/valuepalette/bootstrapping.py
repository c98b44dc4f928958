"""The bootstrap over prompts: how weights, levels and gains scatter were the pilot drawn again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from valuepalette.dual import Status
from valuepalette.figures import Figures
from valuepalette.grouping import Array, Groups
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import Candidates, Posed, pose
from valuepalette.quantities import Quantile
from valuepalette.resampling import Resamples, draw, resample, resampled_quantiles
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.tabulating import decimals, number, table

__all__ = ["Bootstrap", "Ranges", "bootstrap"]


class Ranges(Mapping[str, tuple[float, float]]):
    """An interval per feature, by name, and the draws behind it.

    low, high  (m,) ends; equal where nothing moves, nan where there is nothing to go by
    draws      (B, m) one row per resample; nan on those where the palette cannot be had

    >>> Ranges(("humor",), np.linspace(0, 1, 101)[:, None], 0.9)
    humor 0.05 to 0.95
    """

    def __init__(self, names: Sequence[str], draws: Array, confidence: float) -> None:
        self.names = tuple(names)
        self.draws = draws
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice")
            ends = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        self.low, self.high = ends

    @property
    def se(self) -> Array:
        """(m,) the standard deviation of the draws."""
        known = self.draws[~np.isnan(self.draws).any(axis=1)]
        return known.std(axis=0, ddof=1) if len(known) > 1 else np.full(len(self.names), np.nan)

    def __getitem__(self, name: str) -> tuple[float, float]:
        if name not in self.names:
            raise KeyError(f"{name!r} is none of {', '.join(self.names)}")
        at = self.names.index(name)
        return float(self.low[at]), float(self.high[at])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        each = zip(self.names, self.low, self.high, strict=True)
        return ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, low, high in each)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """What a palette gives on resamples of the pilot's prompts; `str()` is a table.

    solution    of the pilot itself
    weights     percentile intervals of λ. Of a weight that is zero the interval starts there: 0 to what it could be
    levels      intervals of the level of the solution's weights on new prompts; gains likewise
    optimism    by how much a pilot flatters the weights that were solved on it: the level they have there less the
                one they have on all prompts, on average, with the error of that average
    confidence  of the intervals, two-sided
    resamples   B
    infeasible  the share of resamples on which the palette cannot be had, or only on the boundary
    residual    the largest KKT residual of all resamples that were solved, in within-prompt standard deviations
    """

    solution: Solution
    weights: Ranges
    levels: Ranges
    gains: Ranges
    optimism: Figures
    confidence: float
    resamples: int
    infeasible: float
    residual: float

    def __str__(self) -> str:
        solution = self.solution
        heads = [
            "",
            "asked",
            "level",
            "on new prompts",
            "gain",
            "on new prompts",
            "weight",
            "on other pilots",
        ]
        rows: list[list[str]] = []
        for name in solution.features:
            row = [name, solution.asked[name]]
            for figures, ranges in (
                (solution.levels, self.levels),
                (solution.gains, self.gains),
                (solution.weights, self.weights),
            ):
                low, high = ranges[name]
                places = decimals(high - low, level=figures[name])
                free = figures is solution.weights and solution.asked[name] == "free"
                row.append("" if free else number(round(figures[name], places) + 0.0, places))
                row.append("" if free or np.isnan(low) else f"{number(low, places)} … {number(high, places)}")
            rows.append(row)
        lines = [
            f"{self.confidence:.3g} intervals from {self.resamples:,} resamples of {solution.prompts:,} prompts", "",
            *table(heads, rows, left=(0, 1), spare=(4, 5, 1)),
        ]  # fmt: skip
        if self.infeasible:
            lines += [
                "",
                f"On {self.infeasible:.1%} of the resamples the palette cannot be had; they are left out.",
            ]
        if solution.mode == "joint":
            lines += ["", "Joint mode: the intervals are indicative; with heavy tails they hold too seldom."]
        return "\n".join(lines)


def bootstrap(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    resamples: int = 1000,
    seed: int = 0,
    *,
    candidates: Candidates = None,
    confidence: float = 0.95,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
) -> Bootstrap:
    """Solves a palette on resamples of the pilot's prompts, drawn with replacement: the prompt is the unit.

    On every resample all that comes from the pilot is taken anew, exactly: base levels, "keep", offsets, factors,
    reach, quantiles, and which of several entries binds. Taken as given are the threshold of a tail that is a
    quantile, the level found for "max", and in joint mode the largest row behind "reach". Each resample is solved to a
    KKT residual of 1e-6 within-prompt standard deviations.

    A binding level equals its bound on every resample, which says nothing. What scatters is how much that differs
    from what the same weights have on all prompts; so, with L* the level of a resample's weights on the resample and
    L° theirs on the pilot, the interval is that of level + L° − L*: where the level on new prompts may lie.

    resamples   B
    candidates, mode, weighting, seed  as for `solve`; the seed also draws the prompts

    Raises what `solve` raises. Efron and Tibshirani, An Introduction to the Bootstrap, chapters 13 and 17.

    >>> rng = np.random.default_rng(0)
    >>> pilot = Pilot.from_arrays({"humor": rng.normal(size=400)}, prompt_id=np.repeat(np.arange(100), 4))
    >>> found = bootstrap(pilot, {"humor": "+0.3"}, 200)
    >>> found.weights["humor"][0] < found.solution.weights["humor"] < found.weights["humor"][1]
    True
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 2:
        raise ValueError(f"resamples must be a whole number, 2 or more, got {resamples!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}")
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    solution = solve(pilot, palette, candidates, mode=mode, weighting=weighting, seed=seed)
    setup = pose(pilot, palette, candidates, solution.mode, weighting, seed)
    setup = replace(setup, resolved=replace(solution.resolved, inside=setup.resolved.inside))
    groups, resolved = setup.groups, setup.resolved
    times = draw(len(groups.sizes), resamples, seed)
    shares = times * groups.weights
    shares /= shares.sum(axis=1, keepdims=True)
    lower, upper = _bounds(setup, times, shares)
    start = solution.weights.array
    if solution.status is not Status.OPTIMAL or setup.candidates == "limit":
        start = np.zeros(len(start))

    def at(block: int | None) -> Resamples:
        return resample(groups, start, shares, lower, upper, joint=setup.joint, block=block, seed=seed)

    found = at(setup.block)
    if setup.candidates == "limit":
        found = _to_the_limit(found, at(setup.half), lower, upper)
    inside = (
        np.ones((len(groups.sizes), len(resolved.features))) if resolved.inside is None else resolved.inside
    )
    there = shares @ inside
    anchor, whole = resolved.reported(np.zeros(len(resolved.features))), resolved.factor
    factor = 1 / np.where(there > 0, there, np.nan)
    on_resample, on_pilot = anchor + factor * found.levels, anchor + whole * found.whole
    gained = factor * (found.levels - found.bases), whole * (found.whole - groups.base)
    flattered = on_resample - on_pilot
    known = flattered[found.solved]
    names = resolved.features
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        warnings.filterwarnings("ignore", "Degrees of freedom")
        optimism = np.nanmean(known, axis=0), np.nanstd(known, axis=0, ddof=1) / np.sqrt(len(known))
    return Bootstrap(
        solution,
        Ranges(names, found.weights, confidence),
        Ranges(names, solution.levels.array - flattered, confidence),
        Ranges(names, solution.gains.array + gained[1] - gained[0], confidence),
        Figures(names, *optimism),
        float(confidence),
        int(resamples),
        1 - float(found.solved.mean()),
        float(found.residual[found.solved].max(initial=0.0)),
    )


def _to_the_limit(whole: Resamples, half: Resamples, lower: Array, upper: Array) -> Resamples:
    """Twice the figures at K less those at K/2, as `solve` has it for k → ∞."""
    weights = 2 * whole.weights - half.weights
    weights = np.where(np.isinf(lower), np.minimum(weights, 0), weights)
    return replace(
        whole,
        weights=np.where(np.isinf(upper), np.maximum(weights, 0), weights),
        levels=2 * whole.levels - half.levels,
        whole=2 * whole.whole - half.whole,
        solved=whole.solved & half.solved,
    )


def _bounds(setup: Posed, times: Array, shares: Array) -> tuple[Array, Array]:
    """What the palette asks on each resample, (B, m) twice, in the units of the features.

    All bounds but a pooled quantile are means over prompts of what each prompt brings, ψ_g and a constant, so they
    follow the shares exactly.
    """
    resolved, palette = setup.resolved, setup.palette
    shape = (len(shares), len(resolved.features))
    lower, upper = np.full(shape, -np.inf), np.full(shape, np.inf)
    moved = shares - setup.groups.weights
    taken: dict[tuple[int, float], Array] = {}
    for one in palette.single():
        mode = "joint" if setup.joint else "prompt"
        part = pose(setup.pilot, one, setup.candidates, mode, setup.weighting, setup.seed).resolved
        low, high = part.lower + moved @ part.influence_lower, part.upper + moved @ part.influence_upper
        for subject, asks in one.asks.items():
            if asks and isinstance(asks[0].quantity, Quantile):
                i = resolved.features.index(str(subject))
                share = asks[0].quantity.percent / 100
                if (i, share) not in taken:
                    taken[i, share] = _quantiles(setup, i, share, times, shares)
                if np.isfinite(part.lower[i]):
                    low[:, i] = taken[i, share]
                if np.isfinite(part.upper[i]):
                    high[:, i] = taken[i, share]
        lower, upper = np.maximum(lower, low), np.minimum(upper, high)
    for name in palette.maximised:
        i = resolved.features.index(name)
        lower[:, i] = np.maximum(lower[:, i], resolved.lower[i])
    return lower, upper


def _quantiles(setup: Posed, i: int, share: float, times: Array, shares: Array) -> Array:
    """The bound "q" on feature i on each resample, (B,): the quantile among its own prompts."""
    groups, spec = setup.groups, setup.resolved.specs[i]
    inside = (
        np.ones(len(groups.sizes), bool) if setup.resolved.inside is None else setup.resolved.inside[:, i]
    )
    rows = np.repeat(inside, groups.sizes)
    starts = np.concatenate([[0], np.cumsum(groups.sizes[inside])])
    own = Groups(groups.values[rows, i : i + 1], starts, groups.weights[inside])
    level = resampled_quantiles(own, times[:, inside], share)
    # Of a cohort that was not drawn there is no quantile, and nothing to ask.
    return level if spec.cohort is None else np.nan_to_num(level) * shares[:, inside].sum(axis=1)
