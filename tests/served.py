"""Served traffic without a gateway: candidates from a law that is known, chosen as a solution has it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from valuepalette.grouping import Array
from valuepalette.monitoring.rows import Rows
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.solution import Solution
from valuepalette.traffic import Traffic, solution_id

VALUES = ("humor", "tone", "safety")
K = 8
METADATA = PilotMetadata(
    rewards={"humor": {"scale": "real"}, "tone": {"scale": "real"}, "safety": {"scale": "probability"}}
)
Shifts = Mapping[str, float]


def draw(
    rng: np.random.Generator, prompts: int, k: int = K, shift: Shifts | None = None, spread: float = 1.0
) -> Array:
    """(prompts·k, 3): humor is skewed, tone normal and against it, safety a probability; prompts differ."""
    shift = shift or {}
    own = np.repeat(rng.normal(size=(prompts, 3)), k, axis=0)
    n = prompts * k
    humor = 0.7 * own[:, 0] + spread * rng.exponential(size=n)
    tone = 0.5 * own[:, 1] + rng.normal(size=n) - 0.4 * humor
    safety = 1 / (1 + np.exp(-2 - own[:, 2] - rng.normal(size=n) + 0.5 * humor - shift.get("safety", 0.0)))
    return np.column_stack([humor + shift.get("humor", 0.0), tone + shift.get("tone", 0.0), safety])


def as_pilot(values: Array, k: int = K) -> Pilot:
    return Pilot.from_arrays(
        dict(zip(VALUES, values.T, strict=True)),
        prompt_id=np.repeat(np.arange(len(values) // k), k),
        metadata=METADATA,
    )


def rows(rng: np.random.Generator, values: Array, solution: Solution, k: int = K) -> Rows:
    """As a gateway would have served them, a group to each request."""
    groups = len(values) // k
    scores = (solution.resolved.features_of(values, VALUES) @ solution.weights.array).reshape(groups, k)
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    drawn = np.zeros((groups, k), bool)
    at = (chances.cumsum(axis=1) < rng.random((groups, 1))).sum(axis=1)
    drawn[np.arange(groups), np.minimum(at, k - 1)] = True
    return Rows(
        values,
        VALUES,
        {},
        chances.ravel(),
        drawn.ravel(),
        np.arange(0, len(values) + 1, k),
        np.arange(groups),
    )


def traffic(
    served: Rows, solution: Solution, palette: str = "playful", *, aligned: bool = True, answers: int = 1
) -> Traffic:
    """The same as a gateway keeps it; `answers` groups after each other belong to one request."""
    groups, sizes = len(served.heads), np.diff(served.starts)
    key, which = solution_id(solution), np.arange(groups)
    names = [f"{g // answers:08x}-0-{g % answers}" for g in which]
    moments = pa.array(1_790_000_000_000_000 + 1_000_000 * which, pa.timestamp("us", tz="UTC"))
    by_group = {
        "request": pa.array([f"{g // answers:08x}" for g in which]),
        "time": moments,
        "palette": pa.array([palette] * groups),
        "solution": pa.array([key] * groups),
        "turn": pa.array([1] * groups),
        "seed": pa.array([0] * groups),
        "aligned": pa.array([aligned] * groups),
    }
    at = pa.array(np.repeat(which, sizes))
    pilot = Pilot.from_arrays(
        dict(zip(served.names, served.values.T, strict=True)),
        prompt_id=pa.array(names).take(at),
        columns={
            **{name: entries.take(at) for name, entries in by_group.items()},
            "drawn": served.drawn,
            "probability": served.chances,
        },
        metadata=METADATA,
    )
    return Traffic(pilot, {key: solution})
