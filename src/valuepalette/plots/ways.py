"""Levels along a way: with more candidates (paper, Table 5), and with one value solved after another (Figure 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from valuepalette.attainment import Evaluation
from valuepalette.grouping import Array
from valuepalette.plans import Plan
from valuepalette.plots.style import DASHES, MARKERS, axes, drawn, inks
from valuepalette.sequencing import Ascent, Stage
from valuepalette.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["by_candidates", "sequential"]


@drawn
def by_candidates(
    plan: Plan,
    decoded: Mapping[int, Evaluation] | None = None,
    *,
    features: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Gains by the number of candidates k: what a plan predicts, and what decoding had (paper, Table 5).

    decoded   evaluations by k; large marks with 95 % intervals
    features  None takes those that something is asked of

    Full lines are the weights of each k; they stand still where their bound is met, and end where the palette cannot be
    had, shaded. Thin lines are the weights of the largest k used at every k: what a decoder is short of that is not
    calibrated. In within-prompt standard deviations above the base model, predictions and evaluations each above their
    own.
    """
    ks = sorted(plan.choices)
    widest = plan.choices[ks[-1]].solution
    named = list(features or [name for name, text in widest.asked.items() if text != "free"])
    if not named or any(name not in widest.features for name in named):
        raise ValueError(
            f"features must be among the plan's, {', '.join(widest.features)}, got {', '.join(named) or 'none'}"
        )
    for k in decoded or {}:
        if k not in plan.choices:
            raise ValueError(f"decoded must be of the plan's k, {', '.join(map(str, ks))}, got {k}")
    figure, on = axes(ax, (6.4, 4.2))
    colours = inks()
    units = _units(widest)
    z = NormalDist().inv_cdf(0.975)
    for number, name in enumerate(named):
        at = widest.features.index(name)
        look = {"color": colours.of(number), "marker": MARKERS[number % len(MARKERS)]}
        unit, base = units[at], widest.base[name]
        tuned = np.array([(plan[k].levels[name] - base) / unit for k in ks])
        untuned = np.array([(plan[k].untuned[name] - base) / unit for k in ks])
        on.plot(ks, untuned, lw=0.9, ls="--", ms=3.5, alpha=0.8, **look)
        on.plot(ks, tuned, lw=1.8, ls="-", ms=5, label=name, **look)
        if decoded:
            some = sorted(decoded)
            rows = [decoded[k][name] for k in some]
            on.errorbar(
                [k * (1.06 + 0.05 * number) for k in some],
                [row.gain / unit for row in rows],
                yerr=[z * row.gain_se / unit for row in rows],
                ls="",
                ms=8.5,
                mfc=colours.ground,
                mew=1.5,
                elinewidth=1.5,
                zorder=4,
                **look,
            )
    first = plan.smallest if plan.smallest is not None else ks[-1] * 1.1
    lost = [k for k in ks if k < first]
    if lost:
        edge = math.sqrt(max(lost) * first)
        on.axvspan(ks[0] / 1.12, edge, color=colours.muted, alpha=0.14, lw=0, zorder=0, label="cannot be had")
    on.plot([], [], color=colours.muted, lw=0.9, ls="--", label=f"weights of k = {ks[-1]}")
    if decoded:
        on.plot([], [], "o", mfc=colours.ground, mec=colours.muted, mew=1.5, ms=8.5, ls="", label="decoded")
    on.set_xscale("log", base=2)
    on.set_xticks(ks, [str(k) for k in ks])
    on.minorticks_off()
    on.set_xlim(ks[0] / 1.12, ks[-1] * (1.16 + 0.05 * len(named) if decoded else 1.12))
    on.axhline(0, color=colours.muted, lw=0.8, zorder=0)
    on.grid(axis="y")
    on.set_xlabel("candidates k")
    on.set_ylabel("gain, within-prompt standard deviations")
    on.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


@drawn
def sequential(ascent: Ascent, solution: Solution, *, ax: Axes | None = None) -> Figure:
    """Levels by the rounds of solving one value after another, beside solving all at once (paper, Figure 9).

    solution  of the same palette, by `solve`: 0, in whose within-prompt standard deviations the levels are told

    A round ends where each value had its turn; before the first the model is the base. Rounds are shown until no
    level is off by more than 0.005.
    """
    if ascent.features != solution.features or ascent.asked != solution.resolved.asked:
        raise ValueError("solution must be of the palette of the ascent, got one that asks something else")
    figure, on = axes(ax, (6.4, 3.8))
    colours = inks()
    units, goal = _units(solution), solution.levels.array
    ends = [solution.base.array, *(step.levels.array for step in _last_of_rounds(ascent))]
    off = np.divide(np.array(ends) - goal, units, out=np.zeros((len(ends), len(goal))), where=units > 0)
    bound = [i for i, text in enumerate(ascent.asked) if text != "free"]
    near = np.flatnonzero(np.abs(off[:, bound]).max(axis=1) < 0.005)
    off = off[: max(int(near[0]) + 1, 3)] if len(near) else off
    rounds = np.arange(len(off))
    on.axhline(0, color=colours.ink, lw=1.4, label="all at once")
    for number, i in enumerate(bound):
        on.plot(
            rounds,
            off[:, i],
            color=colours.of(number),
            marker=MARKERS[number % len(MARKERS)],
            ls=DASHES[number % len(DASHES)],
            ms=5.5,
            mec=colours.ground,
            mew=0.8,
            label=ascent.features[i],
        )
    on.set_xticks(rounds, ["base", *map(str, rounds[1:])])
    on.grid(axis="y")
    on.set_xlabel("rounds of one value after another")
    on.set_ylabel("level less that of all at once,\nwithin-prompt standard deviations")
    on.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _last_of_rounds(ascent: Ascent) -> list[Stage]:
    after = [*ascent.steps[1:], None]
    return [
        step for step, then in zip(ascent.steps, after, strict=True) if then is None or then.turn > step.turn
    ]


def _units(solution: Solution) -> Array:
    """Within-prompt standard deviations of the levels as a user reads them."""
    return solution.spread * np.sqrt(solution.resolved.factor)
