"""What was asked and what was got, value by value, with intervals."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from valuepalette.attainment import Evaluation, Measured
from valuepalette.judging import Verdict
from valuepalette.plots.style import SMALL, axes, drawn, folded, inks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["attainment"]

LOOKS = {Verdict.MET: (0, "o"), Verdict.UNDECIDED: (1, "D"), Verdict.MISSED: (1, "X")}
"""Colour and marker of a verdict."""


@drawn
def attainment(evaluation: Evaluation, *, ax: Axes | None = None) -> Figure:
    """How far from what was asked each level came, on unseen prompts, with the intervals behind the verdicts.

    At 0 is what was asked of a value; to the right is better than asked, in within-prompt standard deviations, and the
    tolerance is shaded to the left of it. A hollow mark says where the base model is, a thin line the way from there;
    the bar is the interval at the evaluation's confidence. A value is met where the bar ends no further left than the
    shade, missed where all of it lies left of 0.

    Raises ValueError where nothing was asked, or the tolerance is 0, by which a standard deviation is known.
    """
    rows = [row for row in evaluation.rows if row.verdict is not None]
    if not rows:
        raise ValueError("evaluation must ask something of a value, got one where all are free")
    if not evaluation.tolerance > 0:
        raise ValueError(
            f"evaluation must have a tolerance above 0, which its unit is taken from, got {evaluation.tolerance:g}"
        )
    figure, on = axes(ax, (6.4, 1.25 + 0.52 * len(rows)))
    colours = inks()
    z = NormalDist().inv_cdf(0.5 + evaluation.confidence / 2)
    room = evaluation.tolerance
    on.axvline(0, color=colours.ink, lw=1.4)
    named = set[str]()
    for at, row in enumerate(rows):
        both = room * (2 if row.lower == row.upper else 1)
        on.barh(at, both, 0.8, -room, color=colours.muted, alpha=0.22, lw=0)
        over, base, error = _placed(row, row.tolerance / evaluation.tolerance)
        number, marker = LOOKS[row.verdict or Verdict.MET]
        if math.isfinite(base):
            on.plot([base, over], [at, at], color=colours.muted, lw=0.8, zorder=1)
            on.plot(
                base,
                at,
                "o",
                mfc=colours.ground,
                mec=colours.muted,
                mew=1.4,
                ms=6,
                label="base model" if "base" not in named else None,
            )
            named.add("base")
        verdict = (row.verdict or Verdict.MET).name.lower()
        on.errorbar(
            over,
            at,
            xerr=z * error,
            color=colours.of(number),
            marker=marker,
            ms=7.5,
            mec=colours.ground,
            mew=0.8,
            lw=2.4,
            zorder=3,
            label=verdict if verdict not in named else None,
        )
        named.add(verdict)
        on.text(
            1.02,
            at,
            verdict,
            transform=on.get_yaxis_transform(),
            va="center",
            fontsize=SMALL,
            color=colours.ink,
        )
    on.set_yticks(
        range(len(rows)),
        [f"{folded(row.name, 24)}\n{_short(row.asked)}" for row in rows],
        color=colours.ink,
    )
    on.set_ylim(len(rows) - 0.5, -0.5)
    on.tick_params(axis="y", length=0)
    on.spines["left"].set_visible(False)
    on.grid(axis="x")
    on.margins(x=0.08)
    on.set_xlabel("better than asked →   in standard deviations between answers to one prompt")
    on.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handlelength=2)
    return figure


def _placed(row: Measured, unit: float) -> tuple[float, float, float]:
    """How much better than asked the level and the base are, and the error, in standard deviations."""
    if not unit > 0:
        return math.nan, math.nan, math.nan
    ends = [(side, end) for side, end in ((1, row.lower), (-1, row.upper)) if math.isfinite(end)]
    # Of an interval the end that the verdict is on: there the base lies `to_gain` before it.
    side, bound = min(ends, key=lambda one: abs(one[1] - row.to_gain - row.base))
    by_gain = row.judged_by == "gain"
    over = row.gain - row.to_gain if by_gain else row.level - bound
    base = -row.to_gain if by_gain else row.base - bound
    return side * over / unit, side * base / unit, (row.gain_se if by_gain else row.se) / unit


def _short(asked: str) -> str:
    return asked if len(asked) <= 28 else asked[:27] + "…"
