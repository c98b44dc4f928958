"""Asking in words: a system prompt that says which values are wanted, as one would without weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from valuepalette.solution import Solution

__all__ = ["system_prompt"]


def system_prompt(
    solution: Solution, words: Mapping[str, str] | None = None, before: str | None = None
) -> str:
    """A system prompt that asks for more of what the solution's palette raises, and for the rest as it is.

    words   what a value is called where its name is not a word: {"positive": "cheerfulness"}
    before  the system prompt that it is added to

    A tail is asked for by its value's name, kept as it is; a cohort's value like any other.

    >>> from valuepalette.pilot import Pilot
    >>> from valuepalette.solving import solve
    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0], "length": [8.0, 9.0], "tone": [3.0, 3.0]}, prompt_id=[0, 0])
    >>> system_prompt(solve(pilot, {"humor": "reach 50%", "length": "<= 9", "tone": "keep"}))
    'Answer with more humor than you usually would. Keep length and tone as you usually would.'
    """
    asked: dict[str, list[str]] = {"more": [], "less": [], "kept": []}
    resolved = solution.resolved
    for i, spec in enumerate(resolved.specs):
        lower, upper, base = float(solution.lower[i]), float(solution.upper[i]), float(solution.base.array[i])
        if math.isinf(lower) and math.isinf(upper):
            continue
        least = 1e-9 * float(solution.spread[i])
        way = "more" if lower > base + least else "less" if upper < base - least else "kept"
        asked["kept" if spec.tail is not None else way].append((words or {}).get(spec.value, spec.value))
    moved = set(asked["more"] + asked["less"])
    said = [before] if before else []
    said += [
        f"Answer with {way} {_listed(names)} than you usually would."
        for way in ("more", "less")
        if (names := list(dict.fromkeys(asked[way])))
    ]
    if kept := [name for name in dict.fromkeys(asked["kept"]) if name not in moved]:
        said.append(f"Keep {_listed(kept)} as you usually would.")
    return " ".join(said)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
