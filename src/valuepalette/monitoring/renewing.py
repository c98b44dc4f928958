"""What would today's λ be? The levels that were asked, solved on the candidates that were served."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from valuepalette.features import Feature
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.solving import solve

__all__ = ["as_pilot", "levels_asked", "place_of", "renew"]


def as_pilot(traffic: Pilot) -> Pilot:
    """Served candidates as a pilot: n answers to one prompt are n·k candidates of it."""
    ids = traffic.table["prompt_id"].to_pylist()
    columns = {
        name: traffic.table[name]
        for name in traffic.columns
        if name not in ("request", "time", "palette", "solution", "turn", "seed", "aligned")
    }
    return Pilot.from_arrays(
        {name: traffic.array[:, i] for i, name in enumerate(traffic.values)},
        prompt_id=pa.array([entry.rpartition("-")[0] for entry in ids], pa.large_string()),
        columns=columns,
        metadata=traffic.metadata,
    )


def levels_asked(solution: Solution) -> Palette:
    """The palette whose entries are numbers: the bounds as they were resolved on the pilot.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0, 0.0, 1.0], "tone": [2.0, 1.0, 0.5, 0.5]}, prompt_id=[0, 0, 1, 1])
    >>> levels_asked(solve(pilot, {"humor": "reach 50%", "tone": ["P(< q10) <= 0.5", "<= 4"]}))
    Palette({'humor': '0.75', 'tone': ['<= 4', 'P(< 0.5) <= 0.5']})
    """
    entries: dict[str, list[str]] = {}
    cohorts: dict[str, dict[str, list[str]]] = {}
    for spec, low, high in zip(solution.resolved.specs, solution.lower, solution.upper, strict=True):
        tail = "" if spec.tail is None else f"P({spec.tail[0]} {spec.tail[1]!r}) "
        if tail:  # a share a rounding error beyond its ends is no share
            low, high = (min(max(end, 0.0), 1.0) if np.isfinite(end) else end for end in (low, high))
        ends = [("==", low)] if low == high and not tail else [(">=", low), ("<=", high)]
        if texts := [f"{tail}{sign} {float(end)!r}" for sign, end in ends if np.isfinite(end)]:
            of = entries if spec.cohort is None else cohorts.setdefault("=".join(spec.cohort), {})
            of.setdefault(spec.value, []).extend(texts)
    free = {} if entries or cohorts else {spec.value: "free" for spec in solution.resolved.specs}
    return Palette(entries or free, cohorts=cohorts)


def renew(pilot: Pilot, solution: Solution) -> Solution:
    """A solution of the same levels on other candidates, for the same decoder; also where they cannot be had.

    Entries relative to the base model stay what they came to on the solution's own pilot: what was promised is kept to,
    wherever the base model goes.

    Raises ValueError where the candidates are too few.
    """
    k = solution.candidates
    assert isinstance(k, int)
    enough = pilot.sizes[pilot.prompt_index] >= k
    if not enough.any() or len(np.unique(pilot.prompt_index[enough])) < 2:
        raise ValueError(f"it takes two prompts with {k} candidates or more")
    return solve(
        pilot.select(enough),
        levels_asked(solution),
        k,
        mode="prompt",
        weighting=solution.weighting,
        seed=solution.seed,
        confidence=solution.confidence,
        on_infeasible="return",
    )


def place_of(spec: Feature, solution: Solution) -> int | None:
    """Which feature of a solution is that of another's spec; None where it has none."""
    for i, other in enumerate(solution.resolved.specs):
        if (other.value, other.tail, other.cohort) == (spec.value, spec.tail, spec.cohort):
            return i
    return None
