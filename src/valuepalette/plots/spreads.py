"""How answers are spread in one value, before and after (paper, Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from valuepalette.decoding import Answers
from valuepalette.grouping import Array
from valuepalette.pilot import Pilot
from valuepalette.plots.style import axes, drawn, folded, inks, signed
from valuepalette.solution import Solution
from valuepalette.tabulating import decimals, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["distribution", "distributions"]

FEW = 12
"""So many different numbers at most are drawn one by one."""


@drawn
def distribution(
    before: ArrayLike,
    after: ArrayLike,
    *,
    name: str,
    weights: ArrayLike | None = None,
    asked: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How answers are spread in one value before and after, their means marked (paper, Figure 3).

    before   (n,) the value of answers of the base model
    after    (l,) of answers afterwards; or the same ones, weighed anew
    weights  (l,) of `after`, of any sum; None weighs all alike
    asked    the level that was asked, dotted

    Heights are shares of answers. Few different numbers stand side by side as bars; others are counted in common
    intervals, the outermost of which also hold what lies beyond, at most 1 % on either side.
    """
    first, then = _numbers("before", before), _numbers("after", after)
    share = np.ones(len(then)) if weights is None else np.asarray(weights, float)
    if share.shape != then.shape or not np.isfinite(share).all() or (share < 0).any() or not share.sum() > 0:
        raise ValueError(
            f"weights must be one number, 0 or more, for each of the {len(then)} of after, not all 0; got shape "
            f"{share.shape}"
        )
    share = share / share.sum()
    from matplotlib.ticker import PercentFormatter

    figure, on = axes(ax, (4.6, 3.4))
    colours = inks()
    even = np.full(len(first), 1 / len(first))
    draw = _bars if len(np.unique(np.concatenate([first, then]))) <= FEW else _steps
    marks = draw(on, (first, even), (then, share))
    labels = [
        f"{when}, mean {_told(mean, first)}"
        for when, mean in (("before", first.mean()), ("after", share @ then))
    ]
    on.axvline(first.mean(), color=colours.muted, lw=1.4, ls="--")
    on.axvline(share @ then, color=colours.of(0), lw=1.4)
    if asked is not None:
        marks.append(on.axvline(asked, color=colours.ink, lw=2, ls=(0, (1, 1.5)), zorder=3))
        labels.append(f"asked {_told(asked, first)}")
    on.set_xlabel(folded(name, 32))
    on.set_ylabel("share of answers")
    on.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    on.legend(marks, labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0), handlelength=1.8)
    return figure


def _bars(on: Any, before: tuple[Array, Array], after: tuple[Array, Array]) -> list[Any]:
    """Of numbers and their shares: each different number by itself."""
    colours = inks()
    values = np.unique(np.concatenate([before[0], after[0]]))
    heights = [[share[sample == value].sum() for value in values] for sample, share in (before, after)]
    step = float(np.diff(values).min()) if len(values) > 1 else 1.0
    grey = on.bar(values - 0.2 * step, heights[0], 0.36 * step, color=colours.muted, alpha=0.35)
    blue = on.bar(values + 0.2 * step, heights[1], 0.36 * step, fc="none", ec=colours.of(0), lw=1.8)
    on.set_xlim(values[0] - 0.8 * step, values[-1] + 0.8 * step)
    if all(float(value).is_integer() for value in values):
        on.set_xticks(values)
    return [grey, blue]


def _steps(on: Any, before: tuple[Array, Array], after: tuple[Array, Array]) -> list[Any]:
    """Of numbers and their shares: counted in intervals."""
    colours = inks()
    edges = _edges(before[0], *after)
    low, high = np.nextafter(edges[0], np.inf), np.nextafter(edges[-1], -np.inf)
    counts = [
        np.histogram(np.clip(sample, low, high), edges, weights=share)[0] for sample, share in (before, after)
    ]
    return [
        on.stairs(counts[0], edges, fill=True, color=colours.muted, alpha=0.35, lw=0),
        on.stairs(counts[1], edges, color=colours.of(0), lw=1.8),
    ]


@drawn
def distributions(
    answers: Answers | Pilot, solution: Solution, *, features: Sequence[str] | None = None
) -> Figure:
    """`distribution` of each value that a solution asks of, beside each other (paper, Figure 3).

    answers   scored, each candidate with the column `probability` that its decoder gives it, as `Decoder` and `choose`
              write it: before, all candidates of a prompt count alike; after, by that
    features  None takes those that something is asked of
    """
    pilot = answers if isinstance(answers, Pilot) else answers.pilot
    if "probability" not in pilot.table.column_names:
        raise ValueError(
            "answers must have the column 'probability', as choose and Decoder write it, got "
            f"{', '.join(pilot.columns) or 'none'}"
        )
    named = list(features or [name for name, text in solution.asked.items() if text != "free"])
    if not named or any(name not in solution.features for name in named):
        raise ValueError(
            f"features must be among the solution's, {', '.join(solution.features)}, got {', '.join(named) or 'none'}"
        )
    from matplotlib.figure import Figure

    across = min(len(named), 3)
    down = -(-len(named) // across)
    figure = Figure(figsize=(3.3 * across, 3.2 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    places = list(grid.flat)
    share = np.asarray(pilot.table["probability"], float)
    numbers = solution.resolved.numbers_of(pilot.array, pilot.values)
    inside = solution.resolved.inside_of(
        {name: pilot.column(name)[pilot.prompt_index] for name in solution.resolved.columns}, pilot.rows
    )
    for place, name in zip(places, named, strict=False):
        at = solution.features.index(name)
        rows = inside[:, at]
        bounds = [end for end in (solution.lower[at], solution.upper[at]) if np.isfinite(end)]
        asked = float(bounds[0]) if bounds else None
        distribution(
            numbers[rows, at], numbers[rows, at], name=name, weights=share[rows], asked=asked, ax=place
        )
        if place is not grid[list(places).index(place) // across, 0]:
            place.set_ylabel("")
    for place in places[len(named) :]:
        place.remove()
    return figure


def _numbers(name: str, sample: ArrayLike) -> Array:
    array = np.asarray(sample, float)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be one finite number or more in a row, got shape {array.shape}")
    return array


def _told(level: float, sample: Array) -> str:
    spread = float(sample.std())
    return signed(number(level, decimals(spread / 20, level=level) if spread else decimals(level=level)))


def _edges(first: Array, then: Array, share: Array) -> Array:
    """Common intervals by the rule of Freedman and Diaconis, 12 to 40; means and the middle 98 % lie inside."""
    both = np.concatenate([first, then[share > 0]])
    low, high = np.quantile(both, [0.01, 0.99])
    if both.max() - both.min() <= 2 * (high - low):
        low, high = both.min(), both.max()
    low, high = min(low, first.mean(), share @ then), max(high, first.mean(), share @ then)
    if low == high:
        low, high = both.min(), both.max()
    quarter, three = np.quantile(first, [0.25, 0.75])
    width = 2 * (three - quarter) * len(first) ** (-1 / 3)
    bins = 40 if width <= 0 else int(np.clip(np.ceil((high - low) / width), 12, 40))
    return np.linspace(low, high, bins + 1)
