"""Figures, a function each: they take results, draw on axes of their own or given ones, and return the figure.

    from valuepalette import plots

    plots.radar({"playful": solution}).savefig("playful.png")

Nothing is saved or shown. Importing this does not load matplotlib, which `pip install "valuepalette[plots]"` brings.
"""

from valuepalette.plots.attaining import attainment
from valuepalette.plots.methods import comparison, overoptimisation
from valuepalette.plots.profiles import radar
from valuepalette.plots.spreads import distribution
from valuepalette.plots.style import svg, theme

__all__ = ["attainment", "comparison", "distribution", "overoptimisation", "radar", "svg", "theme"]
