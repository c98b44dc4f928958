"""Names and entries on one line."""

from __future__ import annotations

import numpy as np
import pytest

from valuepalette.naming import in_one_line, short


@pytest.mark.parametrize(
    "name", ["humor", "笑い", "لطافة", "نیم‌فاصله", "🙂", "x" * 900, "P(humor < -2)", "a b"]
)
def test_names_of_any_script_are_names(name: str) -> None:
    assert in_one_line(name)


@pytest.mark.parametrize(
    "name", ["", " ", "\t", "a\nb", "a\rb", "a\x85b", "a\u2028b", "\x00", "\ud800", None, 3, b"humor"]
)
def test_what_breaks_a_line_or_a_file_is_none(name: object) -> None:
    assert not in_one_line(name)


def test_entries_are_shown_on_one_line() -> None:
    assert short("a\nb") == r"'a\nb'"
    assert short(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert len(short("x" * 99)) == 40
    assert short(10**5000) == "a int"  # Python does not spell it


def test_what_cannot_be_shown_is_named_by_its_type() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    assert short(Silent()) == "a Silent"
