"""The space of weights: which of them help, and the function whose top is the solution (paper, Figures 2, 12)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from valuepalette.clouds import Cloud
from valuepalette.landscapes import Landscape
from valuepalette.plots.style import SMALL, axes, drawn, folded, inks
from valuepalette.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cloud", "dual", "shares"]


@drawn
def cloud(cloud: Cloud, *, solution: Solution | None = None, ax: Axes | None = None) -> Figure:
    """Weights at random over two values or three; full are those that lower neither's level (paper, Figure 2).

    solution  of a palette, whose weights are marked
    ax        of projection "3d" for three values, where it is given
    """
    m = len(cloud.values)
    if m not in (2, 3):
        raise ValueError(f"cloud must be of two values or three to be drawn, got {m}")
    solid = m == 3
    figure, on = axes(ax, (5.4, 4.8) if solid else (5.4, 4.6), projection="3d" if solid else "rectilinear")
    colours = inks()
    good, bad = cloud.weights[cloud.desirable], cloud.weights[~cloud.desirable]
    share = f"{cloud.share:.0%}"
    more: dict[str, Any] = {"depthshade": False} if solid else {}
    on.scatter(
        *bad.T, s=14, marker="x", color=colours.muted, lw=0.8, alpha=0.7, label="lowers a level", **more
    )
    on.scatter(
        *good.T,
        s=20,
        marker="o",
        color=colours.of(0),
        ec=colours.ground,
        lw=0.4,
        label=f"lowers none: {share}",
        **more,
    )
    if solution is not None:
        if missing := [name for name in cloud.values if name not in solution.features]:
            raise ValueError(
                f"solution must have weights of {', '.join(cloud.values)}, got none of {missing[0]}"
            )
        places = [solution.features.index(name) for name in cloud.values]
        unit = solution.spread[places] if cloud.per == "deviation" else 1.0
        at = solution.weights.array[places] * unit
        on.scatter(
            *([value] for value in at),
            s=170,
            marker="*",
            color=colours.of(1),
            ec=colours.ground,
            lw=0.8,
            label="the palette",
            zorder=5,
            clip_on=False,
            **more,
        )
    r = cloud.radius
    for i in range(m):
        for j in range(i):
            ends = np.zeros((2, m))
            ends[0, i] = ends[1, j] = r
            on.plot(*ends.T, color=colours.muted, lw=0.8, ls=(0, (4, 2)))
    per = " per sd" if cloud.per == "deviation" else ""
    for name, axis in zip(cloud.values, ("x", "y", "z"), strict=False):
        getattr(on, f"set_{axis}label")(f"λ{per}: {name}")
        getattr(on, f"set_{axis}lim")(0, 1.03 * r)
    if solid:
        _open(on)
    on.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handletextpad=0.3, columnspacing=1.2)
    return figure


@drawn
def shares(clouds: Sequence[Cloud], *, ax: Axes | None = None) -> Figure:
    """Which share of weights at random lowers no level, by how many values count (paper, Figure 2).

    clouds  each of more values than the one before; bars are 95 % intervals over draws
    """
    if not clouds:
        raise ValueError("clouds must hold at least one, got none")
    figure, on = axes(ax, (max(4.0, 0.9 + 1.2 * len(clouds)), 3.4))
    colours = inks()
    z = NormalDist().inv_cdf(0.975)
    at = np.arange(len(clouds))
    found = np.array([each.share for each in clouds])
    on.errorbar(
        at,
        found,
        yerr=z * np.array([each.se for each in clouds]),
        color=colours.of(0),
        marker="o",
        ms=7,
        mec=colours.ground,
        lw=1.8,
        elinewidth=2,
    )
    for x, share in zip(at, found, strict=True):
        on.annotate(f"{share:.0%}", (x, share), xytext=(7, 7), textcoords="offset points", fontsize=SMALL)
    labels = [_added(each, clouds[i - 1] if i else None) for i, each in enumerate(clouds)]
    on.set_xticks(at, labels, fontsize=8)
    on.set_xlim(-0.4, len(clouds) - 0.5)
    on.set_ylim(0, 1.12)
    on.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
    on.grid(axis="y")
    on.set_ylabel("weights that lower no level")
    return figure


def _added(cloud: Cloud, before: Cloud | None) -> str:
    known = () if before is None else before.values
    new = [name for name in cloud.values if name not in known]
    return f"{len(cloud.values)} value{'s' if len(cloud.values) > 1 else ''}\n" + "\n".join(
        f"{'+ ' if known else ''}{folded(name, 14)}" for name in new
    )


@drawn
def dual(landscape: Landscape, *, ax: Axes | None = None) -> Figure:
    """What solving climbs: the dual objective over one weight or two, its top the solution (paper, Figure 12).

    ax  of projection "3d" draws two weights as a surface; else they are drawn as lines of equal height
    """
    colours = inks()
    one = len(landscape.features) == 1
    solid = ax is not None and ax.name == "3d" and not one
    figure, on = axes(ax, (5.4, 3.8) if one else (5.4, 4.4), projection="3d" if solid else "rectilinear")
    at, top = landscape.at, landscape.solution.kl
    star = {"marker": "*", "color": colours.of(1), "ms": 14, "mec": colours.ground, "mew": 0.8, "zorder": 5}
    where = ", ".join(f"{weight:.3g}" for weight in at)
    told = f"optimum: λ = {where}, {top:.3g} nats"
    on.set_xlabel(f"λ of {landscape.features[0]}")
    if one:
        on.plot(landscape.grid[0], landscape.heights, color=colours.of(0), lw=2)
        on.axvline(at[0], color=colours.muted, lw=0.8, ls=(0, (4, 2)))
        on.axhline(top, color=colours.muted, lw=0.8, ls=(0, (4, 2)))
        on.plot(*at, top, ls="", label=told, **star)
        on.set_ylabel("dual objective, nats")
    elif solid:
        first, second = np.meshgrid(*landscape.grid, indexing="ij")
        on.plot_wireframe(first, second, landscape.heights, color=colours.of(0), lw=0.7, rcount=16, ccount=16)
        on.plot(*([x] for x in at), [top], ls="", label=told, **star)
        on.set_zlabel("dual objective, nats")
        _open(on)
    else:
        lines = on.contour(
            *landscape.grid,
            landscape.heights.T,
            levels=_heights(landscape.heights),
            colors=colours.of(0),
            linewidths=1.1,
        )
        on.clabel(lines, fontsize=8, colors=[colours.ink], fmt="%.2g")
        on.plot(*at, ls="", label=told, **star)
    if not one:
        on.set_ylabel(f"λ of {landscape.features[1]}")
    on.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _heights(heights: np.ndarray) -> np.ndarray:
    """Where lines of equal height run: closer together below the top, as squares of whole numbers are."""
    top = float(heights.max())
    drop = top - float(np.quantile(heights, 0.05))
    return np.sort(top - drop * np.linspace(0.12, 1, 8) ** 2)


def _open(on: Any) -> None:
    """Axes in space without the grey walls."""
    colours = inks()
    for axis in (on.xaxis, on.yaxis, on.zaxis):
        axis.pane.set_visible(False)
        axis.line.set_color(colours.muted)
        axis._axinfo["grid"].update(color=colours.rule, linewidth=0.6)
    on.view_init(elev=24, azim=38)
    on.set_box_aspect(None, zoom=1.0)
    on.locator_params(nbins=4)
