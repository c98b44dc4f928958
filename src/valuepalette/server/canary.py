"""Whether the rewards still say of the pilot's answers what they said when it was scored."""

from __future__ import annotations

import asyncio
from typing import Literal

import numpy as np

from valuepalette.pilot import Pilot
from valuepalette.server.scoring import Scorer, ScoringError
from valuepalette.tilting import spread

__all__ = ["Canary"]

_ROWS = 16
_AGAIN = 60.0
"""Seconds until the next look where the rewards did not answer."""


class Canary:
    """A fixed set of the pilot's (prompt, response) pairs, scored again now and then.

    tolerance  how far a number may move, in standard deviations of its value within prompts
    state      "unknown" until the rewards have answered once, then "passed" or "drifted"
    drifted    the values that moved too far, with the largest distance in those standard deviations

    Aligned answers are served in state "passed" alone; rewards that do not answer leave it as it was.
    """

    def __init__(
        self, pilot: Pilot, scorer: Scorer, *, every: float, tolerance: float, seed: int = 0
    ) -> None:
        names = set(pilot.table.column_names)
        if "response" not in names or not {"prompt", "messages"} & names:
            raise ValueError(
                "the pilot must hold its prompts and responses, of which the canary scores some again"
            )
        rows = np.random.default_rng(seed).choice(pilot.rows, min(_ROWS, pilot.rows), replace=False)
        texts, said = pilot.texts(), pilot.responses or []
        self._prompts, self._responses = [texts[row] for row in rows], [said[row] for row in rows]
        self._wanted, self._unit = {}, {}
        units = spread(pilot.groups(), joint=False)
        for name in scorer.columns:
            i = pilot.values.index(name)
            self._wanted[name] = pilot.array[rows, i]
            # A value without spread is compared to rounding.
            self._unit[name] = float(max(units[i], 1e-6 * max(1.0, np.abs(pilot.array[:, i]).max())))
        self._scorer, self._every, self._tolerance = scorer, every, tolerance
        self.state: Literal["unknown", "passed", "drifted"] = "unknown"
        self.drifted: dict[str, float] = {}

    async def look(self) -> None:
        """Scores the set once; raises ScoringError, and changes nothing, where the rewards do not answer."""
        found = await self._scorer.score(self._prompts, self._responses)
        moved = {
            name: float(np.abs(found[name] - wanted).max()) / self._unit[name]
            for name, wanted in self._wanted.items()
        }
        self.drifted = {name: far for name, far in moved.items() if not far <= self._tolerance}
        self.state = "drifted" if self.drifted else "passed"

    async def watch(self) -> None:
        """Looks again and again, for as long as the gateway runs."""
        while True:
            await asyncio.sleep(self._every if self.state != "unknown" else min(_AGAIN, self._every))
            try:
                await self.look()
            except ScoringError:
                continue
