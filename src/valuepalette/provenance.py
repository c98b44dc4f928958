"""Where a pilot's numbers come from: model, sampling settings, rewards; JSON in the Parquet schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

__all__ = ["KEY", "SCALES", "PilotMetadata"]

KEY = b"valuepalette"
"""The key under which a Parquet or Arrow schema carries the JSON."""

FORMAT = 1
SCALES = ("real", "probability", "log-probability")


@dataclass(frozen=True)
class PilotMetadata:
    """What a solution must share with the pilot it was solved on. Everything is JSON and read-only.

    model          the base model's fingerprint: id, revision or checksum, template, precision
    sampling       the settings candidates were drawn with
    system_prompt  the system turn put before every prompt, if any
    seed           the seed of the draw
    rewards        by value: definition, version, scale (`real`, `probability`, `log-probability`), reward
    extra          anything else worth keeping

    >>> PilotMetadata(model={"id": "opt-1.3b"}, rewards={"positive": {"scale": "probability"}}).scale("positive")
    'probability'
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None
    seed: int | None = None
    rewards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "sampling", "rewards", "extra"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} must be a mapping, got {type(given).__name__}")
            object.__setattr__(self, name, _frozen(given, name))
        for value, reward in self.rewards.items():
            if not isinstance(reward, Mapping):
                raise TypeError(f"rewards[{value!r}] must be a mapping, got {type(reward).__name__}")
            if reward.get("scale", "real") not in SCALES:
                raise ValueError(
                    f"the scale of {value} must be one of {', '.join(SCALES)}, got {reward['scale']!r}"
                )

    def scale(self, value: str) -> str:
        """What `"x1.2"` means for a value; `real` where nothing is recorded."""
        return self.rewards.get(value, {}).get("scale", "real")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> PilotMetadata:
        """The reverse of `to_dict`; keys it does not know are left alone."""
        return cls(**{name: entries[name] for name in cls.__dataclass_fields__ if name in entries})

    def to_schema(
        self, values: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> dict[bytes, bytes]:
        """The entry of a schema: this metadata and which columns are values and which belong to the prompt.

        Left out, the values are those of `rewards`, and a reader finds the prompt's columns itself.
        """
        told = {"values": values, "columns": columns}
        roles = {name: list(names) for name, names in told.items() if names is not None}
        entries = {"format": FORMAT, **roles, **self.to_dict()}
        return {KEY: json.dumps(entries, ensure_ascii=False, allow_nan=False).encode()}

    @classmethod
    def from_schema(cls, schema: Mapping[bytes, bytes] | None, where: str = "schema") -> PilotMetadata:
        """What a schema's metadata records; empty where it records nothing."""
        return cls.from_dict(decode(schema, where))

    def with_rewards(self, rewards: Mapping[str, Mapping[str, Any]]) -> PilotMetadata:
        """The same with other rewards."""
        return replace(self, rewards=rewards)

    def __reduce__(self) -> tuple[Any, ...]:
        return PilotMetadata.from_dict, (self.to_dict(),)


def decode(schema: Mapping[bytes, bytes] | None, where: str) -> dict[str, Any]:
    """The entries of a schema, checked; empty where it has none. `where` names the file in an error."""
    if KEY not in (schema or {}):
        return {}
    try:
        entries = json.loads((schema or {})[KEY])
    except ValueError as error:
        raise ValueError(f"{where}: the schema's valuepalette metadata is not JSON: {error}") from None
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        received = entries.get("format") if isinstance(entries, dict) else type(entries).__name__
        raise ValueError(
            f"{where}: metadata format must be {FORMAT}, got {received!r}; a newer version wrote it"
        )
    return entries


def _frozen(given: Any, name: str) -> Any:
    if isinstance(given, Mapping):
        return MappingProxyType({str(key): _frozen(item, f"{name}.{key}") for key, item in given.items()})
    if isinstance(given, list | tuple):
        return tuple(_frozen(item, name) for item in given)
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold what JSON can: got {given!r}") from None
    return given


def _plain(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {key: _plain(item) for key, item in given.items()}
    return [_plain(item) for item in given] if isinstance(given, tuple) else given
