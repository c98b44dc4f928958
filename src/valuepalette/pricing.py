"""The price list of a solution: what a little more of each value costs the others, and in KL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from valuepalette.features import Resolved
from valuepalette.grouping import Array
from valuepalette.sensitivity import lasting, prices, weight_response
from valuepalette.tabulating import WIDTH, cut, decimals, number, table

__all__ = ["Price", "Sensitivity", "price_list"]

USUAL = 0.1
"""The step where none is named, in within-prompt standard deviations."""


@dataclass(frozen=True)
class Price:
    """What a step in the level of one feature costs, the bounds that bind being held.

    step     the level asked for moves by this, in the unit of its level
    kl       nats, to second order; infinite where the held features determine this one
    levels   by how much each level moves, by name: `step` for the feature itself, 0 for those held
    weights  by how much each λ does, to first order
    until    the step up to which that holds: there a bound that was slack begins to bind, or a weight comes to zero
    """

    step: float
    kl: float
    levels: Mapping[str, float]
    weights: Mapping[str, float]
    until: float


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What moves around an optimum; `str()` is the price list as a table.

    prices     a Price for each feature that was given a step, by name
    response   dλ/dc, shape (m, m): row i is how λ_i moves as the level asked of each feature rises; zero where
               either has no weight
    features   the m names
    held       those with a weight, whose levels stay where their bounds are
    kl         of the solution, nats
    """

    prices: Mapping[str, Price]
    response: Array
    features: tuple[str, ...]
    held: tuple[str, ...]
    kl: float

    def __str__(self) -> str:
        moving = [name for name in self.features if any(price.levels[name] for price in self.prices.values())]
        places = {
            name: decimals(level=max(abs(price.levels[name]) for price in self.prices.values()))
            for name in moving
        }
        rows: list[list[str]] = []
        for name, price in self.prices.items():
            digits = decimals(level=price.step)
            if np.isinf(price.kl):
                rows.append([name, number(price.step, digits, "+"), "none", "", *[""] * len(moving)])
                continue
            until = "" if np.isinf(price.until) else number(price.until, decimals(level=price.until), "+")
            moved = [
                ""
                if other == name
                else "held"
                if other in self.held
                else number(price.levels[other], places[other], "+")
                for other in moving
            ]
            kl = number(price.kl, decimals(level=price.kl), "+")
            rows.append([name, number(price.step, digits, "+"), kl, until, *moved])
        heads = ["", "step", "KL", "until", *(cut(name, 14) for name in moving)]
        size = [max(len(row[i]) for row in (heads, *rows)) + 2 for i in range(len(heads))]
        shown = len(heads)
        while shown > 4 and min(size[0], 18) + sum(size[1:shown]) > WIDTH:
            shown -= 1
        lines = [
            "What one more step of each value costs in KL, and what it does to the other levels.",
            "",
            *table(heads[:shown], [row[:shown] for row in rows], width=WIDTH),
        ]
        if left := moving[shown - 4 :]:
            lines.append(cut(f"no room for: {', '.join(left)}", WIDTH))
        lines += [
            "",
            f"KL is {self.kl:.3f} nats now. Levels to first order, KL to second, up to the step under `until`:",
        ]
        lines.append("there another bound begins to bind, or a weight comes to zero, and `solve` has to say.")
        if any(np.isinf(price.kl) for price in self.prices.values()):
            lines.append("none: what is held determines this value, and no step can be had.")
        return "\n".join(lines)


def price_list(
    resolved: Resolved,
    weights: Array,
    covariance: Array,
    spread: Array,
    levels: Array,
    kl: float,
    step: float | Mapping[str, float],
) -> Sensitivity:
    """The prices at λ `weights` (m,), where V is `covariance` and the levels are `levels`, as a user reads them.

    `step` is a number of within-prompt standard deviations in the direction in which each bound asks, upwards where
    nothing is asked; or steps in the units of the levels by the names of features, which alone are then priced.
    """
    names, factor = resolved.features, resolved.factor
    if isinstance(step, Mapping):
        chosen = _told(names, step)
    else:
        if isinstance(step, bool) or not isinstance(step, int | float | np.number) or not 0 < step < np.inf:
            raise ValueError(f"step must be a positive number or steps by name, got {step!r}")
        only_upper = np.isinf(resolved.lower) & np.isfinite(resolved.upper)
        side = np.where(weights != 0, np.sign(weights), np.where(only_upper, -1.0, 1.0))
        # Inside a cohort a feature spreads as its value does, P(C) of all.
        sizes = float(step) * side * spread * np.sqrt(factor)
        chosen = {name: size for name, size in zip(names, sizes.tolist(), strict=True) if size}
    steps = np.array([chosen.get(name, 0.0) for name in names])
    own = resolved.base + (levels - resolved.reported(resolved.base)) / factor
    cost = prices(weights, covariance, steps / factor)
    many = lasting(cost, weights, own, resolved.lower, resolved.upper)
    listed: dict[str, Price] = {}
    for name in chosen:
        i = names.index(name)
        listed[name] = Price(
            float(steps[i]),
            float(cost.kl[i]),
            dict(zip(names, (factor * cost.levels[i]).tolist(), strict=True)),
            dict(zip(names, cost.weights[i].tolist(), strict=True)),
            float(steps[i] * many[i]),
        )
    held = tuple(name for name, weight in zip(names, weights, strict=True) if weight)
    return Sensitivity(listed, weight_response(weights, covariance) / factor, names, held, kl)


def _told(names: tuple[str, ...], step: Mapping[str, float]) -> dict[str, float]:
    if unknown := [name for name in step if name not in names]:
        raise ValueError(f"step must name features ({', '.join(names)}), got {unknown[0]!r}")
    for name, size in step.items():
        if (
            isinstance(size, bool)
            or not isinstance(size, int | float | np.number)
            or not np.isfinite(size)
            or not size
        ):
            raise ValueError(f"step must be a finite number that is not 0, got {size!r} for {name}")
    if not step:
        raise ValueError("step must name at least one feature, got none")
    return {name: float(size) for name, size in step.items()}
