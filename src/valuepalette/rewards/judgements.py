"""Judgements kept on disk by what was judged, so that none is paid for twice.

The file holds hashes and numbers, no text. Each judgement is a transaction of its own: a kill loses those under way
and no other, and several processes may share the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

__all__ = ["Judgements"]

_AT_ONCE = 500  # names in a query; SQLite may allow no more than 999


class Judgements:
    """Numbers by key in the file at `path`, which is made when first needed.

    Raises ValueError, naming the file, where it is no such file or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self, keys: Sequence[str]) -> dict[str, float]:
        """The numbers of those among `keys` that were kept."""
        if not self.path.exists():
            return {}
        found: dict[str, float] = {}
        try:
            with closing(self._open()) as file:
                for first in range(0, len(keys), _AT_ONCE):
                    some = keys[first : first + _AT_ONCE]
                    places = ", ".join("?" * len(some))
                    found.update(file.execute(f"SELECT key, score FROM judged WHERE key IN ({places})", some))
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error
        return found

    def keep(self, key: str, score: float) -> None:
        """Keeps a number; on the disk when this returns."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file, file:
                file.execute("INSERT OR REPLACE INTO judged VALUES (?, ?)", (key, score))
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error

    def _open(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, timeout=60)
        try:
            file.execute("CREATE TABLE IF NOT EXISTS judged (key TEXT PRIMARY KEY, score REAL NOT NULL)")
        except BaseException:
            file.close()
            raise
        return file

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(
            f"cache must be a file of judgements that can be read and written; {self.path}: {error}"
        )
