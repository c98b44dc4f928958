"""A table as it was read -> the one layout of a pilot, validated: who is who, in a fixed order, with fixed types."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported; no checker sees them.
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuepalette.naming import in_one_line, short
from valuepalette.prompts import encoded, prompt_codes, with_prompts
from valuepalette.provenance import PilotMetadata, decode
from valuepalette.reading import Source, first, is_text, text_column, type_of
from valuepalette.transcripts import without_echo, without_pairs

__all__ = ["RESERVED", "Layout", "lay_out"]

OPTIONAL = {
    "drawn": pa.bool_(),
    "tokens": pa.int64(),
    "finish_reason": pa.large_string(),
    "logprob": pa.float64(),
    "probability": pa.float64(),
}
"""Columns of a row that a pilot may have; all but `drawn` may have nulls."""

RESERVED = ("prompt_id", "candidate", "prompt", "messages", "response", *OPTIONAL)

LARGEST = 1e100
"""Values beyond this are refused: their squares would leave what float64 can hold."""

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


@dataclass(frozen=True)
class Layout:
    """A pilot's table and what its columns are. The schema carries the metadata."""

    table: pa.Table
    values: tuple[str, ...]
    columns: tuple[str, ...]
    metadata: PilotMetadata


def lay_out(
    source: Source,
    values: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    metadata: PilotMetadata | None = None,
) -> Layout:
    """Validate and arrange: reserved columns first, other columns, values last. Rows keep their order.

    values, columns, metadata   win over what the schema says
    Raises ValueError in one line that names file, row and column.
    """
    recorded = decode(source.table.schema.metadata, source.name)
    if recorded:
        recorded = {"values": list(recorded.get("rewards", {})), **recorded}
    if metadata is None:
        metadata = PilotMetadata.from_dict(recorded)
    read, source = source, with_prompts(without_echo(without_pairs(source)))
    values, columns = _roles(source, recorded, values, columns)
    if values is None:
        values = _floats(source, read, columns or ())
    if both := set(values) & set(columns or ()):
        raise ValueError(f"{source.name}: {min(both)} can be a value or a column of the prompt, not both")

    laid, groups = _reserved(source)
    others = {
        name: _plain(source.table[name])
        for name in source.table.column_names
        if name not in RESERVED and name not in values
    }
    if columns is None:
        columns = [name for name, column in others.items() if _belongs_to_prompt(column, groups)]
    else:
        for name in columns:
            _check_column(source, name, others[name], groups)
    laid |= others | {name: _value(source, name) for name in values}
    values, columns = tuple(values), tuple(columns)
    schema = {**(source.table.schema.metadata or {}), **metadata.to_schema(values, columns)}
    return Layout(pa.table(laid).replace_schema_metadata(schema), values, columns, metadata)


def _roles(
    source: Source,
    recorded: dict[str, Any],
    values: Sequence[str] | None,
    columns: Sequence[str] | None,
) -> tuple[list[str] | None, list[str] | None]:
    """What is said of the columns: by the caller, else by the schema, less what the caller says otherwise."""
    said = _named(source, "values", values), _named(source, "columns", columns)
    roles: list[list[str] | None] = []
    for mine, other, argument in zip(said, said[::-1], ("values", "columns"), strict=True):
        if mine is None and (names := _named(source, argument, recorded.get(argument))) is not None:
            mine = [name for name in names if name not in (other or ())]
        roles.append(mine)
    return roles[0], roles[1]


def _named(source: Source, argument: str, names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{argument} must be a list of column names, got {short(names)}")
    for name in (names := list(names)):
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be a list of column names, got {short(name)} among them")
        if name in RESERVED:
            raise ValueError(f"{argument}: {name} is reserved for a column of the pilot's own")
        if name not in source.table.column_names:
            there = [name for name in source.table.column_names if name not in RESERVED]
            shown = name if in_one_line(name) else short(name)
            raise ValueError(f"{source.name}: has no column {shown}; there are {', '.join(there) or 'none'}")
    if len(set(names)) < len(names):
        raise ValueError(f"{argument} must name a column once, got {', '.join(names)}")
    return names


def _floats(source: Source, read: Source, columns: Sequence[str]) -> list[str]:
    """The values where nobody names them: columns of floats, save numbers that a pair of answers shares."""
    names = [name for name in source.table.column_names if name not in RESERVED and name not in columns]
    _refuse_text_among_numbers(source, names)
    shared = read.table.column_names if source.each > read.each else ()
    return [name for name in names if _is_float(source.table[name].type) and name not in shared]


def _is_float(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _refuse_text_among_numbers(source: Source, names: Sequence[str]) -> None:
    """One stray text makes a column of numbers a column of text where types are guessed: say so."""
    for name in names if source.loose else ():
        column = source.table[name]
        if is_text(column.type):
            number = pc.match_substring_regex(column, _NUMBER)
            if 0.5 <= (pc.mean(number).as_py() or 0) < 1:
                row = first(pc.invert(number)) or 0
                raise ValueError(
                    f"{source.at(row, name)}: text among numbers, {short(column[row].as_py())}; "
                    f"where text is meant name it in columns"
                )


def _reserved(source: Source) -> tuple[dict[str, pa.ChunkedArray | pa.Array], NDArray[np.int64]]:
    """The reserved columns in their order, and the number of each row's prompt."""
    names = source.table.column_names
    texts = prompt_codes(source.table)
    laid: dict[str, pa.ChunkedArray | pa.Array] = {"prompt_id": _prompt_id(source, texts)}
    groups = encoded(laid["prompt_id"])
    if texts is not None:
        _same_in_prompt(source, "prompt" if "prompt" in names else "messages", texts, groups)
    laid["candidate"] = _candidate(source, groups)
    laid |= {name: source.table[name] for name in ("prompt", "messages") if name in names}
    if "response" in names:
        laid["response"] = text_column(source, "response")
        _no_nulls(source, "response")
    return laid | {name: _optional(source, name) for name in OPTIONAL if name in names}, groups


def _prompt_id(source: Source, texts: NDArray[np.int64] | None) -> pa.ChunkedArray | pa.Array:
    if "prompt_id" not in source.table.column_names:
        if texts is None:
            there = ", ".join(source.table.column_names)
            raise ValueError(f"{source.name}: needs a column prompt_id, prompt or messages, has {there}")
        return pa.array(texts)
    _no_nulls(source, "prompt_id")
    column = _plain(source.table["prompt_id"])
    if pa.types.is_integer(column.type):
        return _whole(source, "prompt_id", column)
    if not is_text(column.type):
        raise ValueError(f"{source.at(0, 'prompt_id')}: must be whole numbers or text, got {type_of(column)}")
    return column


def _candidate(source: Source, groups: NDArray[np.int64]) -> pa.Array:
    """Given, or counted inside each prompt in the order of the rows."""
    if "candidate" not in source.table.column_names:
        order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups)
        candidate = np.empty(len(groups), np.int64)
        candidate[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return pa.array(candidate)
    _no_nulls(source, "candidate")
    column = source.table["candidate"]
    if not pa.types.is_integer(column.type):
        raise ValueError(f"{source.at(0, 'candidate')}: must be a whole number, got {type_of(column)}")
    candidate = np.asarray(_whole(source, "candidate", column))
    if candidate.min() < 0:
        row = int(np.argmax(candidate < 0))
        raise ValueError(f"{source.at(row, 'candidate')}: must be 0 or more, got {candidate[row]}")
    order = np.lexsort((candidate, groups))
    same = (np.diff(groups[order]) == 0) & (np.diff(candidate[order]) == 0)
    if same.any():
        row = int(order[1:][same].min())
        raise ValueError(
            f"{source.at(row, 'candidate')}: candidate {candidate[row]} of this prompt is there already"
        )
    return pa.array(candidate)


def _whole(source: Source, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        row = int(np.argmax(np.asarray(column) > np.uint64(2**63 - 1)))
        raise ValueError(f"{source.at(row, name)}: must be below 2^63, got {column[row].as_py()}") from None


def _same_in_prompt(source: Source, name: str, codes: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
    if (row := _differing(codes, groups)) is not None:
        raise ValueError(f"{source.at(row, name)}: differs from the rows of the same prompt_id before")


def _differing(codes: NDArray[np.int64], groups: NDArray[np.int64]) -> int | None:
    """The first row whose entry is not that of its prompt's first row."""
    head = np.zeros(groups.max() + 1, np.intp)
    head[groups[::-1]] = np.arange(len(groups))[::-1]
    differs = codes != codes[head[groups]]
    return int(np.argmax(differs)) if differs.any() else None


def _check_column(source: Source, name: str, column: pa.ChunkedArray, groups: NDArray[np.int64]) -> None:
    if pa.types.is_nested(column.type):
        raise ValueError(
            f"{source.at(0, name)}: must be text, a number or true or false, got {type_of(column)}"
        )
    _same_in_prompt(source, name, encoded(column), groups)


def _belongs_to_prompt(column: pa.ChunkedArray, groups: NDArray[np.int64]) -> bool:
    return not pa.types.is_nested(column.type) and _differing(encoded(column), groups) is None


def _no_nulls(source: Source, name: str) -> None:
    column = source.table[name]
    if column.null_count:
        raise ValueError(f"{source.at(first(pc.is_null(column)) or 0, name)}: is missing")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries, and with one type of text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.large_string()) if is_text(column.type) else column


def _optional(source: Source, name: str) -> pa.ChunkedArray:
    column = _plain(source.table[name])
    if name == "drawn":
        _no_nulls(source, name)
    try:
        if is_text(column.type) != (name == "finish_reason") and not pa.types.is_null(column.type):
            raise pa.ArrowInvalid
        column = column.cast(OPTIONAL[name])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"{source.at(0, name)}: must be {OPTIONAL[name]}, got {type_of(column)}") from None
    if pa.types.is_floating(column.type):
        _finite(source, name, column)
    return column


def _value(source: Source, name: str) -> pa.ChunkedArray:
    column = _plain(source.table[name])
    if is_text(column.type):
        row = first(pc.invert(pc.match_substring_regex(column, _NUMBER))) or 0
        raise ValueError(f"{source.at(row, name)}: must be a number, got {short(column[row].as_py())}")
    _no_nulls(source, name)
    try:
        column = column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ValueError(f"{source.at(0, name)}: must be a number, got {type_of(column)}") from None
    _finite(source, name, column)
    if (row := first(pc.greater(pc.abs(column), LARGEST))) is not None:
        raise ValueError(
            f"{source.at(row, name)}: must lie between -{LARGEST:g} and {LARGEST:g}, got {column[row].as_py()}"
        )
    return column


def _finite(source: Source, name: str, column: pa.ChunkedArray) -> None:
    if (row := first(pc.invert(pc.is_finite(column)))) is not None:
        raise ValueError(f"{source.at(row, name)}: must be finite, got {column[row].as_py()}")
