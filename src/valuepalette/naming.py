# pyright: strict
"""Names and entries as errors and tables show them: on one line, and not too long."""

from __future__ import annotations

import re

__all__ = ["in_one_line", "short"]

_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, ends of lines, and halves of characters, which no file can hold."""


def in_one_line(name: object) -> bool:
    """Whether a name can stand in a table, in an error and in a file: text of one line that is not blank.

    >>> in_one_line("笑い"), in_one_line(" "), in_one_line("a\\nb"), in_one_line(7)
    (True, False, False, False)
    """
    return isinstance(name, str) and bool(name.strip()) and not _BREAKS.search(name)


def short(entry: object, width: int = 40) -> str:
    """An entry as an error shows it: quoted, on one line, cut.

    >>> short("a\\nb"), short([[1.0] * 5] * 5, 12)
    ("'a\\\\nb'", '[[1.0, 1.0,…')
    """
    try:
        text = " ".join(repr(entry).split())
    except (
        Exception
    ):  # a repr of others, or a whole number of thousands of digits, which Python will not spell
        text = f"a {type(entry).__name__}"
    return text if len(text) <= width else text[: width - 1] + "…"
