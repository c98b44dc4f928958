"""Candidates are found again by prompt_id and candidate, whatever the order of rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valuepalette.joining import counterparts

keys = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([0, 1, 2**62])), min_size=1, unique=True
)


def table(rows: list[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {"prompt_id": [prompt for prompt, _ in rows], "candidate": [number for _, number in rows]}
    )


@settings(deadline=None)
@given(keys, st.randoms(use_true_random=False))
def test_every_row_finds_its_own(rows: list[tuple[str, int]], random: object) -> None:
    other = sorted(rows, key=lambda _: random.random())  # type: ignore[attr-defined]
    found = counterparts(table(rows), table(other))
    assert [other[row] for row in found] == rows


@settings(deadline=None)
@given(keys, keys)
def test_a_row_without_its_own_is_named(rows: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    missing = [row for row in rows if row not in other]
    if not missing:
        assert [other[row] for row in counterparts(table(rows), table(other))] == rows
        return
    prompt, candidate = missing[0]
    says = rf"^row {rows.index(missing[0])} \(from 0\), prompt_id '{prompt}', candidate {candidate}: has no counterpart"
    with pytest.raises(ValueError, match=says):
        counterparts(table(rows), table(other))


def test_texts_are_compared_where_both_have_them() -> None:
    here = table([("a", 0), ("a", 1)]).append_column("response", pa.array(["x", "y"]))
    there = table([("a", 1), ("a", 0)])
    assert counterparts(here, there).tolist() == [1, 0]
    assert counterparts(here, there.append_column("response", pa.array(["y", "x"]))).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"^row 0 \(from 0\), .*: has another response in the other pilot$"):
        counterparts(here, there.append_column("response", pa.array(["x", "y"])))


def test_a_million_rows_are_joined_without_a_loop() -> None:
    rows = 1_000_000
    made = pa.table({"prompt_id": np.arange(rows) // 16, "candidate": np.arange(rows) % 16})
    order = np.random.default_rng(0).permutation(rows)
    assert (counterparts(made, made.take(pa.array(order))) == np.argsort(order)).all()
