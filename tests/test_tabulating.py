"""Tables fit their width whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valuepalette.tabulating import table

ROWS = [["humor", "a" * 30, "0.5"], ["a name that is rather long", "b", "12.25"]]


def test_numbers_stand_to_the_right_and_texts_to_the_left() -> None:
    lines = table(["", "note", "level"], [["humor", "free", "0.5"], ["tone", "", "12.25"]], left=(0, 1))
    assert lines == ["       note  level", "humor  free    0.5", "tone         12.25"]


def test_an_empty_column_is_left_out() -> None:
    assert table(["", "drawn", "level"], [["humor", "", "0.5"]]) == ["       level", "humor    0.5"]


def test_spare_columns_go_before_names_are_cut() -> None:
    wide = table(["", "note", "level"], ROWS, spare=(1,), width=70)
    assert wide[1].startswith("humor                       aaa")
    narrow = table(["", "note", "level"], ROWS, spare=(1,), width=40)
    assert narrow[2] == "a name that is rather long  12.25"
    assert table(["", "note", "level"], ROWS, spare=(1,), width=20)[2] == "a name that …  12.25"


@pytest.mark.parametrize("width", [30, 60, 100])
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=40), st.text("ab ", max_size=12), st.text("0123.", max_size=9)), min_size=1
    )
)
def test_no_line_is_longer_than_the_width(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = table(["", "note", "level"], rows, spare=(1,), width=width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == len(rows) + 1
