"""Which solution serves a request: the palette that it names or brings, within the operator's floors, solved and kept.

Nothing here knows of the web. What cannot be served is a `Refusal` with the status that says why: 400 for what makes
no sense, 404 for a name that is none, 422 for a palette that cannot be had, with its proof.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from valuepalette.adjusting import adjust
from valuepalette.decoding import check_columns, mismatches
from valuepalette.dual import Status
from valuepalette.monitoring.renewing import place_of
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot
from valuepalette.server.composing import read_palette, within, written
from valuepalette.server.policies import Policies, Refusal
from valuepalette.solution import Solution
from valuepalette.solving import solve

__all__ = ["BASE", "CUSTOM", "Decider", "Decision", "Wanted"]

BASE = "base"
"""Of a request that names no palette, where the operator has no floors: the model as it is."""
CUSTOM = "custom"
"""Of a request that brings its palette."""

_STEPS = 14
"""Halvings of the way from the floors to what was asked: to 1/16,384 of it."""


@dataclass(frozen=True)
class Wanted:
    """What a request says of values.

    model       the served model's name, with a palette's after the last slash
    palette     a palette's name, or its entries (`cohorts` and `kl` among them); None where the model's name tells
    candidates  k; None for the gateway's own
    columns     of the prompt, for cohorts
    """

    model: str
    palette: str | Mapping[str, Any] | None = None
    candidates: int | Literal["limit"] | None = None
    columns: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a request is served by.

    label     the palette's name for people and metrics
    palette   what is served, floors included; None of the base model
    solution  of that palette; None of the base model
    asked     the palette that could not be had, where another is served for it
    """

    label: str
    palette: Palette | None
    solution: Solution | None
    asked: Palette | None = None


class Decider:
    """Decides on one pilot; safe to ask from several threads.

    name        the served model's name
    palettes    of the study, by name
    floors      what every palette is intersected with
    candidates  k of the decoder
    measured    the values that are scored here; a palette asks of no others
    solving     `weighting` and `seed` of `solve`
    keep        how many palettes stay solved
    solutions   of some of the palettes, found elsewhere, such as on traffic; they are served as they are

    Raises ValueError where the floors cannot be had, and where a solution is not of its palette or for another decoder.
    """

    def __init__(
        self,
        pilot: Pilot,
        palettes: Mapping[str, Palette],
        *,
        name: str,
        candidates: int,
        measured: Collection[str],
        floors: Palette | None = None,
        policies: Policies | None = None,
        weighting: str = "prompts",
        seed: int = 0,
        keep: int = 256,
        solutions: Mapping[str, Solution] | None = None,
    ) -> None:
        self.pilot, self.name, self.palettes = pilot, name, dict(palettes)
        self.floors = floors if floors is not None and any(floors.asks.values()) else None
        self.candidates, self.policies = candidates, policies or Policies()
        self._measured = frozenset(measured)
        self._solving = {"mode": "prompt", "weighting": weighting, "seed": seed}
        self._most = self.policies.most_candidates or candidates
        if self._most > int(pilot.sizes.min()):
            raise ValueError(
                f"candidates must be at most the pilot's, {int(pilot.sizes.min())}, got {self._most}"
            )
        self._kept: OrderedDict[tuple[Any, ...], Decision | Refusal] = OrderedDict()
        self._keep, self._lock = keep, threading.Lock()
        if self.floors is not None:
            self._check_values(self.floors)
            found = self._solve(self.floors, candidates)
            if found.certificate is not None:
                raise ValueError(f"floors must be a palette that can be had: {found.certificate}")
        self._applied = {
            (name, solution.candidates): self._apply(name, solution)
            for name, solution in (solutions or {}).items()
        }

    def known(self, wanted: Wanted) -> Decision | None:
        """What was decided before, at once; None where it takes solving. Raises Refusal as `decide` does."""
        label, palette, k = self._asked(wanted)
        if palette is None:
            return Decision(label, None, None)
        applied = self._applied.get((label, k))
        if applied is not None and applied.palette == palette:
            return self._for(applied, label, wanted)
        with self._lock:
            found = self._kept.get((palette, k))
            if found is None:
                return None
            self._kept.move_to_end((palette, k))
        return self._for(found, label, wanted)

    def decide(self, wanted: Wanted) -> Decision:
        """The decision, solved where it has not been; raises Refusal."""
        known = self.known(wanted)
        if known is not None:
            return known
        label, palette, k = self._asked(wanted)
        assert palette is not None
        found = self._settle(palette, k)
        with self._lock:
            self._kept[palette, k] = found
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return self._for(found, label, wanted)

    def _for(self, found: Decision | Refusal, label: str, wanted: Wanted) -> Decision:
        """What was settled, for this request: its name for the palette, and the columns that cohorts need."""
        if isinstance(found, Refusal):
            raise found
        assert found.solution is not None
        try:
            check_columns(found.solution, wanted.columns)
        except ValueError as error:
            raise Refusal(400, "columns", str(error)) from None
        return Decision(label, found.palette, found.solution, found.asked)

    def _asked(self, wanted: Wanted) -> tuple[str, Palette | None, int | Literal["limit"]]:
        """The palette within the floors, and k."""
        label, palette = self._named(wanted)
        k = self.candidates if wanted.candidates is None else wanted.candidates
        if k != "limit" and not 2 <= k <= self._most:
            raise Refusal(400, "candidates", f"candidates must lie between 2 and {self._most}, got {k}")
        for column in wanted.columns:
            if column not in self.pilot.columns:
                have = ", ".join(self.pilot.columns) or "none"
                raise Refusal(
                    400, "columns", f"columns must be among the pilot's, {have}, got {column!r:.80}"
                )
        if palette is not None:
            self._check_values(palette)
        if self.floors is not None:
            palette = self.floors if palette is None else within(palette, self.floors)
        return label, palette, k

    def _named(self, wanted: Wanted) -> tuple[str, Palette | None]:
        name = ""
        if wanted.model != self.name:
            before, _, name = wanted.model.rpartition("/")
            if before != self.name or name not in self.palettes:
                near = ", ".join([self.name, *(f"{self.name}/{palette}" for palette in self.palettes)])
                raise Refusal(
                    404, "model_not_found", f"model must be one of {near}, got {wanted.model!r:.200}"
                )
        if wanted.palette is None:
            return (name, self.palettes[name]) if name else (BASE, None)
        if name:
            raise Refusal(
                400, "palette", f"a request names one palette, got {name!r} in model and another beside it"
            )
        if isinstance(wanted.palette, str):
            if wanted.palette not in self.palettes:
                have = ", ".join(self.palettes) or "none"
                raise Refusal(404, "palette", f"palette must be one of {have}, got {wanted.palette!r:.80}")
            return wanted.palette, self.palettes[wanted.palette]
        if self.policies.palettes == "named":
            raise Refusal(400, "palette", "palettes of a request's own are not served here, only named ones")
        return CUSTOM, read_palette(wanted.palette)

    def _apply(self, name: str, solution: Solution) -> Decision:
        """A named palette by a solution found elsewhere, if it is for this decoder and asks the same levels."""
        where = f"[serve.solutions] {name}"
        if name not in self.palettes:
            raise ValueError(f"{where} must name one of {', '.join(self.palettes) or 'none'}")
        k = solution.candidates
        served = solution.status in (Status.OPTIMAL, Status.BOUNDARY)
        if not isinstance(k, int) or not 2 <= k <= self._most or not served:
            raise ValueError(
                f"{where} must be solved for k from 2 to {self._most}, got {solution.status.name}, {k!r}"
            )
        if found := mismatches(solution, self.pilot.metadata, k):
            raise ValueError(f"{where} must be for what is served, but {'; '.join(found)}")
        palette = self.palettes[name] if self.floors is None else within(self.palettes[name], self.floors)
        own = self._solve(palette, k)
        for i, spec in enumerate(solution.resolved.specs):
            if place_of(spec, own) is None and np.isfinite(_ends(solution)[i]).any():
                raise ValueError(
                    f"{where} must ask what the palette asks, which is nothing of {solution.features[i]}, got a bound"
                )
        for i, (spec, bounds) in enumerate(zip(own.resolved.specs, _ends(own), strict=True)):
            at = place_of(spec, solution)
            theirs = (-np.inf, np.inf) if at is None else _ends(solution)[at]
            if not np.allclose(theirs, bounds, rtol=1e-9, atol=1e-6 * own.spread[i]):
                raise ValueError(
                    f"{where} must ask what the palette asks on this pilot, {own.features[i]} from {bounds[0]:.6g} to "
                    f"{bounds[1]:.6g}, got {theirs[0]:.6g} to {theirs[1]:.6g}"
                )
        return Decision("", palette, _light(solution))

    def _check_values(self, palette: Palette) -> None:
        for value in palette.values:
            if value not in self._measured:
                have = ", ".join(sorted(self._measured))
                raise Refusal(
                    400, "palette", f"a palette may ask of {have}, which are scored here, got {value!r:.80}"
                )

    def _settle(self, palette: Palette, k: int | Literal["limit"]) -> Decision | Refusal:
        """The palette's solution; of one that cannot be had, the proof and what can be instead."""
        try:
            solution = self._solve(palette, k)
        except (ValueError, TypeError) as error:
            return Refusal(400, "palette", str(error))
        if solution.status in (Status.OPTIMAL, Status.BOUNDARY):
            return Decision("", palette, solution)
        if solution.certificate is None:
            return Refusal(503, "numerical", f"{solution.status.name}: {solution.status.value}")
        proof = str(solution.certificate)
        try:
            nearest = self._instead(palette, solution, k)
        except ValueError as error:  # bounds that cross: no palette is near to a contradiction
            return Refusal(422, "infeasible", proof, {"proof": proof, "nearest": None, "why": str(error)})
        if self.policies.infeasible == "adjust":
            return Decision("", nearest.palette, nearest.solution, palette)
        return Refusal(422, "infeasible", proof, {"proof": proof, "nearest": _told(nearest)})

    def _solve(self, palette: Palette, k: int | Literal["limit"]) -> Solution:
        found = solve(self.pilot, palette, k, on_infeasible="return", **self._solving)  # pyright: ignore[reportArgumentType]
        return _light(found)

    def _instead(self, palette: Palette, missed: Solution, k: int | Literal["limit"]) -> Decision:
        """The nearest palette that can be had; where that would go below a floor, the nearest on the way from there."""
        near = adjust(self.pilot, palette, k, method="nearest", **self._solving)  # pyright: ignore[reportArgumentType]
        if self.floors is None or self._meets_floors(near.solution, k):
            return Decision("", near.palette, _light(near.solution), palette)
        return self._from_floors(palette, missed, k)

    def _meets_floors(self, solution: Solution, k: int | Literal["limit"]) -> bool:
        assert self.floors is not None
        floors, bounds = (
            self._solve(self.floors, k),
            dict(zip(solution.features, _ends(solution), strict=True)),
        )
        for name, (lower, upper) in zip(floors.features, _ends(floors), strict=True):
            if np.isfinite(lower) or np.isfinite(upper):
                have = bounds[name]
                slack = 1e-9 * max(1.0, *(abs(end) for end in (lower, upper) if np.isfinite(end)))
                if have[0] < lower - slack or have[1] > upper + slack:
                    return False
        return True

    def _from_floors(self, palette: Palette, missed: Solution, k: int | Literal["limit"]) -> Decision:
        """The farthest that can be had on the straight way from the floors' own levels to what was asked.

        Bounds move from the levels that the floors alone have, which meet them, so every palette on the way does.
        """
        assert self.floors is not None
        floors = self._solve(self.floors, k)
        least = dict(zip(floors.features, _ends(floors), strict=True))
        most = set(palette.maximised)
        moving = {
            str(subject): () for subject, asks in palette.asks.items() if asks and str(subject) not in most
        }
        free = (-np.inf, np.inf)
        start = self._solve(palette.at({name: least.get(name, free) for name in moving}), k)
        level, asked = dict(start.levels), dict(zip(missed.features, _ends(missed), strict=True))

        def at(share: float) -> Decision:
            ends: dict[str, tuple[float, float]] = {}
            for name in moving:
                (low, high), here = asked[name], level[name]
                ends[name] = (
                    min(low, here) + share * max(low - here, 0.0) if np.isfinite(low) else low,
                    max(high, here) - share * max(here - high, 0.0) if np.isfinite(high) else high,
                )
            there = palette.at(ends)
            return Decision("", there, self._solve(there, k), palette)

        near, far = 0.0, 1.0
        best = at(0.0)
        for _ in range(_STEPS):
            middle = (near + far) / 2
            tried = at(middle)
            assert tried.solution is not None
            if tried.solution.status is Status.OPTIMAL:
                near, best = middle, tried
            else:
                far = middle
        if best.solution is None or best.solution.certificate is not None:
            raise ValueError("nothing between the floors and the palette can be had")
        return best


def _ends(solution: Solution) -> list[tuple[float, float]]:
    return list(zip(solution.lower.tolist(), solution.upper.tolist(), strict=True))


def _told(decision: Decision) -> dict[str, Any]:
    """A palette as a request could bring it, and the levels that it has."""
    palette, solution = decision.palette, decision.solution
    assert palette is not None
    assert solution is not None
    return {
        "palette": written(palette),
        "levels": {name: float(level) for name, level in solution.levels.items()},
    }


def _light(solution: Solution) -> Solution:
    """What serving needs of a solution, without what grows with the pilot and without its margin."""
    m = len(solution.features)
    none = np.zeros((0, m))
    resolved = replace(solution.resolved, influence_lower=none, influence_upper=none, inside=None)
    return replace(solution, resolved=resolved, margin_of=_unknown, seen_of=frozenset)


def _unknown() -> float:
    return float("nan")
