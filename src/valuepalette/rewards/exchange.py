"""What a reward reads of an exchange: one rule for all of them.

A model that reasons writes its thoughts first and closes them with `</think>`. What follows is the answer, and the
answer is what is judged, unless a reward is told to read the thoughts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from valuepalette.engines import Message, Prompt

__all__ = ["READS", "Reads", "answer_of", "conversation_of", "last_turn", "read", "reads_or_raise"]

Reads = Literal["answer", "last turn and answer", "conversation"]
READS: tuple[Reads, ...] = get_args(Reads)

_OPEN, _CLOSE = "<think>", "</think>"


def answer_of(response: str, *, thinking: bool = False) -> str:
    """The part of a response that is judged: what follows the last `</think>`.

    A response that opens its thoughts and never closes them has no answer: the text is empty. With `thinking` the
    response is taken as it is.

    >>> answer_of("<think>2 and 2?</think> Four.")
    'Four.'
    >>> answer_of(" Four.")
    ' Four.'
    >>> answer_of("<think>2 and 2? Let me")
    ''
    """
    if thinking:
        return response
    if _CLOSE in response:
        return response.rpartition(_CLOSE)[2].lstrip()
    return "" if response.lstrip().startswith(_OPEN) else response


def last_turn(prompt: Prompt) -> str:
    """The text the answer replies to: the prompt itself, or the content of a conversation's last turn."""
    if isinstance(prompt, str):
        return prompt
    return prompt[-1]["content"] if prompt else ""


def conversation_of(prompt: Prompt, answer: str) -> list[Message]:
    """The whole exchange as turns, the answer last."""
    turns: Sequence[Message] = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    return [*turns, Message(role="assistant", content=answer)]


def read(
    reads: Reads, prompts: Sequence[Prompt], responses: Sequence[str], *, thinking: bool = False
) -> list[str]:
    """The text to judge of each exchange, one per response.

    "answer" is the answer alone. "last turn and answer" puts the prompt's last turn before it, "conversation"
    every turn. A prompt that is a text is continued by its answer with nothing in between, which is the paper's
    full text; the turns of a conversation are parted by a line break.

    >>> read("last turn and answer", ["The end is"], [" near."])
    ['The end is near.']
    """
    answers = [answer_of(response, thinking=thinking) for response in responses]
    if reads == "answer":
        return answers
    return [_text(reads, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def _text(reads: Reads, prompt: Prompt, answer: str) -> str:
    if isinstance(prompt, str):
        return prompt + answer
    turns = [*prompt, Message(role="assistant", content=answer)]
    return "\n".join(turn["content"] for turn in (turns[-2:] if reads == "last turn and answer" else turns))


def reads_or_raise(reads: str) -> Reads:
    """`reads` itself where it names what can be read; else a ValueError that lists the names."""
    for known in READS:
        if reads == known:
            return known
    raise ValueError(f"reads must be one of {', '.join(map(repr, READS))}; got {reads!r}")
