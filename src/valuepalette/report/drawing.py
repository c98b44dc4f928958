"""The figures of a report as SVG that may stand in its page: rebuilt from what is allowed, so that nothing else is.

A name can be anything, and a page under a strict policy takes no `style` attribute. So each figure is read again, its
styles become attributes, and an element or attribute that is not on the lists below is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

from valuepalette import plots
from valuepalette.plots.style import THEMES
from valuepalette.report.spelling import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "colours", "picture"]

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
ELEMENTS = frozenset(
    (
        "g",
        "path",
        "use",
        "text",
        "tspan",
        "defs",
        "clipPath",
        "rect",
        "circle",
        "ellipse",
        "line",
        "polyline",
        "polygon",
    )
)
ATTRIBUTES = frozenset(
    (
        "d",
        "x",
        "y",
        "x1",
        "x2",
        "y1",
        "y2",
        "width",
        "height",
        "cx",
        "cy",
        "r",
        "rx",
        "ry",
        "points",
        "transform",
    )
)
STYLES = frozenset(
    (
        *(
            "fill",
            "fill-opacity",
            "fill-rule",
            "opacity",
            "text-anchor",
            "font-size",
            "font-weight",
            "font-style",
        ),
        *(
            "stroke",
            "stroke-width",
            "stroke-opacity",
            "stroke-linejoin",
            "stroke-linecap",
            "stroke-dasharray",
        ),
        *("stroke-dashoffset", "stroke-miterlimit"),
    )
)
PLAIN = re.compile(r"[-#\w\s.,()%]*")
LOCAL = re.compile(r"url\(#([\w-]+)\)")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Picture:
    """A figure with what it shows in words; `svg` is safe to put in a page. `small` ones stand three in a row."""

    svg: Markup
    caption: str
    small: bool = False


def picture(
    figure: Figure, number: int, title: str, told: str, caption: str, *, small: bool = False
) -> Picture:
    """A figure for the page; `number` keeps its ids apart from those of others.

    title, told  what it is and what is to be seen, for those who do not see it
    caption      stands below
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # type: ignore[attr-defined]  # a dollar in a name is a dollar
    root = ElementTree.fromstring(_NOT_XML.sub("\ufffd", plots.svg(figure)))
    used = set(_references(root))
    ids = {name: f"f{number}-{place}" for place, name in enumerate(sorted(used))}
    inner = "".join(_rebuilt(child, ids) for child in root)
    box = re.sub(r"[^-\d. ]", "", root.get("viewBox", ""))
    return Picture(
        Markup(
            f'<svg viewBox="{box}" role="img" aria-labelledby="f{number}-title f{number}-told">'
            f'<title id="f{number}-title">{escape(visible(title))}</title>'
            f'<desc id="f{number}-told">{escape(visible(told))}</desc>{inner}</svg>'
        ),
        caption,
        small,
    )


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        if (link := element.get(LINK, "")).startswith("#"):
            yield link[1:]
        for entry in (element.get("clip-path", ""), element.get("style", "")):
            if found := LOCAL.search(entry):
                yield found[1]


def _rebuilt(element: ElementTree.Element, ids: dict[str, str]) -> str:
    name = element.tag.removeprefix(SVG) if isinstance(element.tag, str) else ""
    if name not in ELEMENTS:
        return ""
    told = dict(_attributes(element, ids))
    inner = str(escape(visible(element.text))) if name in ("text", "tspan") and element.text else ""
    for child in element:
        inner += _rebuilt(child, ids)
        if name in ("text", "tspan") and child.tail:
            inner += str(escape(visible(child.tail)))
    if name == "g" and not told:
        return inner
    if name in ("g", "defs") and not inner:
        return ""
    opened = name + "".join(f' {key}="{escape(entry)}"' for key, entry in told.items())
    return f"<{opened}>{inner}</{name}>" if inner else f"<{opened}/>"


def _attributes(element: ElementTree.Element, ids: dict[str, str]) -> Iterator[tuple[str, Any]]:
    if (own := element.get("id", "")) in ids:
        yield "id", ids[own]
    for key, entry in element.attrib.items():
        if key in ATTRIBUTES and PLAIN.fullmatch(entry):
            yield key, " ".join(entry.split())
        elif key == LINK and entry[1:] in ids and entry.startswith("#"):
            yield "href", f"#{ids[entry[1:]]}"
        elif key == "clip-path" and (found := LOCAL.fullmatch(entry)):
            yield key, f"url(#{ids[found[1]]})"
    for rule in element.get("style", "").split(";"):
        key, _, entry = (part.strip() for part in rule.partition(":"))
        if key in STYLES and PLAIN.fullmatch(entry) and "(" not in entry:
            yield key, entry


def colours() -> str:
    """Rules that put the dark theme's colours where the light one's stand in figures."""
    light, dark = THEMES["light"], THEMES["dark"]
    pairs = [(getattr(light, name), getattr(dark, name)) for name in ("ink", "muted", "rule", "ground")]
    pairs += zip(light.series, dark.series, strict=True)
    return "\n".join(
        f'  svg [{what}="{old}"] {{ {what}: {new} }}' for old, new in pairs for what in ("fill", "stroke")
    )
