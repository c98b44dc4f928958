"""A value by a server of one's own: JSON out, JSON back.

The server is sent `{"prompts": […], "responses": […]}`, with `"options"` where there are any, and answers with
`{"scores": …}`, or `{"rewards": …}`: a number per response; a list of numbers per response, in the order of the
columns; or a table, a list of numbers for each column. A prompt is a text, or a list of messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.requesting import Limits, ServerError
from valuepalette.rewards import Column
from valuepalette.rewards.checking import RowError
from valuepalette.rewards.exchange import Reads, answer_of, reads_or_raise
from valuepalette.rewards.remote import Source, address, batches, key_from, number, plain_prompt, shown

__all__ = ["Endpoint"]

_RANGES = {
    "real": (-float("inf"), float("inf")),
    "probability": (0.0, 1.0),
    "log-probability": (-float("inf"), 0.0),
}


class Endpoint:
    """The numbers that a server at `url` gives prompts and responses, as JSON.

    `columns` are the names of what it measures, one column that bears the value's name by default. `"server"` asks
    the server, by a request without responses: it answers with `"columns"`, a list of names, or of objects with
    `name` and perhaps `definition`, `scale` and `range`, and with a `"version"`. `key` is the name of the
    environment variable whose content is sent as a bearer token. Numbers must be such that larger is better; one
    outside its column's range is refused. `version` should change whenever the numbers would.
    """

    def __init__(
        self,
        *,
        url: str,
        name: str = "endpoint",
        columns: Sequence[str] | str | None = None,
        definition: str | None = None,
        scale: str = "real",
        range: Sequence[float] | None = None,
        reads: str = "conversation",
        thinking: bool = False,
        version: str | None = None,
        options: Mapping[str, Any] | None = None,
        key: str | None = None,
        batch_size: int = 64,
        concurrency: int = 16,
        timeout: float = 120.0,
        tries: int = 6,
    ) -> None:
        server, self._path = address(url, "url")
        batches(0, batch_size)
        limits = Limits(concurrency=concurrency, timeout=timeout, tries=tries)
        self._source = Source(server, key=key_from(key), limits=limits)
        self.reads: Reads = reads_or_raise(reads)
        self.thinking, self.batch_size = thinking, batch_size
        self.options = dict(options or {})
        self._told: str | None = None
        if isinstance(columns, str):
            if columns != "server":
                raise ValueError(f'columns must be a list of names or "server"; got {columns!r}')
            if definition is not None or scale != "real" or range is not None or version is not None:
                raise ValueError(
                    'definition, scale, range and version are the server\'s where columns = "server"'
                )
            self.columns, self._told = self._asked(server)
        else:
            about = {"definition": definition, "scale": scale, "range": range}
            self.columns = _columns([{"name": each, **about} for each in columns or [name]], url)
        stands = f"version {self._told or version}" if self._told or version else "no version told"
        self.version = f"endpoint 1, {server}{self._path}, {stands}, thinking {thinking}"
        if self.options:
            self.version += f", options {sorted(self.options.items())}"

    def _asked(self, server: str) -> tuple[tuple[Column, ...], str | None]:
        """What the server says it measures, and its version."""
        try:
            (answer,) = self._source.post([(0, self._path, self._content([], []))])
        except RowError as error:
            raise ServerError(str(error)) from error
        declared, version = answer.get("columns"), answer.get("version")
        if not isinstance(declared, list) or not declared:
            raise ServerError(
                f"{server}{self._path} must answer a request without responses with its columns"
            )
        entries = [{"name": each} if isinstance(each, str) else each for each in declared]
        return _columns(entries, f"{server}{self._path}"), None if version is None else str(version)

    def _content(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> dict[str, Any]:
        content: dict[str, Any] = {
            "prompts": [plain_prompt(prompt) for prompt in prompts],
            "responses": [answer_of(response, thinking=self.thinking) for response in responses],
        }
        return {**content, "options": self.options} if self.options else content

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        numbers = np.empty((len(responses), len(self.columns)))
        parts = batches(len(responses), self.batch_size)
        requests = [
            (
                rows.start,
                self._path,
                self._content(prompts[rows.start : rows.stop], responses[rows.start : rows.stop]),
            )
            for rows in parts
        ]
        for rows, answer in zip(parts, self._source.post(requests), strict=True):
            numbers[rows.start : rows.stop] = self._numbers(answer, rows)
        return numbers

    def _numbers(self, answer: Mapping[str, Any], rows: range) -> NDArray[np.float64]:
        told = answer.get("version")
        if self._told is not None and told is not None and str(told) != self._told:
            raise RowError(f"the server's version was {self._told} and is {told} now", rows.start)
        scores = answer.get("scores", answer.get("rewards"))
        table = self._table(scores, rows)
        found = np.array(
            [[number(cell, row) for cell in cells] for row, cells in zip(rows, table, strict=True)]
        )
        for place, column in enumerate(self.columns):
            low, high = column.range
            outside = np.flatnonzero((found[:, place] < low) | (found[:, place] > high))
            if len(outside):
                worst = int(outside[0])
                raise RowError(
                    f"the server answered {found[worst, place]:g}, and {column.name!r} lies in [{low:g}, {high:g}]",
                    rows.start + worst,
                )
        return found

    def _table(self, scores: Any, rows: range) -> list[list[Any]]:
        """A list of cells per response, whichever of the shapes the server chose."""
        names = [column.name for column in self.columns]
        if isinstance(scores, dict):
            missing = [name for name in names if not isinstance(scores.get(name), list)]
            if missing:
                raise RowError(f"the server's scores lack a list for {missing[0]!r}", rows.start)
            lengths = {name: len(scores[name]) for name in names}
            wrong = next((name for name in names if lengths[name] != len(rows)), None)
            if wrong is not None:
                raise RowError(
                    f"the server gave {len(rows)} responses {lengths[wrong]} {wrong!r}", rows.start
                )
            return [[scores[name][place] for name in names] for place in range(len(rows))]
        if not isinstance(scores, list):
            raise RowError(
                f"the server must answer with scores or rewards, a list or a table; got {shown(scores)}",
                rows.start,
            )
        if len(scores) != len(rows):
            raise RowError(f"the server gave {len(rows)} responses {len(scores)} scores", rows.start)
        cells = [each if isinstance(each, list) else [each] for each in scores]
        for row, own in zip(rows, cells, strict=True):
            if len(own) != len(names):
                raise RowError(f"the server gave {len(own)} numbers for {', '.join(names)}", row)
        return cells

    def close(self) -> None:
        """Nothing to free: connections end with each call."""


def _columns(entries: Sequence[Any], where: str) -> tuple[Column, ...]:
    """Columns as a study or a server declares them. Raises ValueError that says what is wrong with one."""
    found: list[Column] = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or not entry["name"]:
            raise ValueError(f"columns must be names, or objects with a name; got {shown(entry)}")
        name, scale = entry["name"], entry.get("scale") or "real"
        if scale not in _RANGES:
            raise ValueError(f"scale must be one of {', '.join(map(repr, _RANGES))}; got {shown(scale)}")
        bounds = entry.get("range")
        if bounds is None:
            low, high = _RANGES[scale]
        else:
            low, high = _bounds(bounds)
        definition = str(entry.get("definition") or f"{name} by {where}")
        kind = cast(Literal["real", "probability", "log-probability"], scale)
        found.append(Column(name, definition, kind, (low, high)))
    if len({column.name for column in found}) != len(found):
        raise ValueError(f"columns must differ; got {', '.join(column.name for column in found)}")
    return tuple(found)


def _bounds(range: Any) -> tuple[float, float]:
    try:
        low, high = (float("nan") if isinstance(bound, bool) else float(bound) for bound in range)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not low <= high:
        raise ValueError(f"range must be two numbers, the smaller first; got {shown(range)}")
    return low, high
