"""Text as a page shows it: characters that would hide something, or turn around what follows, are spelled out."""

from __future__ import annotations

import re

__all__ = ["minus", "visible"]

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but for tab and the end of a line
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # other ends of lines; embeddings, overrides and isolates of direction
    "\u200b\u2060-\u2065\ufeff\ufff9-\ufffb"  # what has no width and no meaning in a script
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # halves of characters, and no characters
    "\U000e0000-\U000e007f]"  # tags, a text that nobody sees
)


def visible(text: str) -> str:
    r"""The same text, with hidden characters by their number. Joiners and marks that scripts need stay.

    >>> visible("a\x1b[0m"), visible("\u202egnp.exe"), visible("ça va ?\n")
    ('a‹U+001B›[0m', '‹U+202E›gnp.exe', 'ça va ?\n')
    """
    return _HIDDEN.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text.replace("\r\n", "\n"))


def minus(number: str) -> str:
    """A number with the sign that is meant.

    >>> minus("-0.5")
    '−0.5'
    """
    return number.replace("-", "−")
