"""How figures look, in one place: two themes, colours, markers, the axes of a figure, and SVG that follows the page.

Series differ in hue as the colour-blind see it, in lightness, and in marker and dash, so that nothing hangs on colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from html import escape
from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DASHES", "MARKERS", "Inks", "axes", "drawn", "folded", "inks", "signed", "svg", "theme"]

P = ParamSpec("P")
T = TypeVar("T")

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
SMALL = 9


@dataclass(frozen=True)
class Inks:
    """The colours of a theme.

    ink     what is read first: names, titles, what was asked
    muted   what is read second: ticks, notes, the base model
    rule    lines that only help the eye
    ground  the page, to part marks that touch
    series  of subjects in turn
    """

    ink: str
    muted: str
    rule: str
    ground: str
    series: tuple[str, ...]

    def of(self, number: int) -> str:
        """The colour of a series; after the last the first comes again."""
        return self.series[number % len(self.series)]


THEMES = {
    "light": Inks(
        "#1f2328",
        "#59636e",
        "#d1d9e0",
        "#ffffff",
        ("#004390", "#dd6d1d", "#008453", "#b9619e", "#694b00", "#332b3a"),
    ),
    "dark": Inks(
        "#f0f6fc",
        "#9198a1",
        "#3d444d",
        "#0d1117",
        ("#2b90db", "#f97c43", "#27e09c", "#c77db2", "#ffe837", "#c1d8e6"),
    ),
}
_THEME: ContextVar[Literal["light", "dark"]] = ContextVar("theme", default="light")


@contextmanager
def theme(name: Literal["light", "dark"]) -> Generator[None]:
    """Draws for a light or a dark page while it lasts; grounds are transparent in both.

    Axes made inside are of the theme too, so that figures of one's own fit.

        with plots.theme("dark"):
            plots.radar({"playful": solution})
    """
    if name not in THEMES:
        raise ValueError(f'name must be "light" or "dark", got {name!r}')
    token = _THEME.set(name)
    try:
        with _settings():
            yield
    finally:
        _THEME.reset(token)


def inks() -> Inks:
    """The colours of the present theme."""
    return THEMES[_THEME.get()]


def drawn(draw: Callable[P, T]) -> Callable[P, T]:
    """Runs a function under the settings of the present theme; without matplotlib it says what to install."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with _settings():
            from matplotlib import rcParams

            rcParams["text.parse_math"] = False  # a dollar in a name is a dollar
            return draw(*args, **kwargs)

    return inside


def _settings() -> Any:
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError(
            'figures need matplotlib: pip install "valuepalette[plots]"', name="matplotlib"
        )
    from matplotlib import rc_context

    colours = inks()
    return rc_context(
        {
            "font.size": 10,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.edgecolor": colours.muted,
            "axes.labelcolor": colours.ink,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.axisbelow": True,
            "text.color": colours.ink,
            "xtick.color": colours.muted,
            "ytick.color": colours.muted,
            "xtick.labelsize": SMALL,
            "ytick.labelsize": SMALL,
            "grid.color": colours.rule,
            "grid.linewidth": 0.8,
            "legend.frameon": False,
            "legend.fontsize": SMALL,
            "hatch.linewidth": 0.8,
        }
    )


def axes(
    ax: Axes | None, size: tuple[float, float] = (6.4, 4.4), *, projection: str = "rectilinear"
) -> tuple[Figure, Any]:
    """The figure and axes to draw on: those given, or new ones of `size` inches."""
    if ax is not None:
        if ax.name != projection:
            raise ValueError(
                f"ax must have the projection {projection!r}, as subplots(subplot_kw=dict(projection={projection!r})) "
                f"makes it, got {ax.name!r}"
            )
        found: Any = ax.figure
        return found, ax
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot(projection=projection)


def folded(name: str, width: int = 18) -> str:
    """A name over as many lines as it needs to be no wider than `width` letters, parted after blanks and underscores.

    >>> folded("answers_the_question", 14)
    'answers_the_\\nquestion'
    """
    lines = wrap(name.replace("_", "_ "), width, break_on_hyphens=False)
    return "\n".join(line.replace("_ ", "_") for line in lines) or name


def signed(text: str) -> str:
    """A number with a minus as long as a plus."""
    return text.replace("-", "−")


_FONT = re.compile(r"font: ((?:[a-z0-9]+ )*)([\d.]+)px [^;\"]+")
_PLACES = re.compile(r"(\s(?:d|x|y|transform|width|height|viewBox)=\")([^\"]*)\"")


def svg(figure: Figure, title: str = "", *, width: float | None = None) -> str:
    """A figure of the light theme as SVG that turns dark with the page; the same figure is always the same text.

    title   what it shows, for those who do not see it
    width   in pixels; None lets the page decide

    Text stays text, in the reader's own font. Without an XML declaration, so that it can stand in HTML; nothing in it
    is run or fetched, and names are escaped.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "valuepalette"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    opening, _, body = text.partition(">")
    box = re.search(r'viewBox="([^"]*)"', opening)
    assert box is not None
    at = "" if width is None else f' width="{width:g}"'
    body = re.sub(r"^\s*<metadata>.*?</metadata>\s*", "\n", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    # Nothing refers to groups, and pictures that share a page must not share names.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = _FONT.sub(r"font-style: normal; font-size: \2px", body)
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="valuepalette" '
        f'stroke-linejoin="round" viewBox="{box[1]}"'
    )
    named = f"<title>{escape(title)}</title>\n" if title else ""
    text = f'{opening}{at} role="img">\n{named}<style>\n{_css()}\n</style>{body}'
    return _PLACES.sub(lambda found: f'{found[1]}{_rounded(found[2])}"', text)


def _rounded(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)


def _css() -> str:
    """Rules that put the dark theme's colour where the light one's stands. What does not know them shows the light.

    They name no ancestor: markers are copies, which look for theirs among the copied alone.
    """
    light, dark = THEMES["light"], THEMES["dark"]
    pairs = [(getattr(light, name), getattr(dark, name)) for name in ("ink", "muted", "rule", "ground")]
    pairs += zip(light.series, dark.series, strict=True)
    rules = [
        f'  [style*="{what}: {old}"] {{ {what}: {new} !important }}'
        for old, new in pairs
        for what in ("fill", "stroke")
    ]
    fonts = '.valuepalette text { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }'
    return "\n".join([fonts, "@media (prefers-color-scheme: dark) {", *rules, "}"])
