"""Figures as JSON: a number that is not to be had is null, and so is one that is infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from valuepalette.adjusting import Adjusted
from valuepalette.dual import Status
from valuepalette.palette import Palette
from valuepalette.plans import Plan
from valuepalette.solution import Solution

__all__ = ["adjusted", "listed", "number", "planned", "solved", "texts"]

_SHARES = np.arange(101) / 100


def number(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def listed(numbers: Iterable[float], digits: int = 6) -> list[float | None]:
    """Rounded: a chart needs no more, and the page has less to read."""
    return [round(float(x), digits) if math.isfinite(x) else None for x in numbers]


def texts(palette: Palette) -> dict[str, Any]:
    """A palette as the page has it: several entries on one value parted by commas."""

    def joined(entries: Mapping[str, str | list[str]]) -> dict[str, str]:
        return {
            name: entry if isinstance(entry, str) else ", ".join(entry) for name, entry in entries.items()
        }

    return {
        "entries": joined(palette.entries),
        "cohorts": {cohort: joined(entries) for cohort, entries in palette.cohorts.items()},
        "kl": palette.kl,
    }


def solved(solution: Solution) -> dict[str, Any]:
    """The verdict and every feature's figures; no levels and weights of a palette that cannot be had."""
    had = solution.status is not Status.INFEASIBLE
    lower, upper, base = solution.lower, solution.upper, solution.base.array
    grid, specs = solution.resolved.quantiles, solution.resolved.specs
    features = []
    for i, (name, spec) in enumerate(zip(solution.features, specs, strict=True)):

        def rank(level: float, i: int = i) -> float | None:
            """The share of the base model's answers that lie below a level."""
            return number(np.interp(level, grid[i], _SHARES)) if math.isfinite(level) else None

        level = float(solution.levels.array[i]) if had else math.nan
        asked = lower[i] if math.isfinite(lower[i]) else upper[i]
        features.append(
            {
                "name": name,
                "value": spec.value,
                "tail": spec.tail is not None,
                "cohort": None if spec.cohort is None else "=".join(spec.cohort),
                "asked": solution.resolved.asked[i],
                "lower": number(lower[i]),
                "upper": number(upper[i]),
                "base": number(base[i]),
                "level": number(level),
                "se": number(solution.levels.se[i]) if had else None,
                "gain": number(solution.gains.array[i]) if had else None,
                "weight": number(solution.weights.array[i]) if had else None,
                "weight_se": number(solution.weights.se[i]) if had else None,
                "rank": {"base": rank(base[i]), "level": rank(level), "asked": rank(asked)},
            }
        )
    return {
        "status": solution.status.name,
        "verdict": solution.status.value,
        "proof": None if solution.certificate is None else str(solution.certificate),
        "candidates": solution.candidates,
        "mode": solution.mode,
        "kl": number(solution.kl) if had else None,
        "effective": number(solution.effective) if had else None,
        "passes": solution.passes,
        "features": features,
    }


def adjusted(found: Adjusted) -> dict[str, Any]:
    """A palette in place of one that could not be had, and what stood in the way."""
    return {
        **texts(found.palette),
        "method": found.method,
        "rho": number(found.rho),
        "in_the_way": {name: str(obstacle) for name, obstacle in found.blocked_by.items()},
    }


def planned(plan: Plan) -> dict[str, Any]:
    """A line for each k."""
    return {
        "smallest": plan.smallest,
        "choices": [
            {
                "candidates": k,
                "status": each.status.name,
                "kl": number(each.kl),
                "effective": number(each.effective),
                "tokens": number(each.tokens),
                "levels": listed(each.levels.array),
            }
            for k, each in plan.choices.items()
        ],
        "features": _names(plan),
        "no_limit": plan.no_limit,
    }


def _names(plan: Plan) -> Sequence[str]:
    return next(iter(plan.choices.values())).solution.features
