"""Any table or file -> one Arrow table that remembers where each of its rows came from."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from valuepalette.naming import in_one_line, short
from valuepalette.provenance import KEY

__all__ = [
    "FORMATS",
    "Source",
    "check_names",
    "first",
    "is_text",
    "plain",
    "read_source",
    "text_column",
    "type_of",
]

FORMATS = ("parquet", "jsonl", "json", "csv", "text")
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")

TEXTS = ("prompt", "response", "generated", "chosen", "rejected", "finish_reason")
"""Columns that hold text whatever their entries look like: a prompt `2020-01-01` is no date."""


@dataclass(frozen=True)
class Source:
    """A table as read.

    parts  name and number of rows of each file behind it, in order
    loose  its types were guessed from text (CSV, JSON), not declared
    each   rows of the table made from one row of the file
    """

    table: pa.Table
    parts: tuple[tuple[str, int], ...]
    loose: bool = False
    each: int = 1

    @property
    def name(self) -> str:
        return self.parts[0][0]

    def at(self, row: int, column: str) -> str:
        """`file: row, column`, the start of every complaint; rows count from 0 inside their file."""
        row = int(row) // self.each
        for name, rows in self.parts:
            if row < rows:
                return f"{name}: row {row} (from 0), column {column}"
            row -= rows
        raise IndexError(row)

    def over(self, table: pa.Table) -> Source:
        """The same rows, other columns."""
        return replace(self, table=table)


def read_source(source: object, format: str | None = None) -> Source:
    """A file, a folder of Parquet parts, or an Arrow-compatible table (pyarrow, pandas, polars, …).

    Raises FileNotFoundError where nothing is there, TypeError for what is no table, and ValueError, in one line that
    names file, row and column, for what cannot be read.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if isinstance(source, str | os.PathLike):
        found = _read_path(Path(source), format)
    else:
        table = _in_memory(source)
        found = Source(table, (("table", table.num_rows),))
    _check_names(found.table, found.name)
    if not found.table.num_rows:
        raise ValueError(f"{found.name}: holds no rows")
    return found


def first(mask: pa.ChunkedArray | pa.Array) -> int | None:
    """The first true entry."""
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def type_of(column: Any) -> str:
    """The type of a column or field as an error shows it: on one line, cut. Names within a struct may be anything."""
    text = " ".join(str(column.type).split())
    return text if len(text) <= 60 else text[:59] + "…"


def text_column(source: Source, name: str) -> pa.ChunkedArray:
    """A column as text, whatever Arrow type holds it; nulls stay."""
    column = source.table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pa.types.is_null(kind)):
        raise ValueError(f"{source.at(0, name)}: must be text, got {type_of(column)}")
    return column.cast(pa.large_string())


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _in_memory(source: Any) -> pa.Table:
    pandas = type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns")
    try:
        if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
            table = pa.table(source)
        elif pandas:
            table = pa.Table.from_pandas(source, preserve_index=False)
        else:
            raise TypeError(
                "source must be a path, a pyarrow table, a pandas or polars DataFrame, or an object with "
                f"__arrow_c_stream__, got {type(source).__name__}"
            )
    except pa.ArrowException as error:
        if pandas:
            for name in source.columns:
                _array([None if _is_nan(entry) else entry for entry in source[name]], "table", str(name))
        raise ValueError(f"table: {_first_line(error)}") from None
    _check_names(table, "table")
    # A pandas index without a name is a row number, not data.
    kept = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    metadata = {key: text for key, text in (table.schema.metadata or {}).items() if key != b"pandas"}
    owned = {name: _owned(table[name]) for name in kept}
    return pa.table(owned).replace_schema_metadata(metadata) if owned else table


def _is_nan(entry: object) -> bool:
    return isinstance(entry, float) and entry != entry


def _check_names(table: pa.Table, where: str) -> None:
    try:
        names = table.column_names
    except UnicodeDecodeError:
        raise ValueError(f"{where}: the name of a column is not UTF-8") from None
    check_names(names, where)


def check_names(names: Iterable[object], where: str) -> None:
    """Names of columns: each once, and fit to be shown."""
    names = list(names)
    for name in names:
        if not in_one_line(name):
            raise ValueError(f"{where}: the name of a column must be text of one line, got {short(name)}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{where}: column {repeated[0]} is there twice")


def _owned(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A copy of numbers: Arrow may look at a NumPy array that its owner goes on to change."""
    return column.take(pa.array(np.arange(len(column)))) if pa.types.is_primitive(column.type) else column


def _read_path(path: Path, format: str | None) -> Source:
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if format is None:
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes and suffixes[-1] in COMPRESSED:
            suffixes.pop()
        format = SUFFIXES.get(suffixes[-1]) if suffixes else None
        if format is None:
            raise ValueError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}, got {path.name!r}")
    try:
        if format == "parquet":
            table = _parquet(path)
        else:
            with pa.input_stream(str(path), compression="detect") as stream:
                data = stream.read()
            table = {"jsonl": _jsonl, "json": _json, "csv": _csv, "text": _text}[format](data, path.name)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name}: {_first_line(error)}") from None
    return Source(table, ((path.name, table.num_rows),), loose=format != "parquet")


def _read_folder(folder: Path) -> Source:
    """Every part, by name; a part must have the columns and the metadata of the first.

    Some parts may hold texts and others conversations, where prompts are of both kinds.
    """
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith((".", "_")))
    if not paths:
        raise ValueError(f"{folder}: holds no .parquet file")
    first, *others = parts = [_read_path(path, "parquet") for path in paths]
    names = first.table.column_names
    metadata = first.table.schema.metadata or {}
    for part in others:
        if difference := (set(names) ^ set(part.table.column_names)) - {"prompt", "messages"}:
            raise ValueError(f"{part.name}: differs from {first.name} in column {min(difference)}")
        if (part.table.schema.metadata or {}).get(KEY) != metadata.get(KEY):
            raise ValueError(f"{part.name}: its valuepalette metadata differs from that of {first.name}")
    try:
        tables = [part.table for part in parts]
        table = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata(metadata)
    except pa.ArrowException as error:
        raise ValueError(f"{folder}: the parts disagree: {_first_line(error)}") from None
    return Source(table, tuple((part.name, part.table.num_rows) for part in parts))


def _parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(path, partitioning=None)  # pyright: ignore[reportArgumentType]


def _jsonl(data: bytes, name: str) -> pa.Table:
    import pyarrow.json as arrow_json

    schema = pa.schema([(column, pa.string()) for column in TEXTS])
    try:
        table = arrow_json.read_json(
            pa.BufferReader(data),
            read_options=arrow_json.ReadOptions(block_size=_block(data)),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema),
        )
        table.validate(full=True)
        if "timestamp" in str(table.schema):
            raise pa.ArrowInvalid("Arrow takes text that looks like a time for one; JSON has none")
    except (pa.ArrowException, UnicodeDecodeError):
        # Line by line: slower, and it knows what is wrong with which line.
        return _from_records(_lines(data, name), name)
    absent = [column for column in TEXTS if table[column].null_count == table.num_rows]
    return table.drop_columns(absent)


def _lines(data: bytes, name: str) -> Iterable[object]:
    for number, line in enumerate(_decoded(data, name).split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{name}: line {number} is not JSON: {_first_line(error)}") from None


def _json(data: bytes, name: str) -> pa.Table:
    try:
        records = json.loads(_decoded(data, name), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON: {_first_line(error)}") from None
    if not isinstance(records, list):
        raise ValueError(f"{name}: must be a list of objects, got {type(records).__name__}; lines are .jsonl")
    return _from_records(records, name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice if in_one_line(twice) else short(twice)} is there twice")
    return record


def _from_records(records: Iterable[object], name: str) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{name}: row {number} (from 0) must be an object, got {short(record)}")
        rows.append(record)
    names = dict.fromkeys(key for row in rows for key in row)
    check_names(names, name)
    return pa.table({key: _array([row.get(key) for row in rows], name, key) for key in names})


def plain(entries: Iterable[Any]) -> list[Any]:
    """Entries with Python's numbers in place of NumPy's: a mix of those with a date ends Arrow, and Python with it."""
    return [
        entry.item() if isinstance(entry, np.generic) and entry.dtype.kind in "biuf" else entry
        for entry in entries
    ]


def _array(entries: Sequence[Any], name: str, column: str) -> pa.Array:
    try:
        return pa.array(plain(entries))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        kinds = [_kind(entry) for entry in entries]
        expected = Counter(filter(None, kinds)).most_common(1)[0][0] if any(kinds) else None
        for row, kind in enumerate(kinds):
            if kind and kind != expected:
                where = f"{name}: row {row} (from 0), column {column}"
                raise ValueError(
                    f"{where}: must be {expected} as in other rows, got {short(entries[row])}"
                ) from None
        raise ValueError(f"{name}: column {column}: {_first_line(error)}") from None


def _kind(entry: object) -> str | None:
    for types, kind in (
        ((bool, np.bool_), "true or false"),
        ((int, float, np.number), "a number"),
        (str, "text"),
        ((list, tuple), "a list"),
        (dict, "an object"),
    ):
        if isinstance(entry, types):
            return kind
    return None if entry is None else type(entry).__name__


def _csv(data: bytes, name: str) -> pa.Table:
    import pyarrow.csv as arrow_csv

    if not data.strip():
        raise ValueError(f"{name}: holds no rows")
    # One block: types are guessed from the first block, and one of whole numbers must not refuse a later 0.5.
    block = _block(data)

    def read(threads: bool) -> pa.Table:
        return arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(block_size=block, use_threads=threads),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(TEXTS, pa.string())),
        )

    try:
        return read(threads=True)
    except pa.ArrowException:
        # Alone, Arrow's reader knows which row it complains about.
        return read(threads=False)


def _text(data: bytes, name: str) -> pa.Table:
    lines = (line.strip("\r") for line in _decoded(data, name).split("\n"))
    return pa.table({"prompt": pa.array([line for line in lines if line.strip()], pa.string())})


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}: line {line} is not UTF-8") from None


def _block(data: bytes) -> int:
    return min(len(data) + 1, 2**31 - 1)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
