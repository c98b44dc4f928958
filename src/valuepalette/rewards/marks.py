"""Marks from the worst to the best: what they are, how a model is held to one, how one is read in what it says."""

from __future__ import annotations

import math
import re
from typing import Any

from valuepalette.rewards.exchange import answer_of

__all__ = ["ends", "mark", "schema", "whole"]

_ALONE = re.compile(
    r"""
    [\s*"]*
    (?: (?:score|rating|mark) [\s:=*"]{1,6} )?
    (-?\d+(?:\.\d+)?) \s*
    (?: (?:/|out\ of) \s* (\d+(?:\.\d+)?) )?
    [\s.*"]*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A number alone, perhaps named, perhaps out of the best."""


def mark(said: str, low: float, high: float) -> float | None:
    """The mark in what a judge said, None where there is none from `low` to `high`.

    Read are JSON with a `score`, alone or within a text, and a number alone, "4", "Score: 4" or "4/5". A number
    somewhere in a sentence is not: it may be another.

    >>> mark('Here you are: {"score": 4}', 1, 5), mark("4 / 5", 1, 5), mark("<think>2?</think> 3", 1, 5)
    (4.0, 4.0, 3.0)
    >>> mark("I saw 3 mistakes", 1, 5), mark('{"score": 7}', 1, 5)
    (None, None)
    """
    text = answer_of(said).strip()
    inside = re.findall(r'"score"\s*:\s*(-?\d+(?:\.\d+)?)\s*[,}]', text)
    alone = _ALONE.fullmatch(text)
    if inside:
        found = float(inside[0]) if len(set(inside)) == 1 else math.nan
    elif alone and (alone[2] is None or float(alone[2]) == high):
        found = float(alone[1])
    else:
        return None
    return found if low <= found <= high else None


def ends(scale: Any) -> tuple[float, float]:
    """The worst mark and the best. Raises ValueError where these are no two numbers in this order."""
    try:
        low, high = (math.nan if isinstance(end, bool) else float(end) for end in scale)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"scale must be two numbers, the worst mark and the best, such as [1, 5]; got {scale!r}"
        )
    return low, high


def whole(low: float, high: float) -> bool:
    """Whether marks are whole numbers: where both ends are, and there are at least three between them."""
    return low.is_integer() and high.is_integer() and high - low >= 2


def schema(low: float, high: float) -> dict[str, Any]:
    """The response format that holds a model to a mark."""
    number: dict[str, Any] = {"type": "number", "minimum": low, "maximum": high}
    if whole(low, high):
        number = {"type": "integer", "minimum": int(low), "maximum": int(high)}
        if high - low <= 20:
            number = {"type": "integer", "enum": list(range(int(low), int(high) + 1))}
    shape = {
        "type": "object",
        "properties": {"score": number},
        "required": ["score"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "judgement", "strict": True, "schema": shape}}
