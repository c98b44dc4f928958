"""What is counted for Prometheus: a registry of the gateway's own, so that two in one process do not meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Meters"]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Meters:
    """Counters and their page. No label holds anything of a request but the name of a palette of the study."""

    def __init__(self, inside: Callable[[], int], drifted: Callable[[], bool]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = own = CollectorRegistry()
        self._requests = Counter(
            "valuepalette_requests", "Requests by palette and outcome.", ["palette", "outcome"], registry=own
        )
        self._seconds = Histogram(
            "valuepalette_seconds", "Seconds by part of the work.", ["part"], buckets=_BUCKETS, registry=own
        )
        self._candidates = Counter("valuepalette_candidates", "Candidates drawn.", registry=own)
        self._failures = Counter("valuepalette_scoring_failures", "Scorings that failed.", registry=own)
        Gauge("valuepalette_inside", "Requests under way or in line.", registry=own).set_function(inside)
        Gauge("valuepalette_canary_drifted", "1 where the rewards moved.", registry=own).set_function(
            lambda: float(drifted())
        )

    def served(self, palette: str, outcome: str) -> None:
        self._requests.labels(palette, outcome).inc()

    def took(self, part: str, seconds: float) -> None:
        self._seconds.labels(part).observe(seconds)

    def drew(self, count: int) -> None:
        self._candidates.inc(count)

    def failed(self) -> None:
        self._failures.inc()

    def add(self, collector: Any) -> None:
        """Shows more, from something with a `collect` of its own that is asked whenever the page is."""
        self._registry.register(collector)

    def remove(self, collector: Any) -> None:
        """Shows what `add` was given no more."""
        self._registry.unregister(collector)

    def page(self) -> bytes:
        """As Prometheus reads it."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
