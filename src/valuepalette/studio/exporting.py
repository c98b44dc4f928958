"""A palette in the words of everything that takes one: a study, Python, the gateway, a trainer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from valuepalette.palette import Palette
from valuepalette.solution import Solution
from valuepalette.solving import solve
from valuepalette.studio.opening import Opened

__all__ = ["as_curl", "as_python", "as_toml", "as_trl"]

Entries = Mapping[str, str | list[str]]


def as_toml(palette: Palette, k: int | None, told: Mapping[str, Any]) -> str:
    """The tables of a study."""
    lines = ["[palettes.studio]", *_lines(_asked(palette.entries, bool(palette.cohorts)))]
    if palette.kl is not None:
        lines.append(f"kl = {palette.kl!r}")
    for cohort, entries in palette.cohorts.items():
        lines += ["", f"[palettes.studio.cohorts.{_quoted(cohort)}]", *_lines(entries)]
    settings = {**told, **({} if k is None else {"candidates": k})}
    if settings:
        lines += ["", "[solve]", *(f"{name} = {_quoted(entry)}" for name, entry in settings.items())]
    return "\n".join(lines) + "\n"


def _lines(entries: Entries) -> list[str]:
    return [f"{_quoted(name)} = {_quoted(_number(entry))}" for name, entry in entries.items()]


def as_python(opened: Opened, palette: Palette, k: int | None, told: Mapping[str, Any]) -> str:
    """A program that prints the solution."""
    entries = {name: _number(entry) for name, entry in _asked(palette.entries, bool(palette.cohorts)).items()}
    more = f", cohorts={palette.cohorts!r}" if palette.cohorts else ""
    more += f", kl={palette.kl!r}" if palette.kl is not None else ""
    options = {**({} if k is None else {"candidates": k}), **told}
    options |= {"seed": opened.seed} if opened.seed else {}
    said = "".join(f", {name}={entry!r}" for name, entry in options.items())
    return (
        "import valuepalette as vp\n\n"
        f"pilot = {opened.code}\n"
        f"palette = vp.Palette({entries!r}{more})\n"
        f"solution = vp.solve(pilot, palette{said})\n"
        "print(solution)\n"
    )


def as_curl(opened: Opened, palette: Palette, k: int | None) -> str:
    """A request to the gateway, `valuepalette serve`, that brings the palette along."""
    entries: dict[str, Any] = dict(_asked(palette.entries, bool(palette.cohorts)))
    entries |= {"cohorts": palette.cohorts} if palette.cohorts else {}
    entries |= {"kl": palette.kl} if palette.kl is not None else {}
    body: dict[str, Any] = {
        "model": opened.model,
        "palette": entries,
        **({} if k is None else {"candidates": k}),
        "messages": [{"role": "user", "content": "What should I know before I start running?"}],
    }
    if palette.columns:
        body["columns"] = {
            column: next(c.split("=", 1)[1] for c in palette.cohorts if c.startswith(f"{column}="))
            for column in palette.columns
        }
    return (
        f"curl http://127.0.0.1:{opened.port}/v1/chat/completions \\\n"
        '  -H "Content-Type: application/json" -H "Authorization: Bearer $VALUEPALETTE_KEY" \\\n'
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}\n"
    )


def as_trl(opened: Opened, palette: Palette, told: Mapping[str, Any]) -> str:
    """What TRL is told, of the palette solved for k → ∞; or a comment that says why no trainer has it."""
    try:
        limit: Solution = solve(opened.pilot, palette, "limit", seed=opened.seed, **told)
        return str(limit.reward_weights(0.1)) + "\n"
    except ValueError as error:
        return "".join(f"# {line}\n" for line in ("No trainer's optimum has these levels:", str(error)))


def _asked(entries: Entries, elsewhere: bool) -> Entries:
    """Without what is free, unless there is nothing else."""
    kept = {name: entry for name, entry in entries.items() if entry != "free"}
    return kept if kept or elsewhere else dict(list(entries.items())[:1])


def _number(entry: str | list[str]) -> str | float | list[str]:
    try:
        return entry if isinstance(entry, list) else float(entry)
    except ValueError:
        return entry


def _quoted(entry: Any) -> str:
    """As TOML has it, which takes JSON's texts, numbers and lists."""
    return json.dumps(entry, ensure_ascii=False)
