"""Figures, a function each: they take results, draw on an axes of their own or a given one, and return the figure.

Colours can be told apart by the colour-blind and in grey, where markers differ as well. Nothing is saved or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from valuepalette.attainment import Measured
from valuepalette.comparing import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison", "overoptimisation"]

# Okabe and Ito's, darkest first.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C8C8C")
MARKERS = "osD^vP*XhdpH"


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
    figure, ax = _axes(ax)
    start = 0.0 if by == "level" else 0.5
    bands = [_band(compared, value, by) for value in (first, second)]
    ax.axvspan(start - bands[0], start + bands[0], color="#8C8C8C", alpha=0.2, lw=0)
    ax.axhspan(start - bands[1], start + bands[1], color="#8C8C8C", alpha=0.2, lw=0)
    ax.axvline(start, color="#8C8C8C", lw=0.8)
    ax.axhline(start, color="#8C8C8C", lw=0.8)
    for number, method in enumerate(compared.methods):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        at = np.array(
            [[_place(run.evaluation[value], by) for value in (first, second)] for run in compared.of(method)]
        )
        if len(at) > 1:
            ax.scatter(*at.T, s=20, color=colour, marker=marker, alpha=0.6, lw=0)
        ax.scatter(
            *at.mean(axis=0), s=90, color=colour, marker=marker, ec="white", lw=0.8, label=method, zorder=3
        )
    if by == "level":
        asked = [compared.runs[0].evaluation[value].to_gain for value in (first, second)]
        if np.isfinite(asked).all():
            ax.scatter(*asked, s=110, color=COLOURS[2], marker="x", lw=2, label="asked", zorder=4)
    what = "gain over the base model" if by == "level" else "win rate against the base model"
    ax.set_xlabel(f"{first}: {what}")
    ax.set_ylabel(f"{second}: {what}")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


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
    figure, ax = _axes(ax)
    kl = [point.kl for point in compared.curve]
    named = list(values or (*compared.values, *compared.checks))
    for number, name in enumerate(named):
        gains = np.array([point.gains[name] for point in compared.curve])
        most = np.abs(gains).max() or 1.0
        ax.plot(
            kl,
            gains / most,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            ms=4,
            ls="--" if name in compared.checks else "-",
            label=f"{name} (a check)" if name in compared.checks else name,
        )
    own = next(point.kl for point in compared.curve if point.scale == 1.0)
    ax.axvline(own, color="#8C8C8C", lw=0.8)
    ax.annotate(
        "the palette", (own, ax.get_ylim()[0]), xytext=(4, 4), textcoords="offset points", fontsize="small"
    )
    ax.axhline(0, color="#8C8C8C", lw=0.8)
    ax.set_xlabel("KL from the base model, nats")
    ax.set_ylabel("gain, as a share of the value's largest")
    ax.legend(frameon=False, fontsize="small", loc="best")
    return figure


def _axes(ax: Axes | None) -> tuple[Figure, Axes]:
    if ax is not None:
        found: Any = ax.figure
        return found, ax
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError(
            'figures need matplotlib: pip install "valuepalette[plots]"', name="matplotlib"
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    return figure, figure.add_subplot()


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
