"""Rewards that are wrong by so much: by how much the weights would have been others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import wrap

import numpy as np

from valuepalette.dual import Status
from valuepalette.grouping import Array, Groups
from valuepalette.pilot import Pilot
from valuepalette.sensitivity import reward_slopes
from valuepalette.solution import Solution
from valuepalette.tabulating import WIDTH, decimals, number, table

__all__ = ["Robustness", "robustness"]


@dataclass(frozen=True, eq=False)
class Robustness:
    """How far wrong rewards can move the weights of a solution; `str()` says it in words.

    delta     by value: no reward is wrong by more than this, in its own unit
    weights   λ by feature
    worst     by feature: no error within `delta` moves that weight further, had it been known when solving, the
              bounds being kept; to first order in delta
    attained  by feature: the error that moves that weight so far up, shape (n, V), a row for each row of the pilot, a
              column for each of its values; minus it moves the weight as far down
    """

    delta: Mapping[str, float]
    weights: Mapping[str, float]
    worst: Mapping[str, float]
    attained: Mapping[str, Array] = field(repr=False)

    def __str__(self) -> str:
        told = ", ".join(f"{name} by {size:.4g}" for name, size in self.delta.items() if size)
        supposed = wrap(f"Suppose that no reward is wrong by more than this: {told}.", WIDTH)
        rows = [
            [
                name,
                number(weight, decimals(self.worst[name], level=weight)),
                number(self.worst[name], decimals(self.worst[name], level=weight)),
                f"{self.worst[name] / abs(weight):.0%}",
            ]
            for name, weight in self.weights.items()
            if weight
        ]
        return "\n".join(
            [
                *supposed,
                "",
                "With these weights kept, no true level is further than that from the promised one, whatever",
                "the errors are.",
                "",
                "Had the errors been known, the weights would be others: by no more than this, in the worst case",
                "and to first order. That is a figure for small errors, and no bound for large ones.",
                "",
                *table(["", "weight", "± worst", "of it"], rows, width=WIDTH),
            ]
        )


def robustness(pilot: Pilot, solution: Solution, delta: float | Mapping[str, float]) -> Robustness:
    """What rewards that are wrong by at most `delta` can do to a solution (paper, B.1; Theorem 6, put right).

    Two statements. With λ kept, every level under the true rewards lies within delta of the promised one: choosing
    has not changed, and an average moves no more than what is averaged. And were the palette solved with the true
    rewards, no weight would differ by more than `worst`, to first order: Σ over rows and values of delta · |dλ_i/dr|.
    Bounds are kept at the numbers they have, those that came from the pilot included.

    pilot     the one that was solved on, or the same rows again
    delta     a number for every value, or numbers by value, in the units of the rewards; a value that is not named
              is right

    Raises ValueError for another pilot, for a tail, whose share of answers jumps where a reward creeps, and unless the
    status is OPTIMAL and k is a number.

    >>> pilot = Pilot.from_arrays({"humor": [0.0, 1.0]}, prompt_id=[0, 0])
    >>> sure = robustness(pilot, Solution.from_weights(pilot, {"humor": np.log(3)}), 0.01)
    >>> round(sure.worst["humor"], 4), sure.attained["humor"].round(2).tolist()
    (0.0533, [[-0.01], [-0.01]])
    """
    resolved, names = solution.resolved, pilot.values
    if solution.status is not Status.OPTIMAL or solution.candidates == "limit":
        got = 'candidates="limit"' if solution.status is Status.OPTIMAL else solution.status.name
        raise ValueError(f"solution must be OPTIMAL, for a k that is a number, got {got}")
    if tails := [name for name, spec in zip(resolved.features, resolved.specs, strict=True) if spec.tail]:
        raise ValueError(
            f"solution must ask for no tail, which jumps where a reward creeps, got {tails[0]!r}; raise its threshold "
            "by delta and solve again to see"
        )
    sizes = _sizes(delta, [name for name in names if name in {spec.value for spec in resolved.specs}])
    groups, inside = _features(pilot, solution)
    # Features of one value, its own and those of cohorts, are wrong together.
    value_of = np.array([[spec.value == name for name in names] for spec in resolved.specs], float)
    most = np.array([sizes.get(name, 0.0) for name in names])
    slopes = reward_slopes(
        groups,
        solution.weights.array,
        joint=solution.mode == "joint",
        block=solution.candidates,
        seed=solution.seed,
    )
    back = np.argsort(pilot.order, kind="stable")
    worst: dict[str, float] = {}
    attained: dict[str, Array] = {}
    for name, slope in zip(resolved.features, slopes, strict=True):
        by_value = (slope * inside) @ value_of
        worst[name] = float((np.abs(by_value) @ most).sum())
        attained[name] = (np.sign(by_value) * most)[back]
    return Robustness(sizes, dict(solution.weights), worst, attained)


def _features(pilot: Pilot, solution: Solution) -> tuple[Groups, Array]:
    """The features of the pilot's rows by prompt, and which rows count for which, (n, m) of ones and zeros."""
    resolved, plain = solution.resolved, pilot.groups(solution.weighting)
    missing = [name for name in resolved.columns if name not in pilot.table.column_names]
    missing += [spec.value for spec in resolved.specs if spec.value not in pilot.values]
    if missing:
        raise ValueError(f"pilot must be the one that was solved on, got one without {missing[0]!r}")
    columns = {name: np.repeat(pilot.column(name), plain.sizes) for name in resolved.columns}
    table = resolved.features_of(plain.values, pilot.values, columns)
    groups = Groups(table, plain.starts, plain.weights)
    off = np.abs(groups.base - resolved.base) > 1e-6 * np.maximum(solution.spread, np.finfo(float).tiny)
    if pilot.prompts != solution.prompts or off.any():
        told = f"{pilot.prompts} prompts, not {solution.prompts}"
        if pilot.prompts == solution.prompts:
            i = int(off.argmax())
            told = f"a base level of {groups.base[i]:.6g}, not {resolved.base[i]:.6g}, for {resolved.features[i]}"
        raise ValueError(f"pilot must be the one that was solved on, got {told}")
    return groups, resolved.inside_of(columns, len(table)).astype(float)


def _sizes(delta: float | Mapping[str, float], values: list[str]) -> dict[str, float]:
    """By how much each value may be wrong."""
    given = dict(delta) if isinstance(delta, Mapping) else dict.fromkeys(values, delta)
    if unknown := [name for name in given if name not in values]:
        raise ValueError(f"delta must name values ({', '.join(values)}), got {unknown[0]!r}")
    for name, size in given.items():
        real = isinstance(size, int | float | np.number) and not isinstance(size, bool)
        if not real or not 0 <= size < np.inf:
            raise ValueError(f"delta must be a finite number, 0 or more, got {size!r} for {name}")
    if not any(given.values()):
        raise ValueError(f"delta must be above 0 for some value, got {delta!r}")
    return {name: float(given.get(name, 0.0)) for name in values}
