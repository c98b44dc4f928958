"""A pilot with all that the page asks about it, as plain dictionaries; the web is elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from valuepalette.adjusting import adjust
from valuepalette.dual import Status
from valuepalette.features import member
from valuepalette.grouping import Array
from valuepalette.palette import Cohort, Palette
from valuepalette.planner import plan
from valuepalette.posing import calibrated, reweighs_prompts
from valuepalette.solution import Infeasible
from valuepalette.solving import reach, solve
from valuepalette.studio import exporting, telling
from valuepalette.studio.asking import Adjusting, Asked, Reaching, Solving, read_palette
from valuepalette.studio.opening import Opened
from valuepalette.studio.reweighing import Bins, Draws, bins_of, chances, draw, share

__all__ = ["Atelier"]

_COHORTS = 24
"""A column with more entries than this is no column of cohorts."""
_EXCERPT = 140
_PARTITIONS = 64
"""Draws of k among one prompt's candidates, when its answers are shown."""


class Atelier:
    """Everything the page is told, of one pilot. Safe to ask from several threads."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.pilot = opened, opened.pilot
        told = dict(opened.solve)
        wanted = told.pop("candidates", None)
        sizes = self.pilot.sizes
        choice = float(self.groups(told).weights[sizes > 1].sum())
        self.joint = reweighs_prompts(told.get("mode"), choice, 2)
        self.told: Mapping[str, Any] = {**told, "mode": "joint" if self.joint else "prompt"}
        self.most = None if self.joint else int(sizes.min())
        self.candidates = wanted if isinstance(wanted, int) and not self.joint else self.most
        calibrated(sizes, self.candidates, self.joint)
        self._alone: dict[int | None, dict[str, list[float]]] = {}
        self._among: dict[tuple[str, int | None], dict[str, Any]] = {}
        self._draws: dict[int | None, Draws] = {}
        self._lock = threading.Lock()

    def groups(self, told: Mapping[str, Any] | None = None) -> Any:
        return self.pilot.groups((self.told if told is None else told).get("weighting", "prompts"))

    @property
    def choices(self) -> list[int]:
        """The k to choose from."""
        if self.most is None or self.candidates is None:
            return []
        powers = {2**i for i in range(1, self.most.bit_length()) if 2**i <= self.most}
        return sorted({*powers, self.most, self.candidates})

    @cached_property
    def bins(self) -> dict[str, Bins]:
        values = self.pilot.array[self.pilot.order]
        return {name: bins_of(values[:, i]) for i, name in enumerate(self.pilot.values)}

    @cached_property
    def _row_weights(self) -> Array:
        """Of each row, (n,): times its chance, and scaled to add up to one, its weight in the distribution.

        That of its prompt; in joint mode, where chances are told as if all rows were alike, that of its own.
        """
        groups = self.groups()
        return groups.row_weights if self.joint else np.repeat(groups.weights, groups.sizes)

    def about(self) -> dict[str, Any]:
        """What does not change: values and their measures, the choices of k, cohorts, the study's palettes."""
        pilot, opened = self.pilot, self.opened
        base, before = self.groups().base, self.groups().row_weights
        values = []
        for i, name in enumerate(pilot.values):
            told = pilot.metadata.rewards.get(name, {})
            values.append(
                {
                    "name": name,
                    "scale": pilot.scale(name),
                    "definition": str(told.get("definition", "")),
                    "base": telling.number(base[i]),
                    "check": name in opened.checks,
                    "edges": telling.listed(self.bins[name].edges),
                    "before": telling.listed(share(self.bins[name], before)),
                }
            )
        return {
            "name": opened.name,
            "rows": pilot.rows,
            "prompts": pilot.prompts,
            "joint": self.joint,
            "candidates": self.candidates,
            "most": self.most,
            "choices": self.choices,
            "values": values,
            "alone": {"widest": self.alone(self.most), "here": self.alone(self.candidates)},
            "cohorts": self._cohorts(),
            "palettes": {name: telling.texts(palette) for name, palette in opened.palettes.items()},
            "answers": pilot.responses is not None,
        }

    def _cohorts(self) -> list[dict[str, Any]]:
        found = []
        for column in () if self.joint else self.pilot.columns:
            members = sorted({told for entry in self.pilot.column(column) if (told := member(entry))})
            cohorts = [name for entry in members if (name := f"{column}={entry}") and _names_itself(name)]
            if 2 <= len(members) <= _COHORTS:
                found += [{"name": name} for name in cohorts]
        return found

    def alone(self, k: int | None) -> dict[str, list[float]]:
        """How far each value goes when nothing else is asked: the least and the most of its level."""
        self._check(k)
        if k not in self._alone:
            told = {"mode": self.told["mode"], "weighting": self.told.get("weighting", "prompts")}
            ends = {value: reach(self.pilot, None, value, k, **told) for value in self.pilot.values}
            self._alone[k] = {value: [end.low, end.high] for value, end in ends.items()}
        return self._alone[k]

    def of_cohort(self, cohort: str, k: int | None) -> dict[str, Any]:
        """The base level and the ends of each value among a cohort's prompts."""
        self._check(k)
        if (cohort, k) not in self._among:
            palette = Palette({}, cohorts={cohort: dict.fromkeys(self.pilot.values, "free")})
            weighting = self.told.get("weighting", "prompts")
            names = {value: f"{value} @ {Cohort.parse(cohort)}" for value in self.pilot.values}
            ends = {v: reach(self.pilot, palette, name, k, weighting=weighting) for v, name in names.items()}
            self._among[cohort, k] = {
                value: {"base": end.base, "low": end.low, "high": end.high} for value, end in ends.items()
            }
        return self._among[cohort, k]

    def solve(self, asked: Solving) -> dict[str, Any]:
        """The verdict, every feature's figures, the distributions, and the chance of each answer to one prompt."""
        palette = read_palette(asked, self.pilot.values)
        k = self._check(asked.candidates)
        solution = solve(self.pilot, palette, k, seed=self.opened.seed, on_infeasible="return", **self.told)
        told = telling.solved(solution)
        if solution.status is Status.INFEASIBLE:
            return {**told, "after": None, "chances": None}
        features = solution.features_of(self.pilot)[0][self.pilot.order]
        chance = chances(solution, features, self._drawn(k))
        weights = chance * self._row_weights
        told["after"] = {name: telling.listed(share(bins, weights)) for name, bins in self.bins.items()}
        told["chances"] = None
        if asked.prompt is not None and asked.prompt < self.pilot.prompts:
            rows = self._rows(asked.prompt)
            ends = np.array([0, rows.stop - rows.start])
            own = chances(solution, features[rows], draw(ends, k, partitions=_PARTITIONS))
            told["chances"] = telling.listed(own)
        return told

    def _drawn(self, k: int | None) -> Draws:
        with self._lock:
            if k not in self._draws:
                starts = np.array([0, self.pilot.rows]) if self.joint else self.pilot.starts
                self._draws = {k: draw(starts, k)}
            return self._draws[k]

    def reach(self, asked: Reaching) -> dict[str, Any]:
        """How far one feature goes while the others hold; nothing where the others alone cannot be had."""
        palette, k = read_palette(asked, self.pilot.values), self._check(asked.candidates)
        told = {"mode": self.told["mode"], "weighting": self.told.get("weighting", "prompts")}
        try:
            found = reach(self.pilot, palette, asked.feature, k, gap=asked.gap, **told)
        except Infeasible:
            return {"feature": asked.feature, "low": None, "high": None}
        return {"feature": asked.feature, "low": found.low, "high": found.high}

    def adjust(self, asked: Adjusting) -> dict[str, Any]:
        """A palette that can be had in place of one that cannot."""
        palette, k = read_palette(asked, self.pilot.values), self._check(asked.candidates)
        told = {name: entry for name, entry in self.told.items() if name != "confidence"}
        found = adjust(self.pilot, palette, k, method=asked.method, seed=self.opened.seed, **told)
        return telling.adjusted(found)

    def plan(self, asked: Asked) -> dict[str, Any]:
        """What each k can reach of the palette, and what it costs."""
        if self.joint or (self.most or 0) < 2:
            raise ValueError("there is no k to choose in this pilot")
        palette = read_palette(asked, self.pilot.values)
        told = {name: entry for name, entry in self.told.items() if name != "mode"}
        return telling.planned(plan(self.pilot, palette, ks=self.choices, seed=self.opened.seed, **told))

    def export(self, asked: Asked) -> dict[str, str]:
        """The palette for a study, for Python, for the gateway and for TRL."""
        palette, k = read_palette(asked, self.pilot.values), self._check(asked.candidates)
        told = {
            n: e for n, e in self.told.items() if n != "mode" or "mode" in self.opened.solve or self.joint
        }
        return {
            "toml": exporting.as_toml(palette, k, told),
            "python": exporting.as_python(self.opened, palette, k, told),
            "curl": exporting.as_curl(self.opened, palette, k),
            "trl": exporting.as_trl(self.opened, palette, told),
        }

    @cached_property
    def _texts(self) -> list[str | list[dict[str, str]]]:
        if not {"prompt", "messages"} & set(self.pilot.table.column_names):
            return [f"prompt {told}" for told in self.pilot.column("prompt_id")]
        heads, texts = self.pilot.order[self.pilot.starts[:-1]], self.pilot.texts()
        return [texts[row] for row in heads]

    def prompts(self, find: str = "", most: int = 100) -> dict[str, Any]:
        """The prompts that hold a text, the first of them."""
        wanted = find.casefold().strip()
        plain = (
            (i, text if isinstance(text, str) else text[-1].get("content") or "")
            for i, text in enumerate(self._texts)
        )
        found = [(i, text) for i, text in plain if wanted in text.casefold()]
        listed = [{"number": i, "text": " ".join(text.split())[:_EXCERPT]} for i, text in found[:most]]
        return {"prompts": listed, "found": len(found)}

    def answers(self, number: int) -> dict[str, Any]:
        """A prompt's candidates and their values."""
        if not 0 <= number < self.pilot.prompts:
            raise ValueError(f"prompt must lie between 0 and {self.pilot.prompts - 1}, got {number}")
        rows = self.pilot.order[self._rows(number)]
        said = self.pilot.table.take(rows)
        texts = said["response"].to_pylist() if "response" in said.column_names else [""] * len(rows)
        text = self._texts[number]
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return {
            "number": number,
            "messages": [{"role": m["role"], "content": m.get("content") or ""} for m in messages],
            "answers": [
                {"text": answer, "values": telling.listed(numbers)}
                for answer, numbers in zip(texts, self.pilot.array[rows], strict=True)
            ],
        }

    def _rows(self, number: int) -> slice:
        return slice(int(self.pilot.starts[number]), int(self.pilot.starts[number + 1]))

    def _check(self, k: int | None) -> int | None:
        """k where the page names none: the study's; ValueError where it makes no sense."""
        k = self.candidates if k is None else k
        calibrated(self.pilot.sizes, k, self.joint)
        return k


def _names_itself(cohort: str) -> bool:
    try:
        return str(Cohort.parse(cohort)) == cohort
    except ValueError:
        return False
