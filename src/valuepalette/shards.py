"""A pilot too large for memory: its rows in pieces of whole prompts, read in a fixed order, and again for each pass.

A pass is a task, done on every piece, and what it returns, in the order of the pieces. That is all that the mathematics
asks of a source, so pieces may come from Parquet on this machine or from workers elsewhere.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported; no checker sees them.
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuepalette.layout import RESERVED
from valuepalette.prompts import encoded
from valuepalette.provenance import KEY, PilotMetadata, decode
from valuepalette.reading import first, is_text, type_of

__all__ = [
    "MEMORY",
    "Head",
    "ParquetShards",
    "Piece",
    "Shards",
    "bytes_of",
    "cut",
    "head_of",
    "open_shards",
    "tables",
]

T = TypeVar("T")
U = TypeVar("U")
Task = Callable[["Piece"], T]

MEMORY = "2 GB"
"""The budget where none is named."""
LEAST = 16 << 20
"""Below this nothing is left for rows."""
MOST_ROWS = 125_000
"""Of a piece: more would gain no speed, and wake the threads of BLAS for sums that are over sooner."""
WORK = 256
"""Bytes of memory for each number of a piece: what is read, what is computed, and the next piece meanwhile."""


@dataclass(frozen=True, eq=False)
class Piece:
    """The rows of some whole prompts.

    place    shard, and number inside it: where the piece stands in the order of all
    values   (n, V) as stored, float32 or float64
    starts   (N + 1,)
    columns  columns of the prompt by name, an entry per prompt
    ids      (N,) what tells the prompts apart
    """

    place: tuple[int, int]
    values: NDArray[np.floating[Any]]
    starts: NDArray[np.intp]
    columns: Mapping[str, NDArray[Any]]
    ids: NDArray[Any]


@dataclass(frozen=True)
class Head:
    """What the columns of all shards are.

    values    names of the values
    key       the column that says which rows share a prompt
    metadata  of the pilot
    there     names of all columns
    single    the values are float32 throughout
    """

    values: tuple[str, ...]
    key: str
    metadata: PilotMetadata
    there: tuple[str, ...]
    single: bool

    def check(self, columns: Sequence[str], argument: str) -> None:
        """Raises ValueError where a column of the prompt is not there."""
        for name in columns:
            if name not in self.there:
                has = ", ".join(name for name in self.there if name not in self.values)
                raise ValueError(f"{argument} must name a column of the prompts ({has}), got {name!r}")


class Shards(Protocol):
    """Pieces of a pilot, wherever they are."""

    @property
    def head(self) -> Head: ...

    @property
    def rows(self) -> int:
        """n, in all."""
        ...

    @property
    def memory(self) -> int:
        """Bytes that a solve may take beside what the process has already."""
        ...

    def map(self, task: Task[T], columns: tuple[str, ...] = ()) -> Iterator[T]:
        """What `task` returns for each piece, in the order of the pieces; these hold `columns` of the prompt too."""
        ...


def bytes_of(memory: int | str) -> int:
    """A budget in bytes.

    >>> bytes_of("2 GB"), bytes_of("64MiB")
    (2000000000, 67108864)
    """
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(memory))
    size = float(match[1]) * units.get(match[2].upper(), np.nan) if match else np.nan
    if isinstance(memory, bool) or not size >= LEAST:
        raise ValueError(
            f'memory must be a number of bytes or such as "2 GB", 16 MiB at least, got {memory!r}'
        )
    return int(size)


def open_shards(
    source: str | PathLike[str],
    *,
    values: Sequence[str] | None = None,
    memory: int | str = MEMORY,
) -> ParquetShards:
    """A Parquet file, or a folder of them, for `solve` to read again in each pass within a budget of memory.

    source  a pilot's files; the rows of a prompt stand together, in one file, told by `prompt_id` (else by `prompt`)
    values  which columns are values; else those the metadata names; else every other column of floats
    memory  how much a solve may take beside what the process has already, in bytes or as a text

    Raises ValueError in one line where files differ or a column is not there.
    """
    path, budget = Path(source), bytes_of(memory)
    if path.is_dir():
        files = sorted(p for p in path.glob("*.parquet") if not p.name.startswith((".", "_")))
        if not files:
            raise ValueError(f"{path}: holds no .parquet file")
    elif path.is_file():
        files = [path]
    else:
        raise FileNotFoundError(f"{path}: no such file or folder")
    schemas, rows = [], []
    for file in files:
        with _opened(file) as parquet:
            schemas.append((file.name, parquet.schema_arrow))
            rows.append(parquet.metadata.num_rows)
    if not sum(rows):
        raise ValueError(f"{path}: holds no rows")
    return ParquetShards(tuple(files), head_of(schemas, values), sum(rows), budget)


def head_of(schemas: Iterable[tuple[str, pa.Schema]], values: Sequence[str] | None) -> Head:
    """What all shards have in common, from their names and schemas; values as `open_shards` takes them."""
    schemas = list(schemas)
    name, schema = schemas[0]
    recorded = decode(schema.metadata, name)
    there, key = schema.names, next((key for key in ("prompt_id", "prompt") if key in schema.names), None)
    if key is None:
        raise ValueError(f"{name}: needs a column prompt_id or prompt, has {', '.join(there)}")
    told = (
        recorded.get("values", list(recorded.get("rewards", {})) or None) if values is None else list(values)
    )
    found = [n for n in there if n not in RESERVED and pa.types.is_floating(schema.field(n).type)]
    chosen = tuple(found if told is None else told)
    for value in chosen:
        if value not in there or value in RESERVED:
            raise ValueError(f"{name}: has no value {value}; there are {', '.join(found) or 'none'}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"values must name at least one column, each once, got {', '.join(chosen) or 'none'}"
        )
    single = True
    for other, own in schemas:
        if missing := [column for column in (key, *chosen) if column not in own.names]:
            raise ValueError(f"{other}: differs from {name} in column {missing[0]}")
        if (own.metadata or {}).get(KEY) != (schema.metadata or {}).get(KEY):
            raise ValueError(f"{other}: its valuepalette metadata differs from that of {name}")
        for value in chosen:
            if is_text(own.field(value).type):
                raise ValueError(
                    f"{other}: column {value} must hold numbers, got {type_of(own.field(value))}"
                )
            single &= pa.types.is_float32(own.field(value).type)
    return Head(chosen, key, PilotMetadata.from_dict(recorded), tuple(there), single)


@dataclass(frozen=True, eq=False)
class ParquetShards:
    """Parquet files, read in pieces within a budget. What fits into half of it is kept; else each pass reads anew.

    first  number of the first file among those of all workers
    read   yields a file as tables of so many rows: what else has rows and a name can stand in a file's place
    """

    files: tuple[Any, ...]
    head: Head
    rows: int
    memory: int
    first: int = 0
    read: Callable[[Any, Head, tuple[str, ...], int], Iterator[pa.Table]] = field(
        default_factory=lambda: tables, repr=False
    )
    _kept: dict[tuple[str, ...], list[Piece]] = field(default_factory=dict, repr=False)

    def map(self, task: Task[T], columns: tuple[str, ...] = ()) -> Iterator[T]:
        if columns in self._kept:
            yield from map(task, self._kept[columns])
            return
        size = self.rows * (len(self.head.values) * (4 if self.head.single else 8) + 16)
        keep, kept = size <= self.memory // 2, list[Piece]()
        most = rows_of(self.memory, len(self.head.values))
        for piece in _ahead(self._read(columns, most)):
            if keep:
                kept.append(piece)
            yield task(piece)
        if keep:
            self._kept.clear()
            self._kept[columns] = kept

    def _read(self, columns: tuple[str, ...], most: int) -> Iterator[Piece]:
        for number, file in enumerate(self.files, self.first):
            yield from cut(number, file.name, self.read(file, self.head, columns, most), self.head, columns)


def rows_of(memory: int, values: int) -> int:
    """How many rows of so many values make a piece."""
    return max(1, min(MOST_ROWS, memory // (WORK * max(4, values))))


def tables(file: Path, head: Head, columns: tuple[str, ...], rows: int) -> Iterator[pa.Table]:
    """A Parquet file, so many rows at a time, page by page: no row group is ever held whole."""
    wanted = list(dict.fromkeys((head.key, *columns, *head.values)))
    with _opened(file) as parquet:
        for batch in parquet.iter_batches(rows, columns=wanted):
            yield pa.Table.from_batches([batch])


def _opened(file: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file.name}: {str(error).splitlines()[0]}") from None


def cut(
    shard: int, name: str, parts: Iterable[pa.Table], head: Head, columns: tuple[str, ...]
) -> Iterator[Piece]:
    """The pieces of a shard: parts of its table, each moved up to where a prompt ends."""
    held, number, row = list[pa.Table](), 0, 0
    for part in parts:
        held.append(part)
        table = pa.concat_tables(held)
        # The last prompt may go on in the next part.
        last = int(_starts(_plain(table[head.key]))[-1])
        if last:
            yield _piece((shard, number), name, row, table.slice(0, last), head, columns)
            held, number, row = [table.slice(last)], number + 1, row + last
    if held and (table := pa.concat_tables(held)).num_rows:
        yield _piece((shard, number), name, row, table, head, columns)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _starts(column: pa.ChunkedArray) -> NDArray[np.intp]:
    """Where the entries of a column change, 0 first."""
    plain = pa.types.is_integer(column.type) and not column.null_count
    entries = column.to_numpy() if plain else encoded(column)
    return np.concatenate([[0], np.flatnonzero(entries[1:] != entries[:-1]) + 1]).astype(np.intp)


def _piece(
    place: tuple[int, int], name: str, row: int, table: pa.Table, head: Head, columns: tuple[str, ...]
) -> Piece:
    """Checked: nothing missing, numbers finite, columns of the prompt the same in all of its rows."""

    def refuse(column: str, at: int, what: str) -> ValueError:
        return ValueError(f"{name}: row {row + at} (from 0), column {column}: {what}")

    for column in (head.key, *head.values):
        if table[column].null_count:
            raise refuse(column, first(pc.is_null(table[column])) or 0, "is missing")
    key = _plain(table[head.key])
    starts = _starts(key)
    ids = key.take(pa.array(starts)).to_numpy()
    values = np.empty((len(head.values), table.num_rows), np.float32 if head.single else np.float64)
    for out, value in zip(values, head.values, strict=True):
        out[:] = table[value].to_numpy()
        if not np.isfinite(out).all():
            at = int(np.argmin(np.isfinite(out)))
            raise refuse(value, at, f"must be finite, got {out[at]}")
    ends = np.append(starts, table.num_rows)
    entries: dict[str, NDArray[Any]] = {}
    for column in columns:
        entries[column] = _plain(table[column]).take(pa.array(starts)).to_numpy()
        changes = _starts(_plain(table[column]))
        if len(inside := np.setdiff1d(changes, starts)) and column != head.key:
            raise refuse(column, int(inside[0]), "differs inside a prompt")
    return Piece(place, values.T, ends, entries, ids)


def _ahead(items: Iterator[U]) -> Iterator[U]:
    """The same items, each fetched while the one before is at work."""
    end: Any = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
