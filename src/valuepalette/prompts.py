"""Prompts in tables: texts or conversations, in one form, and numbered."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported; no checker sees them.
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from valuepalette.naming import short
from valuepalette.reading import FORMATS, Source, first, is_text, read_source, text_column
from valuepalette.transcripts import MESSAGES, as_prompts

__all__ = ["read_prompts"]


def read_prompts(source: object, format: str | None = None, columns: Sequence[str] = ()) -> pa.Table:
    """Prompts to sample answers for: a table with `prompt` (text) or `messages` (a conversation), and `columns`.

    source   a file (JSONL, JSON, Parquet, CSV; plain text with a prompt on each line), a folder of Parquet parts, or
             an Arrow-compatible table
    format   what the file is, where its name does not tell; `hh-rlhf` reads transcripts in `prompt`, or in `chosen`
             and `rejected`, whose prompt is what they share up to the last human turn
    columns  columns of the prompt to keep: a cohort, a weight

    Rows stay in order and repeated prompts stay. A prompt that is blank, or a conversation that ends with the
    assistant's turn, is refused with its file and row.
    """
    hh = format == "hh-rlhf"
    if not hh and format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, hh-rlhf, got {format!r}")
    found = read_source(source, None if hh else format)
    if hh:
        found = as_prompts(found)
    names = found.table.column_names
    if not {"prompt", "messages"} & set(names):
        hint = '; for hh-rlhf transcripts say format="hh-rlhf"' if "chosen" in names else ""
        raise ValueError(f"{found.name}: needs a column prompt or messages, has {', '.join(names)}{hint}")
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"{found.name}: has no column {missing[0]}; columns are {', '.join(names)}")
    found = with_prompts(found)
    kept = [name for name in ("prompt", "messages") if name in found.table.column_names]
    if "prompt" in kept:
        text = found.table["prompt"]
        if (row := first(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(text)), 0))) is not None:
            raise ValueError(f"{found.at(row, 'prompt')}: is blank")
    if "messages" in kept:
        for row, messages in enumerate(found.table["messages"].to_pylist()):
            if messages and messages[-1]["role"] == "assistant":
                raise ValueError(
                    f"{found.at(row, 'messages')}: must end where the answer begins, not with one"
                )
    return found.table.select([*kept, *columns]).replace_schema_metadata(None)


def with_prompts(source: Source) -> Source:
    """`prompt` as text and `messages` as conversations, each row with exactly one; a column without any is dropped."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in ("prompt", "messages"):
        if name in source.table.column_names:
            listed = pa.types.is_list(kind := source.table[name].type) or pa.types.is_large_list(kind)
            become = "messages" if name == "messages" or listed else "prompt"
            column = _conversations(source, name) if become == "messages" else text_column(source, name)
            if become in columns:
                raise ValueError(f"{source.name}: columns prompt and messages both hold conversations")
            columns[become] = column
    columns = {name: column for name, column in columns.items() if column.null_count < len(column)} or columns
    if columns:
        there = [pc.is_valid(column) for column in columns.values()]
        if (row := first(pc.invert(pc.or_(there[0], there[-1])))) is not None:
            raise ValueError(f"{source.at(row, ' or '.join(columns))}: is missing")
        if len(there) > 1 and (row := first(pc.and_(*there))) is not None:
            raise ValueError(f"{source.at(row, 'messages')}: there is a prompt too; one of them is allowed")
    others = {
        name: source.table[name] for name in source.table.column_names if name not in ("prompt", "messages")
    }
    return source.over(pa.table({**others, **columns}).replace_schema_metadata(source.table.schema.metadata))


def _conversations(source: Source, name: str) -> pa.ChunkedArray:
    column = source.table[name]
    if pa.types.is_null(column.type):
        return column.cast(MESSAGES)
    turn = (
        column.type.value_type
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        else None
    )
    if (
        turn is None
        or not pa.types.is_struct(turn)
        or not {"role", "content"} <= {field.name for field in turn}
    ):
        raise ValueError(
            f"{source.at(0, name)}: must be a list of {{role, content}}, got {short(str(column.type))}"
        )
    start, chunks = 0, []
    for chunk in column.chunks:
        lengths = np.asarray(pc.fill_null(pc.list_value_length(chunk), -1))
        if (empty := np.flatnonzero(lengths == 0)).size:
            raise ValueError(f"{source.at(start + empty[0], name)}: the conversation is empty")
        turns, fields = chunk.flatten(), []
        for field in ("role", "content"):
            said = pc.struct_field(turns, field)
            if not is_text(said.type) or said.null_count:
                at = 0 if not is_text(said.type) else first(pc.is_null(said))
                row = start + pc.list_parent_indices(chunk)[at].as_py()
                raise ValueError(f"{source.at(row, name)}: the {field} of every message must be text")
            fields.append(said.cast(pa.large_string()))
        offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))]).astype(np.int32)
        chunks.append(
            pa.ListArray.from_arrays(
                pa.array(offsets),
                pa.StructArray.from_arrays(fields, fields=list(MESSAGES.value_type)),
                type=MESSAGES,
                mask=chunk.is_null() if chunk.null_count else None,
            )
        )
        start += len(chunk)
    return pa.chunked_array(chunks, MESSAGES)


def encoded(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Numbers of the distinct entries, in order of first appearance, shape (n,); a null is an entry like others."""
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([column])
    # Arrow gives all chunks one dictionary.
    codes = column.dictionary_encode(null_encoding="encode")
    return np.concatenate([np.asarray(chunk.indices, np.int64) for chunk in codes.chunks])


def prompt_codes(table: pa.Table) -> NDArray[np.int64] | None:
    """Numbers of the distinct prompts, in order of first appearance, shape (n,); None where the table has none."""
    names = table.column_names
    if "messages" not in names:
        return encoded(table["prompt"]) if "prompt" in names else None
    # A conversation becomes the numbers of its turns, and those bytes one entry of a binary column.
    chunks = table["messages"].chunks
    lengths = np.concatenate([np.asarray(pc.fill_null(pc.list_value_length(chunk), 0)) for chunk in chunks])
    turns = [chunk.flatten() for chunk in chunks]
    role, content = (
        encoded(pa.chunked_array([pc.struct_field(turn, field) for turn in turns], pa.large_string()))
        for field in ("role", "content")
    )
    words = role * (content.max(initial=0) + 1) + content
    offsets = 8 * np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(words)]
    codes = encoded(pa.Array.from_buffers(pa.large_binary(), table.num_rows, buffers))
    if "prompt" not in names:
        return codes
    texts = encoded(table["prompt"])
    return encoded(pa.array(codes * (texts.max() + 1) + texts))
