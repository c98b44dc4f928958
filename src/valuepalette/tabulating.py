# pyright: strict
"""Tables of numbers with their errors, that fit a width and read without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["WIDTH", "bounds", "cut", "decimals", "number", "table", "with_error"]

WIDTH = 100


def decimals(*errors: float, level: float) -> int:
    """Places after the point, by the first error that is positive: two digits of it up to 35, then one.

    Without an error, three digits of the level.

    >>> decimals(0.031, level=4.2), decimals(0.36, level=4.2), decimals(math.nan, level=4.2)
    (3, 1, 2)
    """
    for error in errors:
        if 0 < error < math.inf:
            power = math.floor(math.log10(error))
            return min(max((1 if error < 3.55 * 10.0**power else 0) - power, 0), 6)
    level = abs(level)
    return min(max(2 - math.floor(math.log10(level)), 0), 6) if 0 < level < math.inf else 2


def number(x: float, places: int, sign: str = "") -> str:
    """A number, nothing for nan.

    >>> number(0.5, 3), number(0.5, 1, "+"), number(math.nan, 1), number(2.5e7, 0), number(-1e-9, 2)
    ('0.500', '+0.5', '', '2.5e+07', '0.00')
    """
    if math.isnan(x):
        return ""
    # What rounds to zero has no sign: z.
    return f"{x:{sign}z.{places}f}" if abs(x) < 1e6 else f"{x:{sign}.3g}"


def with_error(x: float, se: float, places: int, sign: str = "") -> str:
    """A number and its standard error, where it has one.

    >>> with_error(0.5, 0.03, 2, "+"), with_error(0.5, math.nan, 2)
    ('+0.50 ± 0.03', '0.50')
    """
    return number(x, places, sign) + ("" if math.isnan(x) or math.isnan(se) else f" ± {number(se, places)}")


def bounds(lower: float, upper: float, places: int) -> str:
    """An interval as one asks for it.

    >>> [bounds(*ends, 1) for ends in ((1, math.inf), (-math.inf, 1), (1, 1), (1, 2), (-math.inf, math.inf))]
    ['≥ 1.0', '≤ 1.0', '= 1.0', '1.0 … 2.0', '']
    """
    low, high = number(lower, places), number(upper, places)
    if math.isinf(lower):
        return "" if math.isinf(upper) else f"≤ {high}"
    if math.isinf(upper):
        return f"≥ {low}"
    return f"= {low}" if lower == upper else f"{low} … {high}"


def cut(text: str, width: int) -> str:
    """A text on one line, shortened where it is long.

    >>> cut("as long as this", 8)
    'as long…'
    """
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    spare: Sequence[int] = (),
    width: int = WIDTH,
) -> list[str]:
    """Lines of a table, no longer than `width`.

    Columns are as wide as they need; those in `left` are flush left. One that is empty in every row is left out.
    Where the rest is too wide, the columns of `spare` go, in that order, and at last the first column is cut.

    >>> print(*table(["", "level"], [["humor", "0.5"], ["tone", "12.0"]]), sep="\\n")
           level
    humor    0.5
    tone    12.0
    """
    whole = [list(heads), *(list(row) for row in rows)]
    kept = [i for i in range(len(heads)) if i == 0 or any(row[i] for row in whole[1:])]
    sizes = [max(len(row[i]) for row in whole) for i in range(len(heads))]
    least = min(sizes[0], 16)
    for gone in spare:
        if least + sum(sizes[i] + 2 for i in kept if i) > width:
            kept = [i for i in kept if i != gone]
    sizes[0] = max(min(sizes[0], width - sum(sizes[i] + 2 for i in kept if i)), 1)
    lines: list[str] = []
    for row in whole:
        row[0] = cut(row[0], sizes[0])
        cells = [row[i].ljust(sizes[i]) if i in left else row[i].rjust(sizes[i]) for i in kept]
        lines.append("  ".join(cells).rstrip())
    return lines
