"""How methods compare, and what over-optimisation does (paper, Figure 7)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from valuepalette.attainment import Measured
from valuepalette.comparing import Comparison
from valuepalette.plots.style import MARKERS, axes, drawn, inks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison", "overoptimisation"]


@drawn
def comparison(
    compared: Comparison,
    values: Sequence[str] | None = None,
    *,
    by: Literal["level", "win rate"] = "level",
    ax: Axes | None = None,
) -> Figure:
    """Runs of every method in two values: small marks are runs, large ones a method's mean (paper, Figure 7).

    values  the two; None takes the first two that the palette asks of
    by      "level" draws gains over the base model, "win rate" how often an answer beats the base's

    The upper right is where both values are at least as high as before; its edge is shaded as far as chance reaches,
    by the median run's 95 % interval. A cross marks what the palette asks.
    """
    first, second = _two(compared, values)
    figure, on = axes(ax)
    colours = inks()
    start = 0.0 if by == "level" else 0.5
    bands = [_band(compared, value, by) for value in (first, second)]
    on.axvspan(start - bands[0], start + bands[0], color=colours.muted, alpha=0.2, lw=0)
    on.axhspan(start - bands[1], start + bands[1], color=colours.muted, alpha=0.2, lw=0)
    on.axvline(start, color=colours.muted, lw=0.8)
    on.axhline(start, color=colours.muted, lw=0.8)
    for number, method in enumerate(compared.methods):
        colour, marker = colours.of(number), MARKERS[number % len(MARKERS)]
        at = np.array(
            [[_place(run.evaluation[value], by) for value in (first, second)] for run in compared.of(method)]
        )
        if len(at) > 1:
            on.scatter(*at.T, s=20, color=colour, marker=marker, alpha=0.6, lw=0)
        on.scatter(
            *at.mean(axis=0),
            s=90,
            color=colour,
            marker=marker,
            ec=colours.ground,
            lw=0.8,
            label=method,
            zorder=3,
        )
    if by == "level":
        asked = [compared.runs[0].evaluation[value].to_gain for value in (first, second)]
        if np.isfinite(asked).all():
            on.scatter(*asked, s=110, color=colours.ink, marker="x", lw=2, label="asked", zorder=4)
    what = "gain over the base model" if by == "level" else "win rate against the base model"
    on.set_xlabel(f"{first}: {what}")
    on.set_ylabel(f"{second}: {what}")
    on.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


@drawn
def overoptimisation(
    compared: Comparison, values: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Figure:
    """What values and their second opinions do as a palette's weights are scaled, against KL from the base model.

    values  None takes those the palette asks of, as full lines, and the second opinions, dashed

    Each gain is over the largest that the value has along the curve, so that lines of different units compare. Where
    a full line rises and its second opinion turns, the reward moves and the value behind it does not.
    """
    if not compared.curve:
        raise ValueError("compared must have a curve, which a palette of plain values has; got none")
    figure, on = axes(ax)
    colours = inks()
    kl = [point.kl for point in compared.curve]
    named = list(values or (*compared.values, *compared.checks))
    for number, name in enumerate(named):
        gains = np.array([point.gains[name] for point in compared.curve])
        most = np.abs(gains).max() or 1.0
        on.plot(
            kl,
            gains / most,
            color=colours.of(number),
            marker=MARKERS[number % len(MARKERS)],
            ms=4,
            ls="--" if name in compared.checks else "-",
            label=f"{name} (a check)" if name in compared.checks else name,
        )
    own = next(point.kl for point in compared.curve if point.scale == 1.0)
    on.axvline(own, color=colours.muted, lw=0.8)
    on.annotate(
        "the palette", (own, on.get_ylim()[0]), xytext=(4, 4), textcoords="offset points", fontsize="small"
    )
    on.axhline(0, color=colours.muted, lw=0.8)
    on.set_xlabel("KL from the base model, nats")
    on.set_ylabel("gain, as a share of the value's largest")
    on.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _two(compared: Comparison, values: Sequence[str] | None) -> tuple[str, str]:
    chosen = tuple(compared.values[:2] if values is None else values)
    known = list(compared.runs[0].evaluation)
    if len(chosen) != 2 or any(value not in known for value in chosen):
        raise ValueError(f"values must be two of {', '.join(known)}, got {', '.join(chosen) or 'none'}")
    return chosen[0], chosen[1]


def _place(row: Measured, by: str) -> float:
    return row.gain if by == "level" else row.win_rate


def _band(compared: Comparison, value: str, by: str) -> float:
    rows = [run.evaluation[value] for run in compared.runs]
    errors = [row.gain_se if by == "level" else row.win_rate_se for row in rows]
    return NormalDist().inv_cdf(0.975) * float(np.median(errors))
