"""Is what a palette asks still had? Level, gain and drawn answers of one solution, request by request."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from valuepalette.anytime import Interval, Running
from valuepalette.features import Feature
from valuepalette.judging import Verdict
from valuepalette.monitoring.reporting import Target
from valuepalette.monitoring.rows import Rows
from valuepalette.palette import parse
from valuepalette.quantities import Level
from valuepalette.solution import Solution

__all__ = ["Attaining", "ends"]


class Attaining:
    """The targets of one solution, as its requests come.

    The level of a request is what is expected over the choice among its candidates, which scatters less than the answer
    that was drawn and has the same mean; a number is judged by it. What is asked relative to the base model is judged
    by the gain over the plain mean of the same candidates, against the bound less the pilot's base level, as `evaluate`
    does: which requests come moves both alike.

    A bound c is *met* once the interval ends no lower than c − tolerance, *missed* once all of it lies below that, and
    *undecided* in between; of all requests and of the latest window, the window where it decides. Unlike `evaluate`,
    which looks once, a look that never ends needs one line between met and missed, or a level between the two would be
    called both in turn.

    With probability `confidence` no target is ever called met or missed wrongly: what is left is split evenly over the
    targets.
    """

    def __init__(self, solution: Solution, *, confidence: float, tolerance: float, window: int) -> None:
        self.solution, self.requests = solution, 0
        resolved = solution.resolved
        self._lower, self._upper = solution.lower, solution.upper
        self._asked = np.isfinite(self._lower) | np.isfinite(self._upper)
        # Of each feature, what its lower and its upper bound is judged by.
        self._by_gain = [tuple(_is_relative(entry) for entry in pair) for pair in resolved.sources]
        self._allowed = tolerance * solution.spread * np.sqrt(resolved.factor)
        alpha = (1 - confidence) / max(sum(len(set(self._kinds(i))) for i in range(len(self._asked))), 1)
        low, high = np.array([ends(spec, solution) for spec in resolved.specs]).T
        self._levels = Running(low, high, alpha=alpha, window=window)
        self._drawn = Running(low, high, alpha=alpha, window=window)
        self._gains = Running(low - high, high - low, alpha=alpha, window=window)

    def _kinds(self, i: int) -> list[str]:
        each = zip((self._lower[i], self._upper[i]), self._by_gain[i], strict=True)
        return ["gain" if by_gain else "level" for bound, by_gain in each if np.isfinite(bound)]

    def add(self, rows: Rows) -> None:
        """What was served by this solution, in the order in which it was."""
        resolved = self.solution.resolved
        numbers = resolved.numbers_of(rows.values, rows.names)
        outside = ~self._inside(rows)
        levels, base = rows.expected(numbers), rows.means(numbers)
        for running, by_group in (
            (self._levels, levels),
            (self._gains, levels - base),
            (self._drawn, rows.chosen(numbers)),
        ):
            running.add(rows.by_request(np.where(outside, np.nan, by_group)))
        self.requests = self._levels.rows

    def _inside(self, rows: Rows) -> NDArray[np.bool_]:
        """Which groups count for which feature, (G, m)."""
        groups = len(rows.heads)
        none = np.zeros(groups, bool)
        return np.column_stack(
            [
                none
                if spec.cohort and spec.cohort[0] not in rows.columns
                else spec.inside(rows.columns, groups)
                for spec in self.solution.resolved.specs
            ]
        )

    def targets(self) -> tuple[Target, ...]:
        """How each stands, those that are asked first; what is free and was never measured is left out."""
        whole = {"level": self._levels.whole, "gain": self._gains.whole, "drawn": self._drawn.whole}
        lately = {"level": self._levels.lately, "gain": self._gains.lately}
        told = np.flatnonzero(self._asked | (whole["level"].count > 0))
        found = [self._target(int(i), whole, lately) for i in told]
        return tuple(sorted(found, key=lambda target: target.verdict is None))

    def _target(self, i: int, whole: dict[str, Interval], lately: dict[str, Interval]) -> Target:
        solution = self.solution
        name, base = solution.features[i], float(solution.base.array[i])
        numbers = {
            f"{kind}{part}": float(getattr(interval, "mean" if not part else "half")[i])
            for kind, interval in whole.items()
            for part in ("", "_half")
        }
        target = Target(
            name=name,
            asked=solution.resolved.asked[i],
            lower=float(self._lower[i]),
            upper=float(self._upper[i]),
            **numbers,
            base=base,
            lately=float(lately["level"].mean[i]),
            lately_half=float(lately["level"].half[i]),
            tolerance=math.nan,
            judged_by="",
            verdict=None,
            requests=int(whole["level"].count[i]),
            weight=float(solution.weights.array[i]),
        )
        judged: list[Target] = []
        for side, bound, by_gain in zip((1, -1), (target.lower, target.upper), self._by_gain[i], strict=True):
            if math.isinf(bound):
                continue
            kind = "gain" if by_gain else "level"
            line = (bound - base if by_gain else bound) * side - self._allowed[i]
            verdict = _verdict(lately[kind], i, side, line)
            if verdict is Verdict.UNDECIDED:
                verdict = _verdict(whole[kind], i, side, line)
            judged.append(
                replace(
                    target,
                    lately=float(lately[kind].mean[i]),
                    lately_half=float(lately[kind].half[i]),
                    tolerance=float(self._allowed[i]),
                    judged_by=kind,
                    verdict=verdict,
                )
            )
        worst = {Verdict.MISSED: 0, Verdict.UNDECIDED: 1, Verdict.MET: 2}
        return min(judged, key=lambda each: worst[each.verdict or Verdict.MET], default=target)


def _verdict(interval: Interval, i: int, side: int, line: float) -> Verdict:
    mean, half = float(side * interval.mean[i]), float(interval.half[i])
    if mean - half >= line:
        return Verdict.MET
    return Verdict.MISSED if mean + half < line else Verdict.UNDECIDED


def ends(spec: Feature, solution: Solution) -> tuple[float, float]:
    """The ends that what a level averages cannot leave; infinite where there are none."""
    scale = (solution.fingerprint.get("rewards") or {}).get(spec.value, {}).get("scale")
    return (0.0, 1.0) if spec.tail is not None or scale == "probability" else (-np.inf, np.inf)


def _is_relative(entry: str) -> bool:
    """Whether an entry speaks of what the base model does; all but numbers do."""
    return any(not isinstance(ask.quantity, Level) for ask in parse("value", entry or "free"))
