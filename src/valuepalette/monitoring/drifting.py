"""Has the base distribution moved? Every group of candidates is k draws of it, whatever was asked."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from valuepalette.anytime import Interval, Running
from valuepalette.grouping import Array
from valuepalette.monitoring.reporting import Move, Shift
from valuepalette.monitoring.rows import Rows
from valuepalette.pilot import Pilot
from valuepalette.tilting import spread
from valuepalette.uncertainty import errors

__all__ = ["Drifting"]


class Drifting:
    """The mean of each value under the base model, as requests come, against the pilot.

    A request's candidates are averaged, so a request counts once. The pilot's mean is known to ± z standard errors over
    its prompts, which the central limit theorem gives; that of the traffic by a confidence sequence. The interval of
    their difference is as wide as both together. Of the chance 1 − confidence each value gets the same share, half of
    it for the pilot.

    A value has *moved* once the interval of the difference, of all requests or of the latest window, lies wholly beyond
    the tolerance, and is *steady* once it lies within; the window decides where it can. Prompts that are not like the
    pilot's move the mean just as another model does: which of the two it was, this cannot tell.
    """

    def __init__(
        self,
        pilot: Pilot,
        values: tuple[str, ...],
        *,
        confidence: float,
        tolerance: float,
        window: int,
        weighting: str = "prompts",
    ) -> None:
        at = [pilot.values.index(name) for name in values]
        groups = pilot.groups(weighting)
        within = spread(groups, joint=False)[at]
        overall = pilot.array[:, at].std(axis=0)
        # What does not vary within prompts, such as a number of the prompt's own, is measured by its spread over all.
        self.unit = np.where(within > 0, within, np.where(overall > 0, overall, 1.0))
        self.values, self.pilot = values, groups.base[at]
        self._tolerance = tolerance
        alpha = (1 - confidence) / len(values)
        self._known = NormalDist().inv_cdf(1 - alpha / 4) * errors(groups.means[:, at], groups.weights)
        bounded = np.array([pilot.scale(name) == "probability" for name in values])
        low, high = np.where(bounded, 0.0, -np.inf), np.where(bounded, 1.0, np.inf)
        self._means = Running(low, high, alpha=alpha / 2, window=window)

    @property
    def requests(self) -> int:
        return self._means.rows

    def add(self, rows: Rows) -> None:
        """What was served, in the order in which it was; `rows` has the values in any order."""
        at = [rows.names.index(name) for name in self.values]
        self._means.add(rows.by_request(rows.means(rows.values[:, at])))

    def shifts(self) -> tuple[Shift, ...]:
        """How each value stands."""
        whole, lately = self._means.whole, self._means.lately
        ours, theirs = self._apart(whole), self._apart(lately)
        found: list[Shift] = []
        for i, name in enumerate(self.values):
            verdict = self._verdict(*theirs, i)
            if verdict is Move.UNDECIDED:
                verdict = self._verdict(*ours, i)
            found.append(
                Shift(
                    name=name,
                    pilot=float(self.pilot[i]),
                    now=float(whole.mean[i]),
                    shift=float(ours[0][i]),
                    half=float(ours[1][i]),
                    lately=float(theirs[0][i]),
                    lately_half=float(theirs[1][i]),
                    verdict=verdict,
                )
            )
        return tuple(found)

    def _apart(self, interval: Interval) -> tuple[Array, Array]:
        """Differences and half-widths, in standard deviations within prompts."""
        return (interval.mean - self.pilot) / self.unit, (interval.half + self._known) / self.unit

    def _verdict(self, shift: Array, half: Array, i: int) -> Move:
        far = abs(float(shift[i]))
        if far - half[i] > self._tolerance:
            return Move.MOVED
        return Move.STEADY if far + half[i] <= self._tolerance else Move.UNDECIDED
