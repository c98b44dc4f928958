"""How many prompts a pilot needs for an error that one can live with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valuepalette.figures import Figures
from valuepalette.solution import Solution
from valuepalette.tabulating import table

__all__ = ["SampleSize", "sample_size"]


@dataclass(frozen=True)
class SampleSize:
    """How many prompts have the wanted standard error; `str()` is a table.

    prompts     the number by feature, for those with a wanted error
    demanding   the feature that needs the most
    most        how many that is: with so many all are met
    wanted      the standard errors wanted, by feature
    now         the solution's prompts, and its standard errors of the same figures
    indicative  in joint mode
    """

    prompts: Mapping[str, int]
    demanding: str
    most: int
    wanted: Mapping[str, float]
    now: tuple[int, Figures]
    of: Literal["levels", "gains", "weights"]
    indicative: bool

    def __str__(self) -> str:
        have, figures = self.now
        errors = dict(zip(figures.names, figures.se, strict=True))
        rows = [
            [name, f"{errors[name]:.3g}", f"{self.wanted[name]:.3g}", f"{count:,}"]
            for name, count in self.prompts.items()
        ]
        lines = table(["", f"se of {self.of}", "wanted", "prompts"], rows)
        lines += ["", f"{self.most:,} prompts do for all ({self.demanding}); the pilot has {have:,}"]
        return "\n".join([*lines, *(["Joint mode: indicative"] if self.indicative else [])])


def sample_size(
    solution: Solution,
    *,
    se: float | Mapping[str, float],
    of: Literal["levels", "gains", "weights"] = "levels",
) -> SampleSize:
    """How many prompts, weighted as the pilot's are, have standard errors of at most `se`.

    se² falls as 1/N, so it is N·(se now / se)²: N for equal weights is Var_g(s_g) / se². For `evaluate` on M fresh
    prompts the two add, se² = Var_g(s_g)(1/N + 1/M).

    se  one number for every feature that the palette asks of, or one by feature, in the units of the figure
    of  whose errors: "levels", "gains" (paired with the base, so as a rule far fewer), "weights"

    Raises ValueError where a feature has no standard error.

    >>> from valuepalette.pilot import Pilot
    >>> from valuepalette.solving import solve
    >>> rng = np.random.default_rng(0)
    >>> pilot = Pilot.from_arrays({"humor": rng.normal(size=400)}, prompt_id=np.repeat(np.arange(100), 4))
    >>> solution = solve(pilot, {"humor": "+0.3"})
    >>> sample_size(solution, se=float(solution.levels.se[0]) / 2).most
    400
    """
    if of not in ("levels", "gains", "weights"):
        raise ValueError(f'of must be "levels", "gains" or "weights", got {of!r}')
    figures: Figures = getattr(solution, of)
    errors = dict(zip(figures.names, figures.se, strict=True))
    if isinstance(se, Mapping):
        wanted = dict(se)
    else:
        named = [name for name, text in solution.asked.items() if text != "free"]
        if of == "weights":
            named = [name for name in named if solution.weights[name] != 0]
        wanted = dict.fromkeys(named or figures.names, se)
    for name, error in wanted.items():
        if name not in errors:
            raise ValueError(f"se must name features among {', '.join(errors)}, got {name!r}")
        if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < math.inf:
            raise ValueError(f"se must be above 0 and finite, got {error!r} for {name}")
        if np.isnan(errors[name]):
            raise ValueError(f"se of {of} must be known to be scaled, got none for {name} from this solution")
    if not wanted:
        raise ValueError("se must name at least one feature, got none")

    def count(name: str) -> int:
        # The same error asked again is the same number, whatever the rounding.
        return max(2, math.ceil(solution.prompts * (errors[name] / wanted[name]) ** 2 - 1e-6))

    prompts = {name: count(name) for name in wanted}
    demanding = max(prompts, key=prompts.__getitem__)
    now = solution.prompts, figures
    return SampleSize(
        prompts, demanding, prompts[demanding], wanted, now, of, indicative=solution.mode == "joint"
    )
