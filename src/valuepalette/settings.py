"""What a study says: `study.toml`, one flat file, read and checked to the last key before anything runs."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from valuepalette.engines import Sampling
from valuepalette.palette import Palette
from valuepalette.requesting import Limits

__all__ = ["Settings", "read_settings"]

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Settings:
    """A study as it stands in its file; paths are relative to the file's folder.

    template        `own`, the model's chat template where it has one; `none`; or a Jinja template
    base_url        of the server that an `openai:` model is behind; `limits` what it is asked to bear
    prompts_format  `hh-rlhf`, or what the file is where its name does not tell
    held_out        the share of the prompts kept apart, or None where `held_out_path` names others
    values          a reward's line by name; `length` is always there
    checks          values that are measured and never optimised: the second opinions
    preferences     a file of preferences by value, which `compare` teaches to a model tuned by DPO
    solve           what `solve` is told: candidates, mode, weighting
    engine          who draws and scores: `local`, this process, or `ray`, so many `actors` on a cluster
    finetune        how a model is trained by reinforcement, in the words of `valuepalette.training.finetuning.finetune`
    distill         the same by distillation
    serve           what the file says of serving: policies, limits, `floors` as a palette (docs/serving.md)
    monitor         what a gateway keeps of its traffic, and how that is looked at (docs/monitoring.md)
    """

    path: Path
    model: str
    template: str
    dtype: str | None
    device: str | None
    base_url: str | None
    limits: Limits
    sampling: Sampling
    prompts_path: Path
    prompts_format: str | None
    held_out: float | None
    held_out_path: Path | None
    columns: tuple[str, ...]
    candidates: int
    shard: int
    logprobs: bool
    values: Mapping[str, str | Mapping[str, object]]
    checks: tuple[str, ...]
    palettes: Mapping[str, Palette]
    preferences: Mapping[str, Path]
    solve: Mapping[str, Any]
    finetune: Mapping[str, Any]
    distill: Mapping[str, Any]
    serve: Mapping[str, Any]
    monitor: Mapping[str, Any]
    folder: Path
    seed: int
    engine: str
    actors: int | None


@dataclass(frozen=True)
class _Key:
    """One key of a table: what is allowed, in words and as a test, and what it is where absent."""

    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = None


def _text(default: Any = None) -> _Key:
    return _Key("a text", lambda given: isinstance(given, str) and bool(given), default)


def _whole(least: int, default: Any) -> _Key:
    return _Key(f"a whole number, {least} or more", lambda given: _is_int(given) and given >= least, default)


def _number(allowed: str, accepts: Callable[[float], bool], default: Any = None) -> _Key:
    return _Key(
        allowed,
        lambda given: isinstance(given, int | float) and not isinstance(given, bool) and accepts(given),
        default,
    )


def _seconds() -> _Key:
    return _number("a positive number of seconds", lambda given: 0 < given < float("inf"))


def _truth() -> _Key:
    return _Key("true or false", lambda given: isinstance(given, bool))


def _one_of(*choices: str) -> _Key:
    return _Key("one of " + ", ".join(choices), lambda given: given in choices)


def _is_int(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _is_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(entry, str) and entry for entry in given)


_TRAINING: Mapping[str, _Key] = {
    "batch": _whole(1, None),
    "learning_rate": _number("a positive number", lambda given: 0 < given < float("inf")),
    "lora": _whole(1, None),
    "whole": _truth(),
    "save_every": _whole(1, None),
}
_TABLES: Mapping[str, Mapping[str, _Key]] = {
    "model": {
        "id": _text(_REQUIRED),
        "template": _text("own"),
        "dtype": _text(),
        "device": _text(),
        "system_prompt": _text(),
        "max_new_tokens": _whole(1, 50),
        "temperature": _number("a positive number", lambda given: 0 < given < float("inf"), 1.0),
        "top_k": _whole(0, 50),
        "top_p": _number("a number in (0, 1]", lambda given: 0 < given <= 1, 1.0),
        "stop": _Key("a list of texts", _is_texts, ()),
        "base_url": _text(),
        "concurrency": _whole(1, Limits.concurrency),
        "requests_per_minute": _whole(1, None),
        "tokens_per_minute": _whole(1, None),
        "timeout": _number("a positive number", lambda given: 0 < given < float("inf"), Limits.timeout),
    },
    "prompts": {
        "path": _text(_REQUIRED),
        "format": _one_of("parquet", "jsonl", "json", "csv", "text", "hh-rlhf"),
        "held_out": _number("a number between 0 and 1", lambda given: 0 < given < 1),
        "held_out_path": _text(),
        "columns": _Key("a list of texts", _is_texts, ()),
    },
    "pilot": {
        "candidates": _whole(2, 16),
        "shard": _whole(1, 32),
        "logprobs": _Key("true or false", lambda given: isinstance(given, bool), False),
    },
    "solve": {
        "candidates": _Key(
            'a whole number, 2 or more, or "limit"',
            lambda given: given == "limit" or (_is_int(given) and given >= 2),
        ),
        "mode": _one_of("prompt", "joint"),
        "weighting": _text(),
    },
    "finetune": {
        "beta": _number("a positive number", lambda given: 0 < given < float("inf")),
        "steps": _whole(1, None),
        "prompts": _whole(1, None),
        "answers": _whole(2, None),
        **_TRAINING,
    },
    "distill": {"epochs": _whole(1, None), "rows": _whole(1, None), **_TRAINING},
    "run": {
        "folder": _text("run"),
        "seed": _whole(0, 0),
        "engine": _Key("one of local, ray", lambda given: given in ("local", "ray"), "local"),
        "actors": _whole(1, None),
    },
    "serve": {
        "name": _text(),
        "host": _text(),
        "port": _Key("a port, 1 to 65535", lambda given: _is_int(given) and 1 <= given <= 65535),
        "key": _Key(
            "a variable of the environment", lambda given: isinstance(given, str) and given.isidentifier()
        ),
        "candidates": _whole(2, None),
        "most_candidates": _whole(2, None),
        "most_answers": _whole(1, None),
        "infeasible": _one_of("refuse", "adjust"),
        "mismatch": _one_of("refuse", "unaligned"),
        "extras": _one_of("refuse", "unaligned"),
        "reward_failure": _one_of("refuse", "unaligned"),
        "palettes": _one_of("any", "named"),
        "show_candidates": _truth(),
        "concurrency": _whole(1, None),
        "queue": _whole(0, None),
        "deadline": _seconds(),
        "scoring": _seconds(),
        "keep_alive": _seconds(),
        "body_limit": _whole(1, None),
        "canary": _seconds(),
        "canary_tolerance": _number("a positive number", lambda given: 0 < given < float("inf")),
        "log_texts": _truth(),
        "solutions": _Key(
            "a table of palettes and files",
            lambda given: isinstance(given, dict) and _is_texts([*given.values()]),
        ),
        "floors": _Key("a table of values and what is asked of them", lambda given: isinstance(given, dict)),
    },
    "monitor": {
        "record": _truth(),
        "watch": _truth(),
        "sample": _number("a number in (0, 1]", lambda given: 0 < given <= 1),
        "texts": _truth(),
        "part_groups": _whole(1, None),
        "part_seconds": _seconds(),
        "megabytes": _number("a positive number", lambda given: 0 < given < float("inf")),
        "queue": _whole(1, None),
        "confidence": _number("a number between 0 and 1", lambda given: 0 < given < 1),
        "tolerance": _number("a number, 0 or more", lambda given: 0 <= given < float("inf")),
        "window": _whole(100, None),
    },
}
_NAMED = ("values", "palettes", "preferences")


def read_settings(path: str | os.PathLike[str]) -> Settings:
    """Reads and checks a study.

    Raises ValueError, one line that names the file, the table, the key, what is allowed and what was received;
    FileNotFoundError where there is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such study; a study is a TOML file, see docs/study.md")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    try:
        return _settings(path, given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _settings(path: Path, given: Mapping[str, Any]) -> Settings:
    for table, entries in given.items():
        if table not in _TABLES and table not in _NAMED:
            raise ValueError(_unknown("a study", f"table [{table}]", table, [*_TABLES, *_NAMED]))
        if not isinstance(entries, dict):
            raise ValueError(f"{table} must be a table, [{table}]; got {_shown(entries)}")
    tables = {name: _table(name, keys, given.get(name, {})) for name, keys in _TABLES.items()}
    model, prompts, pilot, run = (tables[name] for name in ("model", "prompts", "pilot", "run"))
    if prompts["held_out"] is not None and prompts["held_out_path"] is not None:
        raise ValueError("[prompts] takes held_out or held_out_path, got both")
    values, checks = _values(given.get("values", {}))
    beside = path.parent
    return Settings(
        path=path,
        model=model["id"],
        template=model["template"],
        dtype=model["dtype"],
        device=model["device"],
        base_url=model["base_url"],
        limits=Limits(
            concurrency=model["concurrency"],
            per_minute=model["requests_per_minute"],
            tokens=model["tokens_per_minute"],
            timeout=float(model["timeout"]),
        ),
        sampling=Sampling(
            max_new_tokens=model["max_new_tokens"],
            temperature=float(model["temperature"]),
            top_k=model["top_k"],
            top_p=float(model["top_p"]),
            system_prompt=model["system_prompt"],
            stop=tuple(model["stop"]),
        ),
        prompts_path=beside / prompts["path"],
        prompts_format=prompts["format"],
        held_out=prompts["held_out"],
        held_out_path=beside / prompts["held_out_path"] if prompts["held_out_path"] else None,
        columns=tuple(prompts["columns"]),
        candidates=pilot["candidates"],
        shard=pilot["shard"],
        logprobs=pilot["logprobs"],
        values=values,
        checks=checks,
        palettes=_palettes(given.get("palettes", {}), values, checks, prompts["columns"]),
        preferences=_preferences(given.get("preferences", {}), beside),
        solve=MappingProxyType({key: entry for key, entry in tables["solve"].items() if entry is not None}),
        finetune=_training("finetune", tables["finetune"]),
        distill=_training("distill", tables["distill"]),
        serve=_serve(tables["serve"], values, checks, prompts["columns"]),
        monitor=_told(tables["monitor"]),
        folder=beside / run["folder"],
        seed=run["seed"],
        engine=run["engine"],
        actors=run["actors"],
    )


def _table(table: str, keys: Mapping[str, _Key], given: Mapping[str, Any]) -> dict[str, Any]:
    for name, entry in given.items():
        if name not in keys:
            raise ValueError(_unknown(f"[{table}]", f"key {name}", name, keys))
        if not keys[name].accepts(entry):
            raise ValueError(f"[{table}] {name} must be {keys[name].allowed}, got {_shown(entry)}")
    found = {name: given.get(name, key.default) for name, key in keys.items()}
    missing = [name for name, entry in found.items() if entry is _REQUIRED]
    if missing:
        raise ValueError(f"[{table}] must have {missing[0]}, {keys[missing[0]].allowed}; it is missing")
    return found


def _values(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    lines: dict[str, Any] = {}
    checks: list[str] = []
    for name, line in given.items():
        if isinstance(line, str) and line:
            lines[name] = line
            continue
        if not isinstance(line, dict) or not isinstance(line.get("reward"), str):
            raise ValueError(
                f"[values] {name} must be a reward's name or {{ reward = … }}, got {_shown(line)}"
            )
        check = line.get("check", False)
        if not isinstance(check, bool):
            raise ValueError(f"[values] {name}: check must be true or false, got {_shown(check)}")
        settings = MappingProxyType({key: entry for key, entry in line.items() if key != "check"})
        lines[name] = settings if len(settings) > 1 else settings["reward"]
        if check:
            checks.append(name)
    lines.setdefault("length", "length")
    return MappingProxyType(lines), tuple(checks)


def _preferences(given: Mapping[str, Any], beside: Path) -> Mapping[str, Path]:
    for value, path in given.items():
        if not isinstance(path, str) or not path:
            raise ValueError(f"[preferences] {value} must be a file, got {_shown(path)}")
    return MappingProxyType({value: beside / path for value, path in given.items()})


def _training(name: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
    told = dict(_told(table))
    if told.pop("whole", False):
        if "lora" in told:
            raise ValueError(f"[{name}] takes lora or whole, got both")
        told["lora"] = None  # no adapter
    return MappingProxyType(told)


def _palettes(
    given: Mapping[str, Any], values: Mapping[str, Any], checks: tuple[str, ...], columns: Sequence[str]
) -> Mapping[str, Palette]:
    palettes: dict[str, Palette] = {}
    for name, entries in given.items():
        table = f"[palettes.{name}]"
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"{table} names files: letters, digits, _ - and . are allowed, got {_shown(name)}"
            )
        if not isinstance(entries, dict):
            raise ValueError(
                f"{table} must be a table of values and what is asked of them, got {_shown(entries)}"
            )
        palettes[name] = _palette(f"palettes.{name}", entries, values, checks, columns)
    return MappingProxyType(palettes)


def _palette(
    table: str,
    entries: Mapping[str, Any],
    values: Mapping[str, Any],
    checks: tuple[str, ...],
    columns: Sequence[str],
) -> Palette:
    # A table in the palette holds its cohorts; a value of that name would have a text or a list.
    cohorts = entries.get("cohorts")
    nested = isinstance(cohorts, dict)
    plain = {value: entry for value, entry in entries.items() if value != "cohorts" or not nested}
    # The budget of "max", unless a value has that name.
    kl = plain.pop("kl", None) if "kl" not in values else None
    try:
        palette = Palette(plain, cohorts=cohorts if nested else None, kl=kl)
    except (ValueError, TypeError) as error:
        raise ValueError(f"[{table}] {error}") from None
    for value in palette.values:
        if value in checks:
            raise ValueError(f"[{table}] {value} is a check: measured, never optimised")
    for column in palette.columns:
        if column not in columns:
            raise ValueError(
                f"[{table}.cohorts] {column} must be among [prompts] columns, got "
                f"{', '.join(columns) or 'none'}"
            )
    return palette


def _serve(
    table: Mapping[str, Any], values: Mapping[str, Any], checks: tuple[str, ...], columns: Sequence[str]
) -> Mapping[str, Any]:
    """What is said of serving; what is not, the gateway has defaults for."""
    told = dict(_told(table))
    if "floors" in told:
        told["floors"] = floors = _palette("serve.floors", told["floors"], values, checks, columns)
        if floors.maximised:
            raise ValueError(f'[serve.floors] {floors.maximised[0]} must have a bound, got "max"')
    return MappingProxyType(told)


def _told(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a table says; nothing of what it leaves open."""
    return MappingProxyType({name: entry for name, entry in table.items() if entry is not None})


def _unknown(where: str, what: str, name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
    return f"{where} has no {what}; {hint}"


def _shown(given: object) -> str:
    """As TOML would have it, cut to fit a line."""
    text = (
        f'"{given}"'
        if isinstance(given, str)
        else str(given).lower()
        if isinstance(given, bool)
        else str(given)
    )
    return text if len(text) <= 60 else text[:59] + "…"
