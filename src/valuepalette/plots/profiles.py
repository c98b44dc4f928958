"""The radar: what came of palettes, every value in quantiles of the base distribution (paper, Figures 6, 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from valuepalette.attainment import Evaluation
from valuepalette.dual import Status
from valuepalette.plots.style import DASHES, MARKERS, SMALL, axes, drawn, folded, inks
from valuepalette.resolving import GRID
from valuepalette.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["radar"]


@drawn
def radar(
    subjects: Mapping[str, Solution | Evaluation],
    *,
    features: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Levels of several subjects, as quantiles of what single answers of the base model are (paper, Figures 6, 8).

    subjects  by the name in the legend: what a solution predicts, what an evaluation measured
    features  the spokes; None takes all that every subject knows a quantile of: not tails, whose answers are zeros and
              ones, nor values that never vary
    ax        polar, where it is given

    Grey is the base model, at the quantile of its own level, which need not be the median. Ticks across a spoke are
    what was asked, an arrow saying on which side. Base and ticks come from the solutions, the first of them for what
    an evaluation was asked; where there is none, they are not drawn.
    """
    if not subjects:
        raise ValueError("subjects must name at least one solution or evaluation, got none")
    for name, subject in subjects.items():
        if isinstance(subject, Solution) and subject.status is Status.INFEASIBLE:
            raise ValueError(f"subjects must have levels; the palette of {name!r} is INFEASIBLE")
    spokes = _spokes(subjects, features)
    longest = max(map(len, subjects))
    columns = 4 if longest < 14 else 3 if longest < 22 else 2
    lines = -(-(len(subjects) + 2) // columns)
    own = ax is None
    figure, on = axes(ax, (6.4, 4.35 + 0.22 * lines), projection="polar")
    if own:
        # A circle of fixed size, with room for names around it and the legend below: no layout engine knows that.
        figure.set_layout_engine("none")
        height = float(figure.get_figheight())
        on.set_position((1.6 / 6.4, 1 - 3.7 / height, 3.2 / 6.4, 3.2 / height))
    colours = inks()
    angles = 2 * np.pi * np.arange(len(spokes)) / len(spokes)
    source = next((each for each in subjects.values() if isinstance(each, Solution)), None)
    polygons: list[list[float]] = []
    if source is not None:
        base = [_rank(source, name, source.base[name]) for name in spokes]
        polygons.append(base)
        on.fill(angles, base, color=colours.muted, alpha=0.16, lw=0, zorder=1)
        _polygon(on, angles, base, color=colours.muted, lw=1.2, label="base model", zorder=2)
    for number, (label, subject) in enumerate(subjects.items()):
        at = [_place(subject, name) for name in spokes]
        polygons.append(at)
        _polygon(
            on,
            angles,
            at,
            color=colours.of(number),
            marker=MARKERS[number % len(MARKERS)],
            ls=DASHES[number % len(DASHES)],
            ms=5.5,
            lw=1.8,
            mec=colours.ground,
            mew=0.8,
            label=label,
            zorder=4 + number,
        )
    _asked(on, angles, spokes, subjects, source)
    _frame(on, angles, spokes, polygons)
    on.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=min(columns, len(on.get_legend_handles_labels()[0])),
        handlelength=2.6,
    )
    return figure


def _spokes(subjects: Mapping[str, Solution | Evaluation], features: Sequence[str] | None) -> list[str]:
    first = next(iter(subjects.values()))
    names = list(first.features if isinstance(first, Solution) else first)
    known = [
        name for name in names if all(math.isfinite(_place(subject, name)) for subject in subjects.values())
    ]
    chosen = known if features is None else list(features)
    if not chosen or any(name not in known for name in chosen):
        got = ", ".join(chosen) or "none"
        raise ValueError(
            f"features must be among those all subjects have a quantile of, {', '.join(known) or 'none'}; got {got}"
        )
    return chosen


def _place(subject: Solution | Evaluation, name: str) -> float:
    """The quantile of a subject's level; nan where it has none."""
    if isinstance(subject, Solution):
        return _rank(subject, name, subject.levels[name]) if name in subject.features else math.nan
    return subject[name].quantile if name in list(subject) else math.nan


def _rank(solution: Solution, name: str, level: float) -> float:
    """The share of the base distribution below a level, as evaluation has it."""
    at = solution.features.index(name)
    grid = solution.resolved.quantiles[at]
    if solution.resolved.specs[at].tail is not None or grid[0] == grid[-1]:
        return math.nan
    return float(np.interp(level, grid, GRID))


def _polygon(on: Any, angles: np.ndarray, at: Sequence[float], **how: Any) -> None:
    on.plot([*angles, angles[0]], [*at, at[0]], **how)


def _asked(
    on: Any,
    angles: np.ndarray,
    spokes: Sequence[str],
    subjects: Mapping[str, Solution | Evaluation],
    source: Solution | None,
) -> None:
    """A tick for each bound: in a subject's colour where others are asked something else."""
    colours = inks()
    asked: dict[tuple[int, int, float], list[str]] = {}
    for number, subject in enumerate(subjects.values()):
        there = subject if isinstance(subject, Solution) else source
        for spoke, name in enumerate(spokes):
            if there is None or name not in there.features:
                continue
            if isinstance(subject, Solution):
                ends = (
                    subject.lower[subject.features.index(name)],
                    subject.upper[subject.features.index(name)],
                )
            else:
                ends = subject[name].lower, subject[name].upper
            for side, bound in zip((1, -1), ends, strict=True):
                if math.isfinite(bound):
                    key = spoke, side, round(_rank(there, name, float(bound)), 6)
                    asked.setdefault(key, []).append(colours.of(number))
    wide = min(0.16, 0.9 / len(spokes))
    for (spoke, side, at), found in asked.items():
        # A bracket that opens to where levels may lie; of an equality a stroke.
        foot = 0.0 if (spoke, -side, at) in asked else 0.045 * side
        on.plot(
            angles[spoke] + wide * np.array([-1.0, *np.linspace(-1, 1, 7), 1.0]),
            [at + foot, *[at] * 7, at + foot],
            color=found[0] if len(found) < len(subjects) else colours.ink,
            lw=2.2,
            zorder=3,
        )
    if asked:
        on.plot([], [], color=colours.ink, lw=2.2, label="asked")


def _frame(on: Any, angles: np.ndarray, spokes: Sequence[str], polygons: Sequence[Sequence[float]]) -> None:
    """Rings at quarters, spokes, and names that stand clear of the circle."""
    colours = inks()
    on.set_theta_offset(np.pi / 2)
    on.set_theta_direction(-1)
    on.set_ylim(0, 1)
    on.set_xticks(angles, [""] * len(angles))
    on.set_yticks([0.25, 0.5, 0.75, 1.0], [""] * 4)
    on.grid(color=colours.rule, lw=0.8)
    on.spines["polar"].set_visible(False)
    # The rings are named in the gap between spokes where lines pass furthest from the names.
    half, rings = np.pi / len(angles), np.array([0.25, 0.5, 0.75])
    first = np.maximum(polygons, 1e-9)
    then = np.roll(first, -1, axis=1)
    passing = 2 * first * then * max(math.cos(half), 0.0) / (first + then)
    gap = int(np.abs(passing[:, :, None] - rings).min(axis=(0, 2)).argmax())
    for ring in rings:
        on.text(
            angles[gap] + half,
            ring,
            f"q{100 * ring:.0f}",
            color=colours.muted,
            fontsize=8,
            ha="center",
            va="center",
            zorder=2,
        )
    for angle, name in zip(angles, spokes, strict=True):
        across, up = math.sin(angle), math.cos(angle)
        ha = "center" if abs(across) < 0.2 else "left" if across > 0 else "right"
        va = "center" if abs(up) < 0.2 else "bottom" if up > 0 else "top"
        on.text(angle, 1.06, folded(name), ha=ha, va=va, fontsize=SMALL)
