"""What things cost: a little more of a value, in KL; a larger problem, in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from valuepalette.plots.style import DASHES, MARKERS, SMALL, axes, drawn, folded, inks, signed
from valuepalette.pricing import Sensitivity
from valuepalette.tabulating import decimals, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["growth", "prices"]


@drawn
def prices(sensitivity: Sensitivity, *, ax: Axes | None = None) -> Figure:
    """The price list: what one more step of each value costs in KL, dearest first; full where it binds now.

    A step that cannot be had, because what is held determines the value, has no bar and says so.
    """
    from matplotlib.patches import Patch

    listed = sorted(sensitivity.prices.items(), key=lambda entry: -entry[1].kl)
    figure, on = axes(ax, (6.4, 1.1 + 0.38 * len(listed)))
    colours = inks()
    finite = [price.kl for _, price in listed if math.isfinite(price.kl)]
    reach = max([abs(kl) for kl in finite], default=1.0) or 1.0
    for at, (name, price) in enumerate(listed):
        none = math.isinf(price.kl)
        held = name in sensitivity.held
        if not none:
            look = {"fc": colours.of(0), "alpha": 0.9} if held else {"fc": "none"}
            on.barh(at, price.kl, 0.58, ec=colours.of(0), lw=1.4, **look)
        said = "cannot be had" if none else signed(number(price.kl, decimals(level=price.kl), "+"))
        left = not none and price.kl < 0
        on.text(
            (0 if none else price.kl) + (-1 if left else 1) * 0.015 * reach,
            at,
            said,
            ha="right" if left else "left",
            va="center",
            fontsize=SMALL,
        )
    steps = [signed(number(price.step, decimals(level=price.step), "+")) for _, price in listed]
    on.set_yticks(
        range(len(listed)),
        [f"{folded(name, 26)}  {step}" for (name, _), step in zip(listed, steps, strict=True)],
        color=colours.ink,
    )
    on.tick_params(axis="y", length=0)
    on.set_ylim(len(listed) - 0.5, -0.5)
    on.set_xlim(
        min([0.0, *finite]) - (0.16 * reach if min([0.0, *finite]) < 0 else 0),
        max([0.0, *finite]) + 0.16 * reach,
    )
    on.axvline(0, color=colours.muted, lw=0.8)
    on.spines["left"].set_visible(False)
    full, hollow = (
        Patch(fc=colours.of(0) if held else "none", ec=colours.of(0), lw=1.4, label=label)
        for held, label in ((True, "binds now"), (False, "has room"))
    )
    on.legend(handles=[full, hollow], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    on.set_xlabel(f"KL of one more step, nats; {sensitivity.kl:.3g} now")
    return figure


@drawn
def growth(
    measured: Mapping[str, Sequence[tuple[float, float]]],
    *,
    size: str = "rows",
    cost: str = "seconds",
    ax: Axes | None = None,
) -> Figure:
    """How a cost grows with the size of a problem, both on logarithmic scales; dashed is in proportion.

    measured    (size, cost) pairs by what was measured, each above 0
    size, cost  what they are, for the axes
    """
    for name, pairs in measured.items():
        if not pairs or not all(a > 0 and b > 0 for a, b in pairs):
            raise ValueError(f"measured must hold pairs of numbers above 0, got {list(pairs)} for {name!r}")
    if not measured:
        raise ValueError("measured must hold at least one series, got none")
    figure, on = axes(ax, (5.4, 3.6))
    colours = inks()
    for place, (name, pairs) in enumerate(measured.items()):
        x, y = np.array(sorted(pairs), float).T
        straight = "in proportion" if not place else None
        on.plot(x, y[-1] * x / x[-1], color=colours.muted, lw=0.9, ls=(0, (4, 2)), zorder=1, label=straight)
        on.plot(
            x,
            y,
            color=colours.of(place),
            marker=MARKERS[place % len(MARKERS)],
            ls=DASHES[place % len(DASHES)],
            ms=6,
            mec=colours.ground,
            mew=0.8,
            lw=1.8,
            label=name,
        )
    on.set_xscale("log")
    on.set_yscale("log")
    costs = [b for pairs in measured.values() for _, b in pairs]
    sizes = sorted({a for pairs in measured.values() for a, _ in pairs})
    on.set_xticks(sizes, [_short(entry) for entry in sizes])
    powers = range(math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs))) + 1)
    on.set_yticks([10.0**power for power in powers], [f"{10.0**power:g}" for power in powers])
    on.minorticks_off()
    on.set_ylim(min(costs) / 1.8, max(costs) * 1.8)
    on.grid(axis="y")
    on.set_xlabel(size)
    on.set_ylabel(cost)
    on.legend(loc="upper left")
    return figure


def _short(size: float) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return f"{size / unit:g}{letter}"
    return f"{size:g}"
