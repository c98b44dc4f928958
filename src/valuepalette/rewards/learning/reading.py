"""Data to learn rewards from, as tables: texts with labels or ratings, and preferences."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported; no checker sees them.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from valuepalette.engines import Prompt
from valuepalette.naming import short
from valuepalette.prompts import prompt_codes, with_prompts
from valuepalette.reading import Source, first, is_text, read_source, text_column
from valuepalette.transcripts import without_pairs

__all__ = ["Examples", "Rankings", "held_out_rows", "read_examples", "read_rankings"]

_OWN = ("text", "prompt", "messages", "response")
_OF_A_PILOT = ("prompt_id", "candidate", "drawn", "tokens", "finish_reason", "logprob", "probability")


@dataclass(frozen=True)
class Examples:
    """Texts to judge, and what is known of them.

    prompts, responses  an entry each; a text without a prompt answers an empty one
    groups              rows of one group stay together: the number of the prompt, or of the text
    columns             entries by column; None where nothing is known
    prompted            whether there are prompts
    name                of the file
    """

    prompts: list[Prompt]
    responses: list[str]
    groups: NDArray[np.int64]
    columns: dict[str, list[Any]]
    prompted: bool
    name: str


@dataclass(frozen=True)
class Rankings:
    """Answers to prompts, the best first, two or more to each.

    groups  numbers of the distinct prompts
    """

    prompts: list[Prompt]
    answers: list[list[str]]
    groups: NDArray[np.int64]
    name: str


def read_examples(data: object) -> Examples:
    """A table with `text`, or `response` and `prompt` (or `messages`), and a column for each aspect; a pilot is one."""
    source = with_prompts(read_source(data))
    names = source.table.column_names
    prompted = bool({"prompt", "messages"} & set(names))
    column = "response" if "response" in names else "text"
    if column not in names or (column == "text" and prompted):
        raise ValueError(
            f"{source.name}: needs a column text, or prompt and response, has {', '.join(names)}"
        )
    responses = _texts(source, column)
    prompts: list[Prompt] = _prompts(source) if prompted else [""] * len(responses)
    codes = prompt_codes(source.table) if prompted else None
    if codes is None:
        codes = np.unique(np.array(responses, dtype=object), return_inverse=True)[1].astype(np.int64)
    columns = {name: source.table[name].to_pylist() for name in names if name not in (*_OWN, *_OF_A_PILOT)}
    return Examples(prompts, responses, codes, columns, prompted, source.name)


def read_rankings(data: object) -> Rankings:
    """A table with `chosen` and `rejected` answers to a `prompt`, or with `ranked`, a list of answers, the best first.

    Answers are texts or, as TRL has them, conversations of one turn; transcripts of hh-rlhf are read as they are.
    """
    source = read_source(data)
    names = set(source.table.column_names)
    if "ranked" in names and names & {"prompt", "messages"}:
        source = with_prompts(source)
        answers = _ranked(source)
    elif {"chosen", "rejected"} <= names:
        if all(is_text(source.table[name].type) for name in names & {"prompt", "chosen", "rejected"}):
            source = with_prompts(without_pairs(source))
            texts = _texts(source, "response")
            answers = [[best, other] for best, other in zip(texts[::2], texts[1::2], strict=True)]
            table = source.table.take(pa.array(np.arange(0, len(texts), 2)))
            source = Source(table, source.parts, source.loose)
        elif names & {"prompt", "messages"}:
            source = with_prompts(source)
            sides = [_last_turns(source, side) for side in ("chosen", "rejected")]
            answers = [list(pair) for pair in zip(*sides, strict=True)]
        else:
            raise ValueError(
                f"{source.name}: conversations in chosen and rejected need their prompt beside them"
            )
    else:
        raise ValueError(
            f"{source.name}: needs prompt, chosen and rejected, or prompt and ranked, "
            f"has {', '.join(source.table.column_names)}"
        )
    codes = prompt_codes(source.table)
    return Rankings(
        _prompts(source),
        answers,
        np.arange(len(answers), dtype=np.int64) if codes is None else codes,
        source.name,
    )


def held_out_rows(groups: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows are held out: whole groups, about `share` of them, one at least."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"held_out must be a share between 0 and 1; got {share!r}")
    distinct = np.unique(groups)
    if len(distinct) < 2:
        raise ValueError("data must hold two prompts or more, so that one can be held out; got one")
    count = min(max(round(share * len(distinct)), 1), len(distinct) - 1)
    return np.isin(groups, rng.permutation(distinct)[:count])


def _texts(source: Source, name: str) -> list[str]:
    column = text_column(source, name)
    if (row := first(column.is_null())) is not None:
        raise ValueError(f"{source.at(row, name)}: is missing")
    return [str(text) for text in column.to_pylist()]


def _prompts(source: Source) -> list[Prompt]:
    names = [name for name in ("prompt", "messages") if name in source.table.column_names]
    rows = zip(*(source.table[name].to_pylist() for name in names), strict=True)
    return [next(entry for entry in row if entry is not None) for row in rows]


def _ranked(source: Source) -> list[list[str]]:
    lists: list[Any] = source.table["ranked"].to_pylist()
    for row, answers in enumerate(lists):
        good = isinstance(answers, Sequence) and not isinstance(answers, str) and len(answers) >= 2
        if not good or not all(isinstance(answer, str) for answer in answers):
            raise ValueError(
                f"{source.at(row, 'ranked')}: must be a list of two texts or more, got {short(answers)}"
            )
    return [list(answers) for answers in lists]


def _last_turns(source: Source, side: str) -> list[str]:
    """The answer of each row: a text, or the last turn of a conversation."""
    found: list[str] = []
    for row, entry in enumerate(source.table[side].to_pylist()):
        turn = entry[-1] if isinstance(entry, list) and entry else {"content": entry}
        content = turn.get("content") if isinstance(turn, dict) else None
        if not isinstance(content, str):
            raise ValueError(f"{source.at(row, side)}: must be a text or a conversation, got {short(entry)}")
        found.append(content)
    return found
