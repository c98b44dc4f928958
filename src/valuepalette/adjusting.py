"""A palette that cannot be had, turned into one that can: what was asked, what is had, what stood in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valuepalette.adjustment import Adjustment, Limit, greedy, interpolate, nearest
from valuepalette.features import Resolved
from valuepalette.figures import Figures
from valuepalette.grouping import Array
from valuepalette.palette import Palette, positive
from valuepalette.pilot import Pilot
from valuepalette.posing import pose
from valuepalette.solution import Solution
from valuepalette.solving import solve

__all__ = ["Adjusted", "Obstacle", "adjust"]

Method = Literal["interpolate", "greedy", "nearest"]


@dataclass(frozen=True)
class Obstacle:
    """Why a feature did not get its ask; `str()` says it.

    by      "reach": no choice among the candidates has more of these values at once; "kl": the budget was spent on them
    values  the features that pull against each other there, the strongest first
    """

    by: Literal["reach", "kl"]
    values: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(self.values)
        return f"reach of {named}" if self.by == "reach" else f"KL, spent on {named}"


@dataclass(frozen=True, eq=False)
class Adjusted:
    """A palette that can be had in place of one that cannot; `str()` is a table.

    palette     asks in numbers where they had to change, as they were elsewhere
    solution    of that palette
    rho         how much of the way from base to ask every feature has gone: the least; 1 if the palette could be had
    inside      how far the asks lie inside the limit, so that finite weights reach them, in within-prompt standard
                deviations: 0 as asked or held by a budget, 1e-6 as a rule, more where k is below the pilot's K
    asked       the level the palette asked for, by feature; of an interval the end that the base level misses
    had         the level the solution has, for the same features, with its standard error
    blocked_by  what stood in the way, for each feature that fell short
    """

    method: Method
    palette: Palette
    solution: Solution
    rho: float
    inside: float
    asked: Figures
    had: Figures
    blocked_by: Mapping[str, Obstacle]

    def __str__(self) -> str:
        if not self.blocked_by:
            return f"The palette can be had as it is.\n\n{self.solution}"
        how = {
            "interpolate": f"{self.rho:.2%} of the way from the base levels to the palette can be had.",
            "greedy": "Value by value, each as far as the earlier ones leave it room.",
            "nearest": "The nearest levels that can be had.",
        }
        width = max(7, *(len(name) for name in self.asked))
        lines = [
            how[self.method],
            "",
            f"{'':{width}}{'base':>11}{'asked':>11}{'had':>11}{'± se':>11}  in the way",
        ]
        for name, asked, had, se in zip(
            self.asked, self.asked.array, self.had.array, self.had.se, strict=True
        ):
            cells = "".join(f"{x:>11.4g}" for x in (self.solution.base[name], asked, had, se))
            lines.append(f"{name:{width}}{cells}  {self.blocked_by.get(name, '')}".rstrip())
        foot = f"KL {self.solution.kl:.3f} nats; {self.solution.status.name}"
        if self.inside:
            foot += f", {self.inside:.1g} standard deviations inside the limit"
        return "\n".join([*lines, "", foot])


def adjust(
    pilot: Pilot,
    palette: Palette | Mapping[str, object],
    candidates: int | None = None,
    *,
    method: Method = "interpolate",
    priority: Sequence[str] | None = None,
    kl: float | None = None,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
) -> Adjusted:
    """The palette nearest in spirit to one that cannot be had, and its solution. One that can be had is left alone.

    interpolate  the largest ρ in [0, 1] with c0 + ρ(c − c0) reachable, c0 the base levels; asks that the base meets
                 stay (paper, Algorithm 3). To 1e-6 within-prompt standard deviations
    greedy       one value after another as far as it can go, the earlier ones held; never above the ask. One that
                 cannot have its ask keeps 95 % of the way it could go, so that later ones have room
    nearest      the closest levels, in within-prompt standard deviations; it may give up a "keep" as well

    priority     greedy's order, names of values or features; those not named follow in the palette's order
    kl           a budget in nats: the KL from the base model that the answer may cost; None for no budget but
                 the palette's own
    candidates, mode, weighting, seed  as for `solve`; "limit" is refused, as no pilot tells what k → ∞ reaches

    Reach is exact, at k below the pilot's K too. The asks are set just inside the limit: at the limit itself
    weights would be infinite. Raises ValueError for a palette that makes no sense on this pilot, or contradicts itself.

    >>> pilot = Pilot.from_arrays({"humor": np.array([0.0, 1.0, 0.0, 1.0])}, prompt_id=np.array([0, 0, 1, 1]))
    >>> found = adjust(pilot, {"humor": 1.5})
    >>> round(found.rho, 4), found.had, str(found.blocked_by["humor"])
    (0.5, humor 1 ± 0, 'reach of humor')
    """
    if method not in ("interpolate", "greedy", "nearest"):
        raise ValueError(f'method must be "interpolate", "greedy" or "nearest", got {method!r}')
    if priority is not None and method != "greedy":
        raise ValueError(f'priority is for method="greedy", got {priority!r} and method={method!r}')
    if candidates == "limit":
        raise ValueError('candidates must be a number here: what k → ∞ reaches no pilot tells, got "limit"')
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    kl = palette.kl if kl is None else positive("kl", kl)
    setup = pose(pilot, palette, candidates, mode, weighting, seed)
    resolved, groups = setup.resolved, setup.groups
    _refuse_contradictions(resolved)
    bounds = resolved.lower, resolved.upper
    if method == "greedy":
        order = _order(resolved, priority or ())
        found = greedy(groups, *bounds, order, joint=setup.joint, block=setup.block, seed=seed, kl=kl)
    else:
        along = interpolate if method == "interpolate" else nearest
        found = along(groups, *bounds, joint=setup.joint, block=setup.block, seed=seed, kl=kl)
    after = _palette(palette, resolved, found, kl)
    solution = solve(
        pilot,
        after,
        setup.candidates,
        mode="joint" if setup.joint else "prompt",
        weighting=weighting,
        seed=seed,
        on_infeasible="return",
    )
    at, asked = _asked(resolved)
    names = [resolved.features[i] for i in at]
    return Adjusted(
        method=method,
        palette=after,
        solution=solution,
        rho=found.rho,
        inside=found.inside,
        asked=Figures(names, asked),
        had=Figures(names, solution.levels.array[at], solution.levels.se[at]),
        blocked_by={resolved.features[i]: _obstacle(resolved, limit) for i, limit in found.limits.items()},
    )


def _refuse_contradictions(resolved: Resolved) -> None:
    lower, upper = resolved.reported(resolved.lower), resolved.reported(resolved.upper)
    for i in np.flatnonzero(lower > upper):
        raise ValueError(
            f"palette must not contradict itself, got {resolved.features[i]} at least {lower[i]:.6g} and at most "
            f"{upper[i]:.6g}"
        )


def _order(resolved: Resolved, priority: Sequence[str]) -> list[int]:
    """The features in greedy's order, the named first; a value stands for all its features."""
    if isinstance(priority, str):
        raise ValueError(f"priority must be a list of names, got {priority!r}")
    turns: list[int] = []
    for name in priority:
        named = [
            i
            for i, spec in enumerate(resolved.specs)
            if name in (resolved.features[i], spec.value) and resolved.asked[i] != "free"
        ]
        if not named:
            asked = ", ".join(
                f for f, what in zip(resolved.features, resolved.asked, strict=True) if what != "free"
            )
            raise ValueError(f"priority must name values that the palette asks for ({asked}), got {name!r}")
        turns += [i for i in named if i not in turns]
    return [*turns, *(i for i in range(len(resolved.features)) if i not in turns)]


def _palette(palette: Palette, resolved: Resolved, found: Adjustment, kl: float | None) -> Palette:
    """Numbers where bounds moved; the entries as they were elsewhere."""
    changed = (found.lower != resolved.lower) | (found.upper != resolved.upper)
    lower, upper = resolved.reported(found.lower), resolved.reported(found.upper)
    levels = {resolved.features[i]: (float(lower[i]), float(upper[i])) for i in np.flatnonzero(changed)}
    return palette.at(levels, kl if palette.maximised else None)


def _asked(resolved: Resolved) -> tuple[list[int], Array]:
    """Which features have a bound, and the one that matters: the end that the base misses, or the only one."""
    has_lower = np.isfinite(resolved.lower)
    at = np.flatnonzero(has_lower | np.isfinite(resolved.upper))
    upper = ~has_lower | (resolved.base > resolved.upper)
    return at.tolist(), resolved.reported(np.where(upper, resolved.upper, resolved.lower))[at]


def _obstacle(resolved: Resolved, limit: Limit) -> Obstacle:
    return Obstacle(limit.by, tuple(resolved.features[i] for i in limit.features))
