"""Palettes as requests write them: read, intersected with an operator's floors, and written again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from valuepalette.palette import Palette
from valuepalette.server.policies import Refusal

__all__ = ["read_palette", "within", "written"]

_MOST_ENTRIES = 64


def read_palette(entries: Mapping[str, Any]) -> Palette:
    """A request's palette: entries by value, with `cohorts` and `kl` as in a study."""
    cohorts = entries.get("cohorts")
    nested = isinstance(cohorts, Mapping)
    kl = entries.get("kl")
    budget = isinstance(kl, int | float) and not isinstance(kl, bool)
    own = ("cohorts",) * nested + ("kl",) * budget
    plain = {value: entry for value, entry in entries.items() if value not in own}
    tables = [plain, *(cohorts.values() if isinstance(cohorts, Mapping) else ())]
    count = sum(
        len(entry) if isinstance(entry, list) else 1
        for table in tables
        for entry in (table.values() if isinstance(table, Mapping) else (table,))
    )
    if count > _MOST_ENTRIES:
        raise Refusal(400, "palette", f"a palette has at most {_MOST_ENTRIES} entries, got {count}")
    try:
        return Palette(plain, cohorts=cohorts if nested else None, kl=kl if budget else None)
    except (ValueError, TypeError) as error:
        raise Refusal(400, "palette", str(error)) from None


def within(palette: Palette, floors: Palette) -> Palette:
    """Both at once: entries on one feature intersect."""
    named = {**palette.cohorts, **floors.cohorts}
    return Palette(
        _joined(palette.entries, floors.entries),
        cohorts={
            cohort: _joined(palette.cohorts.get(cohort, {}), floors.cohorts.get(cohort, {}))
            for cohort in named
        },
        kl=palette.kl,
    )


def _joined(own: Mapping[str, Any], floors: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in {**own, **floors}:
        listed = [
            text for table in (own, floors) for text in _listed(table.get(value, "free")) if text != "free"
        ]
        found[value] = list(dict.fromkeys(listed)) or "free"
    return found


def _listed(entry: Any) -> list[Any]:
    return list(entry) if isinstance(entry, list) else [entry]


def written(palette: Palette) -> dict[str, Any]:
    """As a request could bring it."""
    found: dict[str, Any] = {**palette.entries}
    if palette.cohorts:
        found["cohorts"] = palette.cohorts
    if palette.kl is not None:
        found["kl"] = palette.kl
    return found
