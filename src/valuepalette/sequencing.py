"""One value after another on a pilot, reading one column of values at a time (paper, 2.4 and A.2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from valuepalette.dual import Status
from valuepalette.features import Resolved, features_of
from valuepalette.figures import Figures
from valuepalette.grouping import Array
from valuepalette.palette import Palette
from valuepalette.pilot import RESERVED, Pilot
from valuepalette.posing import Posed, pose
from valuepalette.provenance import decode
from valuepalette.sequential import Step, ascend
from valuepalette.solution import Solution, solution_of
from valuepalette.solving import solve
from valuepalette.tabulating import WIDTH, decimals, number, table

__all__ = ["Ascent", "Stage", "solve_sequentially"]

TOLERANCE = 1e-9
"""The residual at which the steps have arrived, in within-prompt standard deviations; that of `solve`."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Where things stand after one block was solved, the weights of all others held.

    turn      the round, from 1
    block     the values that moved
    weights   λ by feature
    levels    E_λ r by feature, as a user reads them
    kl        KL(p_λ ‖ p_0), nats
    residual  the largest that any bound has left, in within-prompt standard deviations: 0 at the optimum
    """

    turn: int
    block: tuple[str, ...]
    weights: Figures
    levels: Figures
    kl: float
    residual: float


@dataclass(frozen=True, eq=False)
class Ascent:
    """The way of the weights, block by block, to those that `solve` finds at once.

    steps      each with its block, weights, levels, KL and residual
    features   by name, in the order of all arrays
    asked      the text of what is asked of each
    converged  whether every bound is met and every weight pushes to its bound, to within 1e-9
    """

    steps: tuple[Stage, ...]
    features: tuple[str, ...]
    asked: tuple[str, ...]
    converged: bool
    solution_of: Callable[[], Solution] = field(repr=False)

    @property
    def weights(self) -> Figures:
        """Where the weights have come to."""
        return self.steps[-1].weights

    @property
    def levels(self) -> Figures:
        return self.steps[-1].levels

    @property
    def kl(self) -> float:
        return self.steps[-1].kl

    @property
    def rounds(self) -> int:
        """How many rounds were begun."""
        return self.steps[-1].turn

    @cached_property
    def solution(self) -> Solution:
        """The end as a Solution, which decoding and evaluation take; reads all columns, once.

        Raises ValueError where the steps have not arrived.
        """
        if not self.converged:
            raise ValueError(
                f"rounds must be enough for every bound to be met to within {TOLERANCE:.0e} standard deviations, got "
                f"{self.rounds}, which leave {self.steps[-1].residual:.2g}"
            )
        return self.solution_of()

    def __str__(self) -> str:
        end = self.steps[-1]
        told = "arrived" if self.converged else "not there yet"
        lines = [
            f"{len(self.steps)} steps, {self.rounds} rounds: {told}; KL {end.kl:.4f} nats, the bounds are met to "
            f"within {end.residual:.1e} sd"
        ]
        bound = [i for i, text in enumerate(self.asked) if text != "free"]
        path = np.array([step.levels.array for step in self.steps])
        places = [decimals(np.ptp(path[:, i]) / 30, level=path[-1, i]) for i in bound]
        heads = ["step", "round", "solved for", "KL", *(self.features[i] for i in bound)]
        rows = [
            [
                str(at + 1),
                str(step.turn),
                ", ".join(step.block),
                f"{step.kl:.4f}",
                *(number(step.levels.array[i], digits) for i, digits in zip(bound, places, strict=True)),
            ]
            for at, step in enumerate(self.steps)
        ]
        each = len({step.block for step in self.steps})
        shown = rows
        if len(rows) > 2 * each + 3:
            shown = [*rows[: 2 * each], ["…", *[""] * (len(heads) - 1)], rows[-1]]
        wide = table(heads, shown, left=(2,), spare=range(len(heads) - 1, 3, -1), width=WIDTH)
        weights = [f"{self.features[i]} {self.weights.array[i]:.4g}" for i in bound]
        return "\n".join([*lines, "", *wide, "", "weights: " + ", ".join(weights)])


def solve_sequentially(
    pilot: Pilot | str | os.PathLike[str],
    palette: Palette | Mapping[str, object],
    blocks: Sequence[str | Sequence[str]] | None = None,
    rounds: int = 100,
    *,
    candidates: int | None = None,
    mode: Literal["prompt", "joint"] | None = None,
    weighting: str = "prompts",
    seed: int = 0,
    increments: bool = False,
) -> Ascent:
    """The weights of a palette by aligning to one value, or block of values, at a time, over and over.

    max g(λ) over the weights of one block, those of the others held and the sign set on the total λ: Hildreth's
    method, Dykstra's for KL. It converges to the λ of `solve`, the faster the less the values depend on each
    other (paper, 2.4 and A.2; Theorem 5, put right). One column of values is in memory at a time.

    pilot       a Pilot, or the path of a Parquet file or folder, of which columns are then read one by one
    blocks      names of values, or lists of them, in the order of a round; None takes each asked value by itself
    rounds      at most; 1 is the paper's single cycle, which mostly falls short
    increments  the paper's form, λ ≥ 0 on each increment; it stops short, and is here to show that it does

    `candidates`, `mode`, `weighting` and `seed` are those of `solve`. A palette that cannot be had raises
    Infeasible with the certificate of `solve`, which reads the whole pilot; or, where the values lie in conflict and
    the steps only creep, uses up its rounds. Raises ValueError for a palette on the boundary, which has no λ.

    >>> pilot = Pilot.from_arrays({"a": [0.0, 1.0, 1.0], "b": [0.0, 0.0, 1.0]}, prompt_id=[0, 0, 0])
    >>> ascent = solve_sequentially(pilot, {"a": 0.8, "b": 0.6})
    >>> ascent.converged, round(ascent.kl, 4), round(ascent.weights["b"], 6)
    (True, 0.1483, 1.098612)
    >>> short = solve_sequentially(pilot, {"a": 0.8, "b": 0.6}, increments=True)
    >>> short.converged, round(short.kl, 4)
    (False, 0.171)
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be a positive integer, got {rounds!r}")
    if candidates == "limit":
        raise ValueError('candidates must be a number or None here, got "limit"')
    palette = palette if isinstance(palette, Palette) else Palette(palette)
    if palette.maximised:
        raise ValueError(f'palette must not ask "max", which takes all values at once, got {palette!r}')
    columns = _Columns.of(pilot)
    if unknown := [name for name in palette.values if name not in columns.values]:
        raise ValueError(
            f"the palette names {unknown[0]!r}, the pilot's values are {', '.join(columns.values)}"
        )
    named = _named(palette, blocks)

    parts: dict[str, Posed] = {}
    for value in dict.fromkeys((*palette.values, *columns.values)):
        one = columns.pilot(value, (*palette.columns, weighting))
        part = pose(one, _alone(palette, value), candidates, mode, weighting, seed)
        # What is prompts' stays; the numbers are read again when they are needed.
        parts[value] = replace(part, groups=replace(part.groups, values=np.empty((one.rows, 0))))
        mode = "joint" if part.joint else "prompt"
    part = next(iter(parts.values()))
    groups, order, block = part.groups, part.pilot.order, part.block
    by_row = {name: np.repeat(part.pilot.column(name), groups.sizes) for name in palette.columns}
    resolved = _together([one.resolved for one in parts.values()], [*map(str, palette.asks), *columns.values])

    def column(i: int) -> Array:
        spec = resolved.specs[i]
        return features_of((spec,), columns.read(spec.value)[order][:, None], [spec.value], by_row)[:, 0]

    steps = ascend(
        column,
        groups,
        resolved.lower,
        resolved.upper,
        [[i for i, spec in enumerate(resolved.specs) if spec.value in block] for block in named],
        rounds=rounds,
        tol=TOLERANCE,
        joint=part.joint,
        candidates=block,
        seed=seed,
        increments=increments,
    )
    end = steps[-1]
    converged = end.residual <= TOLERANCE

    # Nothing but names, so that what comes of it can be sent to another process.
    solution = partial(_solved, pilot, palette, (candidates, mode, weighting, seed), end, len(steps))
    if not (converged or increments) and len(steps) < rounds * len(named):
        # No weights have these levels: `solve` says why, or that they can just be had.
        found = solve(columns.whole(), palette, candidates, mode=mode, weighting=weighting, seed=seed)
        if found.status is Status.BOUNDARY:
            raise ValueError(_EDGE)
    stages = [_stage(step, named[at % len(named)], resolved) for at, step in enumerate(steps)]
    return Ascent(tuple(stages), resolved.features, resolved.asked, converged, solution)


def _solved(
    pilot: Pilot | str | os.PathLike[str], palette: Palette, options: tuple[Any, ...], end: Step, passes: int
) -> Solution:
    """The end of the steps as a Solution."""
    setup = pose(_Columns.of(pilot).whole(), palette, *options)
    found = setup.optimise(setup.block)
    if found.status is Status.BOUNDARY:
        raise ValueError(_EDGE)
    at = setup.evaluate(end.weights, setup.block)
    unproved = np.where(np.isfinite(setup.resolved.lower) | np.isfinite(setup.resolved.upper), np.nan, 0.0)
    at = replace(at, kkt_residual=end.residual, error=unproved, passes=passes, margin=found.margin)
    return solution_of(setup, at)


_EDGE = (
    "the palette must lie inside what can be had, where weights are finite, got one on the very edge; solve has it, "
    "or ask a little less"
)


def _stage(step: Step, block: tuple[str, ...], resolved: Resolved) -> Stage:
    weights = Figures(resolved.features, step.weights)
    levels = Figures(resolved.features, resolved.reported(step.levels))
    return Stage(step.turn, block, weights, levels, step.kl, step.residual)


def _named(palette: Palette, blocks: Sequence[str | Sequence[str]] | None) -> list[tuple[str, ...]]:
    """The values of each block; every value that something is asked of is in one, and no other."""
    bound = tuple(dict.fromkeys(subject.value for subject, asks in palette.asks.items() if asks))
    if not bound:
        raise ValueError(f"the palette must ask something of a value, got {palette!r}")
    if blocks is None:
        return [(value,) for value in bound]
    if isinstance(blocks, str):
        raise TypeError(f"blocks must be a list of values, or of lists of them, got the text {blocks!r}")
    named = [(block,) if isinstance(block, str) else tuple(block) for block in blocks]
    told = [value for block in named for value in block]
    if set(told) != set(bound) or not all(named):
        raise ValueError(
            f"blocks must name every value that the palette asks something of ({', '.join(bound)}) and no other, got "
            f"{list(map(list, named))}"
        )
    return named


def _alone(palette: Palette, value: str) -> Palette:
    """What a palette asks of one value."""
    cohorts = {name: {value: asks[value]} for name, asks in palette.cohorts.items() if value in asks}
    entries = {value: palette.entries[value]} if value in palette.entries else {}
    return Palette(entries if entries or cohorts else {value: "free"}, cohorts=cohorts or None)


def _together(parts: Sequence[Resolved], order: Sequence[str]) -> Resolved:
    """Several values, each resolved by itself, as one palette whose features come in `order`."""
    features = tuple(dict.fromkeys(order))
    place = {name: (part, i) for part in parts for i, name in enumerate(part.features)}
    picked = [place[name] for name in features]
    return Resolved(
        features=features,
        lower=np.array([part.lower[i] for part, i in picked]),
        upper=np.array([part.upper[i] for part, i in picked]),
        base=np.array([part.base[i] for part, i in picked]),
        asked=tuple(part.asked[i] for part, i in picked),
        quantiles=np.array([part.quantiles[i] for part, i in picked]),
        influence_lower=np.column_stack([part.influence_lower[:, i] for part, i in picked]),
        influence_upper=np.column_stack([part.influence_upper[:, i] for part, i in picked]),
        specs=tuple(part.specs[i] for part, i in picked),
        sources=tuple(part.sources[i] for part, i in picked),
    )


@dataclass(frozen=True)
class _Columns:
    """A pilot of which a few columns are read at a time.

    names   of all columns
    values  those that are values
    select  some columns, as a table
    whole   all of it
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    select: Callable[[Sequence[str]], pa.Table]
    whole: Callable[[], Pilot]

    @classmethod
    def of(cls, pilot: Pilot | str | os.PathLike[str]) -> _Columns:
        if isinstance(pilot, Pilot):
            names = tuple(pilot.table.column_names)
            return cls(names, pilot.values, lambda some: pilot.table.select(list(some)), lambda: pilot)
        import pyarrow.parquet as pq

        path = Path(pilot)
        parts = [path]
        if path.is_dir():
            parts = sorted(part for part in path.glob("*.parquet") if not part.name.startswith((".", "_")))
        if not parts or not parts[0].is_file() or parts[0].suffix.lower() != ".parquet":
            raise ValueError(
                "pilot must be a Pilot, or the path of a Parquet file or folder, whose columns can be read one by "
                f"one, got {str(path)!r}"
            )
        schema = pq.read_schema(parts[0])
        recorded = decode(schema.metadata, parts[0].name)
        values = recorded.get("values", list(recorded.get("rewards", {})))
        if not recorded:
            values = [
                each.name for each in schema if pa.types.is_floating(each.type) and each.name not in RESERVED
            ]

        def select(some: Sequence[str]) -> pa.Table:
            tables = [pq.read_table(part, columns=list(some)) for part in parts]
            return pa.concat_tables(tables, promote_options="permissive")

        return cls(tuple(schema.names), tuple(values), select, lambda: Pilot.read(path))

    def pilot(self, value: str, columns: Sequence[str]) -> Pilot:
        """The pilot with one value and some columns of the prompts, as far as it has them."""
        keys = (
            ["prompt_id"]
            if "prompt_id" in self.names
            else [name for name in ("prompt", "messages") if name in self.names]
        )
        more = [name for name in dict.fromkeys(columns) if name in self.names and name not in (*keys, value)]
        plain = [name for name in more if name not in RESERVED]
        return Pilot.read(self.select([*keys, *more, value]), values=[value], columns=plain)

    def read(self, value: str) -> Array:
        """The numbers of one value, in row order; `pilot` has seen that they are good."""
        return np.asarray(self.select([value])[value], float)
