"""Figures, a function each: they take results, draw on axes of their own or given ones, and return the figure.

    from valuepalette import plots

    plots.radar({"playful": solution}).savefig("playful.png")

Nothing is saved or shown. Importing this does not load matplotlib, which `pip install "valuepalette[plots]"` brings.
"""

from valuepalette.plots.attaining import attainment
from valuepalette.plots.costs import growth, prices
from valuepalette.plots.methods import comparison, overoptimisation
from valuepalette.plots.profiles import radar
from valuepalette.plots.spreads import distribution, distributions
from valuepalette.plots.style import svg, theme
from valuepalette.plots.tradeoffs import tradeoff
from valuepalette.plots.ways import by_candidates, sequential
from valuepalette.plots.weights import cloud, dual, shares

__all__ = [
    "attainment",
    "by_candidates",
    "cloud",
    "comparison",
    "distribution",
    "distributions",
    "dual",
    "growth",
    "overoptimisation",
    "prices",
    "radar",
    "sequential",
    "shares",
    "svg",
    "theme",
    "tradeoff",
]
