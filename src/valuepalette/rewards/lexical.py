"""Values that need no model: the diversity of a text, and its length."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.rewards import Column
from valuepalette.rewards.exchange import Reads, read, reads_or_raise

__all__ = ["Diversity", "Length", "distinct_ngrams", "words"]

# Each rule sets blanks around what becomes a token of its own; the text is then cut at blanks.
_OPENING_QUOTE = re.compile(r'(^|[\s(\[{<])"')
_ALONE = re.compile(r'(\.{2,}|--|[:,](?!\d)|[;@#$%&*?!"“”„‘’«»()\[\]{}<>])')
# A period ends a sentence unless it marks an initial ("a.", "U.S.") or a title; at the end of the text it always does.
_PERIOD = re.compile(r"""(?<=[^\s.])\.(?=[\])}>"'»”’]*(?:\s|$))""")
_ABBREVIATED = re.compile(
    r"(?:^|[^\w'’])(?:[^\W\d_]|(?:\w\.)+\w|Mr|Mrs|Ms|Dr|St|Inc|etc|vs|Jr|Sr)$", re.IGNORECASE
)
_CLITIC = re.compile(r"(?<=[^'\s])('(?:s|m|d|ll|re|ve)?|n't)(?=\s|$)", re.IGNORECASE)
_CONTRACTION = re.compile(r"\b(can)(not)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b", re.IGNORECASE)


def words(text: str) -> list[str]:
    """The tokens of an English text, in the manner of the Penn Treebank: punctuation and clitics stand alone.

    >>> words("She said: \\"I can't, it's 1,000 km.\\"")
    ['She', 'said', ':', '``', 'I', 'ca', "n't", ',', 'it', "'s", '1,000', 'km', '.', "''"]
    """
    text = _OPENING_QUOTE.sub(r"\1 `` ", text)
    text = _PERIOD.sub(_period, text)
    text = _ALONE.sub(r" \1 ", text).replace(' " ', " '' ")
    text = _CLITIC.sub(r" \1 ", text)
    return _CONTRACTION.sub(_apart, text).split()


def _period(match: re.Match[str]) -> str:
    text, at = match.string, match.start()
    inside = text[at:].strip(".])}>\"'»”’ \n\t") != ""
    return "." if inside and _ABBREVIATED.search(text, max(0, at - 12), at) else " . "


def _apart(match: re.Match[str]) -> str:
    return " ".join(part for part in match.groups() if part)


def distinct_ngrams(tokens: Sequence[str]) -> float:
    """The product over n = 2, 3, 4 of distinct n-grams / (number of n-grams + 1); in [0, 1).

    A text of fewer than four tokens has no 4-gram and scores 0.

    >>> distinct_ngrams("a b c d".split()) == 3 / 4 * 2 / 3 * 1 / 2
    True
    """
    product = 1.0
    for n in (2, 3, 4):
        grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
        product *= len(set(grams)) / (len(grams) + 1)
    return product


class Diversity:
    """How little a text repeats itself: `distinct_ngrams` of its `words`.

    `reads` says of what text. The paper takes prompt and answer together, the default; "answer" leaves the prompt
    out, which suits prompts much longer than their answers.
    """

    def __init__(
        self, *, name: str = "diversity", reads: str = "last turn and answer", thinking: bool = False
    ) -> None:
        self.reads: Reads = reads_or_raise(reads)
        self.thinking = thinking
        definition = "product over n = 2, 3, 4 of distinct n-grams / (n-grams + 1)"
        self.columns = (Column(name, definition, range=(0.0, 1.0)),)
        self.version = f"diversity 1, reads {reads}, thinking {thinking}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        texts = read(self.reads, prompts, responses, thinking=self.thinking)
        return np.array([[distinct_ngrams(words(text))] for text in texts], dtype=np.float64).reshape(-1, 1)

    def close(self) -> None:
        """Nothing to free."""


class Length:
    """How many words the answer has, or characters.

    Words are what blanks part; `unit = "characters"` counts those instead. Neither more nor fewer is better: it is
    there to be watched, since many rewards favour long answers.
    """

    reads: Reads = "answer"

    def __init__(self, *, name: str = "length", unit: str = "words", thinking: bool = False) -> None:
        if unit not in ("words", "characters"):
            raise ValueError(f"unit must be 'words' or 'characters'; got {unit!r}")
        self.unit = unit
        self.thinking = thinking
        self.columns = (Column(name, f"{unit} in the answer", range=(0.0, float("inf"))),)
        self.version = f"length 1, {unit}, thinking {thinking}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> NDArray[np.float64]:
        answers = read("answer", prompts, responses, thinking=self.thinking)
        counts = [len(text.split()) if self.unit == "words" else len(text.strip()) for text in answers]
        return np.array(counts, dtype=np.float64).reshape(-1, 1)

    def close(self) -> None:
        """Nothing to free."""
