"""Other people's layouts: hh-rlhf transcripts and pairs, and responses that echo their prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from valuepalette.naming import short
from valuepalette.reading import Source, first, text_column

__all__ = ["transcript"]

MESSAGES = pa.list_(pa.struct([("role", pa.large_string()), ("content", pa.large_string())]))

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ANSWER = "\n\nAssistant:"
_ROLES = {"Human": "user", "Assistant": "assistant"}


def transcript(text: str) -> list[dict[str, str]]:
    """The messages of an hh-rlhf transcript, whose turns are marked `Human:` and `Assistant:` after a blank line.

    Turns are stripped. Turns of one speaker in a row become one, parted by a blank line, since chat templates want
    speakers to alternate; a last `Assistant:` with nothing behind it marks where the answer goes and is left out.

    >>> transcript("\\n\\nHuman: Hello \\n\\nAssistant: Hi. \\n\\nHuman: Tea?\\n\\nAssistant:")[1:]
    [{'role': 'assistant', 'content': 'Hi.'}, {'role': 'user', 'content': 'Tea?'}]
    """
    opening, *parts = _TURN.split(text)
    if opening or not parts:
        raise ValueError(f"a transcript must start with a Human: or Assistant: turn, got {short(text)}")
    messages: list[dict[str, str]] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role, content = _ROLES[speaker], said.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    if messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return messages


def without_echo(source: Source) -> Source:
    """The reference's `generated`, prompt and answer in one, becomes `response`.

    Its tokenizer could lose blanks inside the echoed prompt, so the prompt is matched past blanks that are missing.
    """
    names = source.table.column_names
    if "generated" not in names or "response" in names or "prompt" not in names:
        return source
    responses: list[str] = []
    prompts, texts = (text_column(source, name).to_pylist() for name in ("prompt", "generated"))
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if prompt is None or text is None:
            raise ValueError(f"{source.at(row, 'prompt' if prompt is None else 'generated')}: is missing")
        if (end := _echo(prompt, text)) is None:
            raise ValueError(f"{source.at(row, 'generated')}: must start with the prompt, got {short(text)}")
        responses.append(text[end:])
    column = pa.array(responses, pa.large_string())
    return source.over(source.table.drop_columns("generated").append_column("response", column))


def _echo(prompt: str, text: str) -> int | None:
    """Where the prompt's echo ends in `text`; None where the text does not start with it."""
    if text.startswith(prompt):
        return len(prompt)
    end = 0
    for character in prompt:
        if text[end : end + 1] == character:
            end += 1
        elif not character.isspace():
            return None
    return end


def without_pairs(source: Source) -> Source:
    """hh-rlhf's `chosen` and `rejected` become two candidates of one prompt, in that order.

    `chosen_x` beside `rejected_x` becomes the column `x`; other columns belong to the prompt.
    """
    names = source.table.column_names
    if not {"chosen", "rejected"} <= set(names) or "response" in names:
        return source
    prompts, chosen, rejected = _split(source)
    rows = source.table.num_rows
    twice = np.repeat(np.arange(rows), 2)
    paired = [name[7:] for name in names if name.startswith("chosen_") and f"rejected_{name[7:]}" in names]
    used = [f"{side}_{name}" for side in ("chosen", "rejected") for name in paired]
    new: dict[str, pa.ChunkedArray] = {}
    for name in names:
        if name not in ("prompt", "messages", "chosen", "rejected", *used):
            new[name] = source.table[name].take(pa.array(twice))
    new |= _prompt_columns([prompts[row] for row in twice])
    answers = [answer for pair in zip(chosen, rejected, strict=True) for answer in pair]
    new["response"] = pa.chunked_array([pa.array(answers, pa.large_string())])
    for name in paired:
        left, right = source.table[f"chosen_{name}"], source.table[f"rejected_{name}"]
        both = pa.chunked_array([*left.chunks, *right.cast(left.type).chunks], left.type)
        new[name] = both.take(pa.array(np.arange(2 * rows).reshape(2, rows).T.ravel()))
    table = pa.table(new).replace_schema_metadata(source.table.schema.metadata)
    return replace(source, table=table, each=2)


def as_prompts(source: Source) -> Source:
    """One prompt for each hh-rlhf row, as messages."""
    names = source.table.column_names
    if not {"prompt", "chosen"} & set(names):
        raise ValueError(
            f"{source.name}: hh-rlhf needs chosen and rejected, or prompt; columns are {', '.join(names)}"
        )
    prompts = _split(source)[0]
    column = "prompt" if "prompt" in names else "chosen"
    if (
        row := next((row for row, prompt in enumerate(prompts) if isinstance(prompt, str)), None)
    ) is not None:
        raise ValueError(
            f"{source.at(row, column)}: a transcript must start with a Human: turn, got {short(prompts[row])}"
        )
    others = {name: source.table[name] for name in names if name not in ("prompt", "messages")}
    return source.over(pa.table({**others, **_prompt_columns(prompts)}))


def _prompt_columns(prompts: Sequence[str | list[dict[str, str]]]) -> dict[str, pa.ChunkedArray]:
    texts = [prompt if isinstance(prompt, str) else None for prompt in prompts]
    messages = [None if isinstance(prompt, str) else prompt for prompt in prompts]
    columns = {"prompt": pa.array(texts, pa.large_string()), "messages": pa.array(messages, MESSAGES)}
    return {name: pa.chunked_array([it]) for name, it in columns.items() if it.null_count < len(it)}


def _shared(texts: Sequence[str]) -> str:
    """What all texts start with."""
    shortest = min(texts, key=len)
    ends = (at for at, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1)
    return shortest[: next(ends, len(shortest))]


def _split(source: Source) -> tuple[list[str | list[dict[str, str]]], list[str], list[str]]:
    """The prompt, chosen and rejected answer of each row. A prompt that is no transcript stays text."""
    names = source.table.column_names
    columns: dict[str, list[str]] = {}
    for name in ("prompt", "chosen", "rejected"):
        if name in names:
            column = text_column(source, name)
            if (row := first(column.is_null())) is not None:
                raise ValueError(f"{source.at(row, name)}: is missing")
            columns[name] = [str(text) for text in column.to_pylist()]
    prompts: list[str | list[dict[str, str]]] = []
    answers: tuple[list[str], list[str]] = ([], [])
    sides = [name for name in ("chosen", "rejected") if name in columns]
    for row in range(source.table.num_rows):
        texts = [columns[side][row] for side in sides]
        if "prompt" in columns:
            prompt = columns["prompt"][row]
        else:
            shared = _shared(texts)
            if (end := shared.rfind(_ANSWER)) < 0:
                raise ValueError(f"{source.at(row, sides[0])}: no Assistant: turn, got {short(texts[0])}")
            prompt = shared[:end]
        try:
            prompts.append(transcript(prompt) if _TURN.match(prompt) else prompt)
        except ValueError as error:
            raise ValueError(f"{source.at(row, sides[0])}: {error}") from None
        opening = prompt + _ANSWER
        for side, text in zip(answers, texts, strict=False):
            answer = text[len(opening) :] if text.startswith(opening) else text
            side.append(answer if isinstance(prompts[-1], str) else answer.strip())
    return prompts, *answers
