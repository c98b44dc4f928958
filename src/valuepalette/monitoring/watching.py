"""All of it together: a watch that is told of traffic as it comes, and the report of it at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuepalette.dual import Status
from valuepalette.monitoring.attaining import Attaining
from valuepalette.monitoring.betting import bets
from valuepalette.monitoring.drifting import Drifting
from valuepalette.monitoring.renewing import as_pilot, place_of, renew
from valuepalette.monitoring.reporting import Monitoring, Served
from valuepalette.monitoring.rows import Rows
from valuepalette.pilot import Pilot
from valuepalette.solution import Solution
from valuepalette.traffic import Group, Traffic

__all__ = ["CUSTOM", "Watch", "monitor"]

CUSTOM = "custom"
"""What a gateway calls palettes that requests bring: whether those are met is not looked at."""


class Watch:
    """Told of served groups, says at any time how things stand. Takes no more room with time.

    pilot       that the solutions were found on
    values      that are scored; the others of the pilot are not looked at
    confidence  of all verdicts of one palette, and of all on the base distribution
    tolerance   in within-prompt standard deviations, for bounds that are missed and for means that move
    window      requests after which a sequence begins anew, so that a change is seen soon
    weighting   of the pilot's prompts
    """

    def __init__(
        self,
        pilot: Pilot,
        values: Sequence[str],
        *,
        confidence: float = 0.95,
        tolerance: float = 0.1,
        window: int = 1000,
        weighting: str = "prompts",
    ) -> None:
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
        if not 0 <= tolerance < np.inf:
            raise ValueError(f"tolerance must be at least 0 and finite, got {tolerance}")
        if window < 100:
            raise ValueError(f"window must be 100 requests or more, got {window}")
        self.settings = {"confidence": confidence, "tolerance": tolerance, "window": window}
        self.values = tuple(values)
        self.drift = Drifting(
            pilot,
            self.values,
            confidence=confidence,
            tolerance=tolerance,
            window=window,
            weighting=weighting,
        )
        self.targets: dict[tuple[str, str], Attaining] = {}
        self.groups = self.others = self.unaligned = 0
        self.first = self.last = 0.0

    def add(self, groups: Sequence[Group], solutions: Mapping[str, Solution]) -> None:
        """Groups in the order in which they were served, those of a request together and in one call."""
        aligned = [group for group in groups if group.aligned]
        self.unaligned += len({group.request for group in groups if not group.aligned})
        if not aligned:
            return
        columns = list(dict.fromkeys(name for group in aligned for name in group.columns))
        self.drift.add(Rows.of_groups(aligned, self.values, columns))
        for key in dict.fromkeys((group.palette, group.solution) for group in aligned):
            own = [group for group in aligned if (group.palette, group.solution) == key]
            if (watched := self._watched(*key, solutions)) is None:
                self.others += len({group.request for group in own})
            else:
                watched.add(Rows.of_groups(own, self.values, columns))
        self._saw(len(aligned), aligned[0].time, aligned[-1].time)

    def add_pilot(self, traffic: Pilot, solutions: Mapping[str, Solution]) -> None:
        """The same of recorded traffic."""
        times = _times(traffic)
        aligned = np.asarray(traffic.column("aligned"), bool)
        requests = traffic.column("request").astype(str)
        self.unaligned += len(np.unique(requests[~aligned]))
        order = in_order(traffic)
        if not len(order):
            return
        self.drift.add(Rows.of_pilot(traffic, order))
        palettes, ids = traffic.column("palette")[order], traffic.column("solution")[order]
        for key in dict.fromkeys(zip(palettes.tolist(), ids.tolist(), strict=True)):
            own = order[(palettes == key[0]) & (ids == key[1])]
            if (watched := self._watched(*key, solutions)) is None:
                self.others += len(np.unique(requests[own]))
            else:
                watched.add(Rows.of_pilot(traffic, own))
        self._saw(len(order), float(times[order[0]]) / 1e6, float(times[order[-1]]) / 1e6)

    def _watched(self, palette: str, key: str, solutions: Mapping[str, Solution]) -> Attaining | None:
        """The targets of a palette's solution; None of palettes that requests bring, and of solutions not at hand."""
        if palette == CUSTOM or key not in solutions:
            return None
        if (palette, key) not in self.targets:
            self.targets[palette, key] = Attaining(solutions[key], **self.settings)
        return self.targets[palette, key]

    def _saw(self, groups: int, first: float, last: float) -> None:
        self.groups += groups
        self.first, self.last = self.first or first, last

    def report(self) -> Monitoring:
        """How things stand, without today's weights."""
        # Of several solutions of one palette, the latest first.
        served = [
            Served(palette, key, int(watched.solution.candidates or 0), watched.requests, watched.targets())  # pyright: ignore[reportArgumentType]
            for (palette, key), watched in reversed(self.targets.items())
        ]
        return Monitoring(
            served=tuple(sorted(served, key=lambda each: (each.palette, each.candidates))),
            drift=self.drift.shifts(),
            requests=self.drift.requests,
            groups=self.groups,
            others=self.others,
            unaligned=self.unaligned,
            first=_iso(self.first),
            last=_iso(self.last),
            **self.settings,
        )


def in_order(traffic: Pilot) -> NDArray[np.intp]:
    """The aligned groups by time; those of a request together, though another's came in between."""
    times = _times(traffic)
    _, codes = np.unique(traffic.column("request").astype(str), return_inverse=True)
    began = np.full(codes.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(began, codes, times)
    order = np.lexsort((times, codes, began[codes]))
    return order[np.asarray(traffic.column("aligned"), bool)[order]]


def _times(traffic: Pilot) -> NDArray[np.int64]:
    """When each group was served, in microseconds since 1970."""
    return np.asarray(traffic.table["time"].cast(pa.int64()))[traffic.order[traffic.starts[:-1]]]


def monitor(
    traffic: Traffic,
    pilot: Pilot,
    *,
    confidence: float = 0.95,
    tolerance: float = 0.1,
    window: int = 1000,
    weighting: str = "prompts",
    renewing: bool = True,
) -> Monitoring:
    """Looks at what a gateway kept: is every target still met, has the base moved, what would today's λ be.

    traffic     `Traffic.read` of the folder; pilot is the one that is served
    renewing    whether palettes are solved anew on the traffic's candidates

    The other arguments are those of `Watch`. Look as often as you like: with probability `confidence` no verdict of a
    palette is ever wrong, and likewise none on the base distribution (docs/monitoring.md says under what conditions).
    """
    served = traffic.pilot
    watch = Watch(
        pilot, served.values, confidence=confidence, tolerance=tolerance, window=window, weighting=weighting
    )
    watch.add_pilot(served, traffic.solutions)
    order = in_order(served)
    _, first = np.unique(served.column("request").astype(str)[order], return_index=True)
    found = replace(
        watch.report(), bets=bets(pilot, served, order[np.sort(first)], served.values, confidence)
    )
    if not renewing or not len(order):
        return found
    aligned = np.asarray(served.column("aligned"), bool)
    candidates = as_pilot(served.select(aligned[served.prompt_index]))
    return replace(
        found,
        served=tuple(_renewed(each, candidates, traffic.solutions[each.solution]) for each in found.served),
    )


def _renewed(served: Served, candidates: Pilot, solution: Solution) -> Served:
    """With today's weights, or why there are none."""
    try:
        today = renew(candidates, solution)
    except ValueError as error:
        return replace(served, why=str(error))
    if today.status is not Status.OPTIMAL:
        why = str(today.certificate) if today.certificate is not None else today.status.value
        return replace(served, today=today, why=why)
    weights: dict[str, tuple[float, float]] = {}
    for spec, name in zip(solution.resolved.specs, solution.features, strict=True):
        at = place_of(spec, today)
        if at is not None:
            weights[name] = (float(today.weights.array[at]), float(today.weights.se[at]))
    targets = [
        replace(target, today=weights[target.name][0], today_se=weights[target.name][1])
        if target.name in weights
        else target
        for target in served.targets
    ]
    return replace(served, targets=tuple(targets), today=today)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
