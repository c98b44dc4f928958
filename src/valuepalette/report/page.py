"""The page: one HTML file with its style and its figures in it, written from a report and from nothing else.

Texts and names go through the template's escaping, every one of them, and no script is allowed to run.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuepalette.report.content import Answers, Cost, Got, Promise, Report
from valuepalette.report.spelling import minus, visible
from valuepalette.tabulating import decimals, number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["LARGEST", "render_report"]

LARGEST = 1_000_000
"""Bytes of a page at most."""

TEMPLATES = Path(__file__).parent
VERDICTS = {
    "OPTIMAL": ("yes", "It can be had"),
    "BOUNDARY": ("open", "It can just be had"),
    "INFEASIBLE": ("no", "It cannot be had"),
    "NUMERICAL": ("open", "Not solved to full accuracy"),
    "MET": ("yes", "met"),
    "MISSED": ("no", "missed"),
    "UNDECIDED": ("open", "undecided"),
    None: ("none", "Not solved yet"),
}
SIGNS = {"yes": "✓", "no": "✗", "open": "?", "none": "–"}


@dataclass(frozen=True)
class Detail:
    """How much of a large run is shown: characters of a text, candidates behind an answer, figures of a method."""

    characters: int
    candidates: int
    figures: int


DETAILS = (
    Detail(1500, 16, 10),
    Detail(700, 8, 10),
    Detail(400, 4, 6),
    Detail(240, 0, 3),
    Detail(160, 0, 1),
    Detail(80, 0, 0),
)


def render_report(report: Report) -> str:
    """The page as HTML, under `LARGEST` bytes: of a run with much to tell it shows less of each, and says so.

    Needs `pip install "valuepalette[report]"`.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f'a report needs {package}: pip install "valuepalette[report]"', name=package
            )
    from valuepalette.report.drawing import colours
    from valuepalette.report.figures import drawn_figures

    style = (TEMPLATES / "page.css").read_text(encoding="utf-8").replace("/* figures */", colours())
    template = _environment().get_template("page.html")
    figures = drawn_figures(report)
    for detail, count in _details(report):
        told = replace(report, palettes=report.palettes[:count])
        page = template.render(
            report=told,
            left_out=report.palettes[count:],
            figures=figures,
            detail=detail,
            whole=detail == DETAILS[0],
            style=_safe(style),
            policy=_policy(style),
        )
        if len(page.encode()) < LARGEST:
            return page
    raise ValueError(
        f"report must fit {LARGEST:,} bytes; the run has too many files or values to list: name a palette"
    )


def _details(report: Report) -> Iterator[tuple[Detail, int]]:
    """Less and less of each palette; then fewer palettes."""
    count = len(report.palettes)
    for detail in DETAILS:
        yield detail, count
    while count > 1:
        count = count * 2 // 3
        yield DETAILS[-1], count


def _policy(style: str) -> str:
    """Nothing is fetched, run or sent; the one style is known by its digest."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _safe(text: str) -> Markup:
    """Text of this package, never of a run."""
    from markupsafe import Markup

    return Markup(text)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"clip": _clip, "size": _size, "finite": math.isfinite}
    found.globals |= {
        "as_level": _as_level,
        "bounds": _bounds,
        "error": _error,
        "num": _num,
        "percent": _percent,
        "places_of": _places_of,
        "plain": _level,
        "price_places": _price_places,
        "ranged": _ranged,
        "signed": partial(_level, sign="+"),
        "verdict": lambda status: (*VERDICTS[status], SIGNS[VERDICTS[status][0]]),
    }
    return found


def _shown(entry: Any) -> Any:
    """What the template puts out: nothing hidden in a text, whatever it is."""
    return visible(entry) if type(entry) is str else entry


def _num(x: float, places: int, sign: str = "") -> Markup:
    """A number as it reads, with the exact one in the page for whoever takes it from there."""
    from markupsafe import Markup

    if math.isnan(x):
        return Markup('<span class="none">–</span>')
    if math.isinf(x):
        return Markup('<span class="none">none</span>')
    text = minus(number(x, places, sign))
    return Markup('<data value="{}">{}</data>').format(repr(float(x)), text)


def _level(x: float, near: float | None = None, sign: str = "") -> Markup:
    """With as many places as a number like `near` has."""
    return _num(x, decimals(level=x if near is None else near), sign)


def _error(x: float, se: float, sign: str = "") -> Markup:
    """A number ± its standard error."""
    from markupsafe import Markup

    places = decimals(se, level=x)
    if math.isnan(x) or math.isnan(se) or se == 0:
        return _num(x, places, sign)
    return Markup('{} <span class="range">± {}</span>').format(_num(x, places, sign), _num(se, places))


def _ranged(x: float, low: float, high: float, sign: str = "") -> Markup:
    """A number and its interval."""
    from markupsafe import Markup

    places = decimals((high - low) / 4, level=x)
    if math.isnan(x) or math.isnan(low) or low == high:
        return _num(x, places, sign)
    ends = _num(low, places, sign), _num(high, places, sign)
    return Markup('{} <span class="range">{} to {}</span>').format(_num(x, places, sign), *ends)


def _as_level(row: Got | Promise) -> Markup:
    """The base model's level, in as many places as the level beside it."""
    return _num(row.base, _level_places(row))


def _level_places(row: Got | Promise) -> int:
    if isinstance(row, Got):
        return decimals((row.level_high - row.level_low) / 4, level=row.level)
    if math.isnan(row.level):
        return decimals(level=row.base)
    return decimals(row.level_se, level=row.level)


def _places_of(found: Answers) -> list[int]:
    """Of the values beside answers: three digits of the largest that is shown."""
    rows = [answer.changes for answer in found.shown]
    return [_common(column) for column in zip(*rows, strict=True)]


def _price_places(prices: Sequence[Cost], names: Sequence[str]) -> list[int]:
    """Of the levels that move with a step."""
    return [_common([row.levels[name] for row in prices if row.name != name]) for name in names]


def _common(column: Sequence[float]) -> int:
    known = [abs(x) for x in column if math.isfinite(x)]
    return decimals(level=max(known, default=0.0))


def _percent(x: float, low: float = math.nan, high: float = math.nan) -> Markup:
    from markupsafe import Markup

    if math.isnan(x):
        return _num(x, 0)

    def one(share: float) -> Markup:
        return Markup('<data value="{}">{}%</data>').format(repr(float(share)), f"{100 * share:.0f}")

    if math.isnan(low) or high - low < 0.005:
        return one(x)
    return Markup('{} <span class="range">{} to {}</span>').format(one(x), one(low), one(high))


def _bounds(row: Got | Promise) -> Markup:
    """What a level, or a change, must be."""
    from markupsafe import Markup

    if isinstance(row, Got):
        sign = "+" if row.judged_by == "gain" else ""
        low, high = (row.gain_low, row.gain_high) if sign else (row.level_low, row.level_high)
        places = decimals((high - low) / 4, level=row.gain if sign else row.level)
    else:
        sign, places = "", min(_level_places(row), 4)
    lower, upper = (_num(end, places if end else 0, sign if end else "") for end in (row.lower, row.upper))
    if math.isinf(row.lower):
        return Markup("") if math.isinf(row.upper) else Markup("≤ {}").format(upper)
    if math.isinf(row.upper):
        return Markup("≥ {}").format(lower)
    return Markup("= {}").format(lower) if row.lower == row.upper else Markup("{} to {}").format(lower, upper)


def _clip(text: str, characters: int) -> str:
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]} … ({left:,} more)"


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
