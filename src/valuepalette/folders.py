"""Folders that survive a kill: files are whole or absent, one process writes, settings are kept beside."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "MANIFEST",
    "alone",
    "begin",
    "differences",
    "digest",
    "plain",
    "read_json",
    "replace_file",
    "write_json",
]

MANIFEST = "manifest.json"
"""What a folder's numbers depend on."""


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Puts what `write` writes in the place of `path`: whole or not at all, even if the machine goes down.

    Two who do so at once do not meet; one of them is the last.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    write(beside)
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(beside, path)
    if os.name == "posix":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces `path` by `content`, indented, in the order given."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=_unboxed) + "\n"
    replace_file(path, lambda to: to.write_text(text, encoding="utf-8"))


def read_json(path: Path, format: int) -> dict[str, Any]:
    """What `write_json` wrote. Raises ValueError where it is no JSON object of this format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, and is not at line {error.lineno}: {error.msg}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != format:
        raise ValueError(f"{path} must be a JSON object of format {format}, got format {found!r}")
    return content


def begin(folder: Path, settings: Mapping[str, Any], format: int, **beside: Any) -> None:
    """Records the settings of a new folder in its manifest; in one that was begun, refuses others.

    Raises ValueError that names each setting that differs, as old -> new. What is kept `beside` is not compared.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        write_json(manifest, {"format": format, **settings, **beside})
        return
    recorded = read_json(manifest, format)
    found = list(differences({key: recorded.get(key) for key in settings}, plain(settings)))
    if found:
        named = "; ".join(found)
        raise ValueError(f"{folder} was begun with other settings ({named}): keep those or give a new folder")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One writer at a time; what a killed one left half written is removed.

    The system drops the lock of a process that dies. Windows has no such lock: there nobody is kept out.
    """
    with (folder / ".lock").open("w") as lock:
        _lock(lock, folder)
        for left in folder.glob(".*.tmp"):
            left.unlink()
        yield


def _lock(lock: TextIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being written by another process: wait for it, or stop it") from None


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Each leaf that differs, as `old -> new`.

    >>> list(differences({"seed": 0, "sampling": {"top_k": 50}}, {"seed": 0, "sampling": {"top_k": 40}}))
    ['sampling.top_k: 50 -> 40']
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name}: {json.dumps(old, ensure_ascii=False)} -> {json.dumps(new, ensure_ascii=False)}"


def plain(content: object) -> Any:
    """As JSON would give it back: tuples are lists, numpy's numbers are numbers."""
    return json.loads(json.dumps(content, default=_unboxed))


def digest(content: object) -> str:
    """The SHA-256 of the content's JSON."""
    return hashlib.sha256(json.dumps(content, default=_unboxed).encode()).hexdigest()


def _unboxed(content: Any) -> Any:
    if isinstance(content, Mapping):
        return dict(content)
    if hasattr(content, "tolist"):
        return content.tolist()
    raise TypeError(f"settings and columns must hold texts, numbers and lists, got {type(content).__name__}")
