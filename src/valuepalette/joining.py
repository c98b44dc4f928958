"""Rows of one pilot -> the same candidates in another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuepalette.prompts import encoded, prompt_codes

__all__ = ["counterparts"]


def counterparts(table: pa.Table, other: pa.Table) -> NDArray[np.intp]:
    """The row of `other` with the same prompt_id and candidate, for each row of `table`, shape (n,).

    Raises ValueError, naming the row, where there is none or where prompt or response differ.
    """
    kinds = [str(one["prompt_id"].type) for one in (table, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"both pilots' prompt_id must be numbers or text, got {' and '.join(kinds)}")
    keys = pa.concat_tables([one.select(["prompt_id", "candidate"]) for one in (table, other)])
    # Numbered first, so that large candidate numbers cannot overflow the product.
    candidate = encoded(keys["candidate"])
    key = encoded(keys["prompt_id"]) * (candidate.max() + 1) + candidate
    mine, theirs = np.split(key, [table.num_rows])
    order = np.argsort(theirs)
    rows = order[np.minimum(np.searchsorted(theirs, mine, sorter=order), len(theirs) - 1)]
    _refuse(table, theirs[rows] != mine, "has no counterpart in the other pilot")
    for names in (("prompt", "messages"), ("response",)):
        here, there = (
            one.select([name for name in names if name in one.column_names]) for one in (table, other)
        )
        if here.num_columns and there.num_columns:
            both = pa.concat_tables([here, there.take(pa.array(rows))], promote_options="default")
            codes = encoded(both["response"]) if names == ("response",) else prompt_codes(both)
            assert codes is not None
            _refuse(table, np.not_equal(*np.split(codes, 2)), f"has another {names[0]} in the other pilot")
    return rows


def _refuse(table: pa.Table, rows: NDArray[np.bool_], why: str) -> None:
    if rows.any():
        row = int(np.argmax(rows))
        prompt, candidate = (table[name][row].as_py() for name in ("prompt_id", "candidate"))
        raise ValueError(f"row {row} (from 0), prompt_id {prompt!r}, candidate {candidate}: {why}")
