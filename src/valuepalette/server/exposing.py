"""What is known of the traffic, for Prometheus: whether targets are met, where the base is, what became of groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from valuepalette.judging import Verdict
from valuepalette.monitoring import Monitoring, Move
from valuepalette.server.recording import Recorder

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Exposed"]

_FATES = ("kept", "skipped", "dropped", "lost")
_VERDICTS = {Verdict.MET: 1.0, Verdict.UNDECIDED: 0.0, Verdict.MISSED: -1.0}
_MOVES = {Move.MOVED: 1.0, Move.UNDECIDED: 0.0, Move.STEADY: -1.0}


class Exposed:
    """A collector: computed whenever the page is asked for, of the requests since the gateway began.

    No label holds anything of a request but the name of a palette of the study.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        fates = CounterMetricFamily(
            "valuepalette_traffic_groups",
            "Groups by what became of them: kept on the disk, skipped by the sampling rate, dropped where the queue "
            "was full, lost where writing failed.",
            labels=["fate"],
        )
        for fate in _FATES:
            fates.add_metric([fate], self._recorder.fates[fate])
        yield fates
        if (parts := self._recorder.parts) is not None:
            yield GaugeMetricFamily("valuepalette_traffic_bytes", "Size of all parts.", value=parts.size)
        if (found := self._recorder.report()) is not None:
            yield from _targets(found, GaugeMetricFamily)
            yield from _shifts(found, GaugeMetricFamily)

    def describe(self) -> list[Metric]:
        """Nothing, so that nothing is computed where the collector is registered."""
        return []


def _targets(found: Monitoring, family: Any) -> Iterator[Metric]:
    labels = ["palette", "candidates", "value"]
    requests = family("valuepalette_watched_requests", "Requests by palette.", labels=labels[:2])
    named = {
        "level": family("valuepalette_level", "Expected value of served answers.", labels=labels),
        "level_half": family(
            "valuepalette_level_half", "Half of the width of its confidence sequence.", labels=labels
        ),
        "gain": family("valuepalette_gain", "Level less that of the base model.", labels=labels),
        "gain_half": family(
            "valuepalette_gain_half", "Half of the width of its confidence sequence.", labels=labels
        ),
        "lower": family("valuepalette_asked_lower", "What the level is to be at least.", labels=labels),
        "upper": family("valuepalette_asked_upper", "What the level is to be at most.", labels=labels),
    }
    verdicts = family(
        "valuepalette_attained", "1 where the target is met, -1 where missed, 0 undecided.", labels=labels
    )
    for each in found.served:
        about = [each.palette, str(each.candidates)]
        requests.add_metric(about, each.requests)
        for target in each.targets:
            for name, metric in named.items():
                if math.isfinite(number := getattr(target, name)):
                    metric.add_metric([*about, target.name], number)
            if target.verdict is not None:
                verdicts.add_metric([*about, target.name], _VERDICTS[target.verdict])
    yield from (requests, *named.values(), verdicts)


def _shifts(found: Monitoring, family: Any) -> Iterator[Metric]:
    shift = family(
        "valuepalette_shift", "Base mean less the pilot's, in within-prompt deviations.", labels=["value"]
    )
    half = family("valuepalette_shift_half", "Half of the width of its interval.", labels=["value"])
    moved = family(
        "valuepalette_moved", "1 where the base moved, -1 where steady, 0 undecided.", labels=["value"]
    )
    for each in found.drift:
        if math.isfinite(each.shift):
            shift.add_metric([each.name], each.shift)
        if math.isfinite(each.half):
            half.add_metric([each.name], each.half)
        moved.add_metric([each.name], _MOVES[each.verdict])
    yield from (shift, half, moved)
