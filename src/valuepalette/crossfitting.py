"""Cross-fitted levels: what weights give on prompts of the pilot that had no part in finding them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valuepalette.dual import Status, evaluate_at
from valuepalette.figures import Figures
from valuepalette.grouping import Array, Groups
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.posing import Candidates, pose
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.tabulating import bounds, decimals, number, table, with_error
from valuepalette.uncertainty import errors

__all__ = ["CrossFit", "crossfit"]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Levels on prompts that the weights have not seen; `str()` is a table.

    solution  of the whole pilot
    levels    on each fold by the weights of the others, over all prompts, with the error over prompts; gains likewise
    weights   (folds, m) λ without each fold; nan where the palette cannot be had there
    fold      (N,) of which fold each prompt is
    left_out  folds without which the palette cannot be had by finite weights: their prompts are in no figure
    """

    solution: Solution
    levels: Figures
    gains: Figures
    weights: Array
    fold: Array
    left_out: tuple[int, ...]

    def __str__(self) -> str:
        solution = self.solution
        rows: list[list[str]] = []
        for i, name in enumerate(solution.features):
            places = decimals(self.levels.se[i], level=self.levels.array[i])
            fine = decimals(self.gains.se[i], level=self.gains.array[i])
            rows.append(
                [
                    name,
                    solution.asked[name],
                    bounds(solution.lower[i], solution.upper[i], places),
                    number(solution.levels.array[i], places),
                    with_error(self.levels.array[i], self.levels.se[i], places),
                    number(round(solution.gains.array[i], fine) + 0.0, fine, "+"),
                    with_error(self.gains.array[i], self.gains.se[i], fine, "+"),
                ]
            )
        heads = ["", "asked", "target", "level", "cross-fitted", "gain", "cross-fitted"]
        lines = table(heads, rows, left=(0, 1), spare=(1, 2))
        lines += [
            "",
            f"{len(self.weights)} folds of {solution.prompts:,} prompts; ± one standard error, by prompt",
        ]
        if self.left_out:
            lines.append(
                f"Without {len(self.left_out)} of the folds the palette cannot be had; they are left out."
            )
        if solution.mode == "joint":
            lines.append("Joint mode: standard errors are indicative")
        return "\n".join(lines)


def crossfit(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    folds: int = 5,
    seed: int = 0,
    *,
    candidates: Candidates = None,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
) -> CrossFit:
    """The levels of a palette's weights on prompts that had no part in finding them.

    The prompts are cut into folds at random. For each fold the palette is resolved and solved on the others, bounds,
    base levels and thresholds included; the fold says what those weights give. It is a check on the pilot's own
    levels, whose bias is of order 1/N, and no cure: the weights are those of (folds − 1)/folds of the prompts.

    candidates, mode, weighting, seed  as for `solve`; the seed also cuts the folds

    Raises what `solve` raises, and ValueError where no fold can be left out.

    >>> rng = np.random.default_rng(0)
    >>> pilot = Pilot.from_arrays({"humor": rng.normal(size=400)}, prompt_id=np.repeat(np.arange(100), 4))
    >>> found = crossfit(pilot, {"humor": "+0.3"})
    >>> abs(found.gains["humor"] - 0.3) < 0.1, np.bincount(found.fold).tolist()
    (True, [20, 20, 20, 20, 20])
    """
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= pilot.prompts:
        raise ValueError(
            f"folds must lie between 2 and the {pilot.prompts} prompts of the pilot, got {folds!r}"
        )
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    whole = solve(pilot, palette, candidates, mode=mode, weighting=weighting, seed=seed)
    groups = pose(pilot, palette, candidates, whole.mode, weighting, seed).groups
    fold = np.random.default_rng(seed).permutation(np.arange(pilot.prompts) % folds)
    m = len(whole.features)
    weights = np.full((folds, m), np.nan)
    level, gain = np.full((2, pilot.prompts, m), np.nan)
    inside = np.zeros((pilot.prompts, m), bool)
    for f in range(folds):
        there = fold == f
        mine, others = (pilot.select(mask[pilot.prompt_index]) for mask in (there, ~there))
        try:
            found = solve(
                others,
                palette,
                candidates,
                mode=whole.mode,
                weighting=weighting,
                seed=seed,
                on_infeasible="return",
            )
        except ValueError as error:
            raise ValueError(
                f"folds must leave enough of the pilot to solve on, got {folds}: {error}"
            ) from None
        if found.status is not Status.OPTIMAL:
            continue
        weights[f] = found.weights.array
        columns = {name: mine.column(name) for name in found.resolved.columns}
        numbers, base = _at(mine, found, columns, groups.weights[there])
        anchor = np.array([spec.anchor for spec in found.resolved.specs])
        inside[there] = found.resolved.inside_of(columns, mine.prompts)
        level[there], gain[there] = numbers + anchor, numbers - base
    left_out = tuple(int(f) for f in np.flatnonzero(np.isnan(weights).any(axis=1)))
    if len(left_out) == folds:
        raise ValueError(f"folds must leave enough of the pilot to have the palette, got {folds}")
    among = np.where(inside & ~np.isin(fold, left_out)[:, None], groups.weights[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        among = among / among.sum(axis=0)
    level, gain = np.nan_to_num(level), np.nan_to_num(gain)
    return CrossFit(
        whole,
        Figures(whole.features, (among * level).sum(axis=0), errors(level, among)),
        Figures(whole.features, (among * gain).sum(axis=0), errors(gain, among)),
        weights,
        fold,
        left_out,
    )


def _at(pilot: Pilot, solution: Solution, columns: Mapping[str, Array], shares: Array) -> tuple[Array, Array]:
    """Features' level and base of each prompt at the weights of another pilot's solution, (N, m) twice."""
    plain = pilot.groups()
    by_row = {name: np.repeat(entries, plain.sizes) for name, entries in columns.items()}
    features = solution.resolved.features_of(plain.values, pilot.values, by_row)
    groups = Groups(features, plain.starts, shares / shares.sum())
    joint, k = solution.mode == "joint", solution.candidates

    def levels(block: int | None) -> Array:
        at = evaluate_at(groups, solution.weights.array, joint=joint, block=block, seed=solution.seed)
        return at.prompt_levels

    if k == "limit":
        return 2 * levels(None) - levels(int(plain.sizes[0]) // 2), groups.means
    return levels(k if isinstance(k, int) else None), groups.means
