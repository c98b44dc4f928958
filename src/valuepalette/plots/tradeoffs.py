"""Two values against each other: what can be had, and where palettes and single rewards go (paper, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from valuepalette.attainment import Evaluation
from valuepalette.clouds import Cloud
from valuepalette.dual import Status
from valuepalette.plots.style import MARKERS, axes, drawn, folded, inks
from valuepalette.regions import Region
from valuepalette.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["tradeoff"]


@drawn
def tradeoff(
    region: Region,
    subjects: Mapping[str, Solution | Evaluation] | None = None,
    *,
    cloud: Cloud | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The levels of two values that can be had, and the way from the base model to each subject's (paper, Figure 1).

    region    shaded; no choice among k candidates goes beyond it
    subjects  by the name in the legend: a palette, single rewards
    cloud     of weights at random, whose levels are dots

    Above and to the right of the lines through the base model both values gain.
    """
    subjects = subjects or {}
    for name, subject in subjects.items():
        if missing := [value for value in region.values if value not in tuple(_names(subject))]:
            raise ValueError(
                f"subjects must have levels of {' and '.join(region.values)}; {name!r} has none of {missing[0]}"
            )
        if isinstance(subject, Solution) and subject.status is Status.INFEASIBLE:
            raise ValueError(f"subjects must have levels; the palette of {name!r} is INFEASIBLE")
    if cloud is not None and (missing := [value for value in region.values if value not in cloud.values]):
        raise ValueError(f"cloud must have levels of {' and '.join(region.values)}, got none of {missing[0]}")
    figure, on = axes(ax, (6.4, 4.6))
    colours = inks()
    corners = region.points
    k = "all answers" if region.candidates is None else f"k = {region.candidates}"
    on.fill(*corners.T, fc=colours.muted, alpha=0.14, lw=0, zorder=0)
    on.plot(*np.vstack([corners, corners[:1]]).T, color=colours.muted, lw=1, label=f"can be had, {k}")
    x, y = region.base
    on.axvline(x, color=colours.muted, lw=0.8, ls=(0, (1, 2)), zorder=1)
    on.axhline(y, color=colours.muted, lw=0.8, ls=(0, (1, 2)), zorder=1)
    if cloud is not None:
        at = cloud.levels[:, [cloud.values.index(value) for value in region.values]]
        on.plot(*at.T, ".", color=colours.muted, ms=4, alpha=0.55, mew=0, label="weights at random", zorder=1)
    for number, (name, subject) in enumerate(subjects.items()):
        end = [_level(subject, value) for value in region.values]
        colour = colours.of(number)
        on.annotate(
            "",
            end,
            (x, y),
            arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8, "shrinkA": 4, "shrinkB": 5},
            zorder=3,
        )
        on.plot(
            *end,
            MARKERS[1 + number % (len(MARKERS) - 1)],
            color=colour,
            ms=8,
            mec=colours.ground,
            mew=0.8,
            ls="",
            label=name,
            zorder=4,
        )
    on.plot(
        x, y, "o", mfc=colours.ground, mec=colours.ink, mew=1.6, ms=7, ls="", label="base model", zorder=4
    )
    on.set_xlabel(folded(f"{region.values[0]}: level", 44))
    on.set_ylabel(folded(f"{region.values[1]}: level", 44))
    on.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _names(subject: Solution | Evaluation) -> tuple[str, ...]:
    return subject.features if isinstance(subject, Solution) else tuple(subject)


def _level(subject: Solution | Evaluation, name: str) -> float:
    return subject.levels[name] if isinstance(subject, Solution) else subject[name].level
