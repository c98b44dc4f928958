"""Answers in the shapes of OpenAI's protocol, whole and as events; what was done stands under `valuepalette`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from valuepalette.server.gateway import Answer, Answered
from valuepalette.server.planning import Plan
from valuepalette.server.policies import Refusal

__all__ = [
    "SIGN",
    "Completion",
    "Failure",
    "Rewards",
    "as_events",
    "chunks",
    "complaint",
    "event",
    "forwarded",
    "headers",
    "whole",
]

SIGN = b": the answer is being chosen\n\n"
"""A comment of the event stream, which clients skip."""

_PIECE = 48  # characters of a chunk


class Choice(BaseModel):
    """An answer: `message` of a chat, `text` of a completion; `valuepalette` where it was chosen among candidates."""

    model_config = ConfigDict(extra="allow")

    index: int
    finish_reason: str | None
    message: dict[str, Any] | None = None
    text: str | None = None
    valuepalette: dict[str, Any] | None = None


class Completion(BaseModel):
    """What both endpoints answer; `valuepalette` tells whether it is aligned, with what palette, weights and seed."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    valuepalette: dict[str, Any]


class Failure(BaseModel):
    """What a request gets that is not answered."""

    error: dict[str, Any]


class Rewards(BaseModel):
    """β·λᵀf of each response, twice, and each value, as OpenRLHF's hook reads them."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


def whole(plan: Plan, answered: Answered) -> dict[str, Any]:
    """The answers in one piece."""
    chat = plan.asked.path == "chat/completions"
    choices: list[dict[str, Any]] = []
    for index, answer in enumerate(answered.answers):
        text = answer.candidate.text
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": index, **said, "finish_reason": answer.candidate.finish_reason, "logprobs": None}
        choices.append(choice | _about(answer))
    return {**_head(plan, "chat.completion" if chat else "text_completion"), "choices": choices} | {
        "valuepalette": answered.report
    }


def _about(answer: Answer) -> dict[str, Any]:
    if answer.report is None:
        return {}
    shown = {} if answer.shown is None else {"candidates": answer.shown}
    return {"valuepalette": {**answer.report, **shown}}


def chunks(plan: Plan, answered: Answered) -> Iterator[dict[str, Any]]:
    """The answers piece by piece, one after another; the first chunk holds the report."""
    chat = plan.asked.path == "chat/completions"
    head = _head(plan, "chat.completion.chunk" if chat else "text_completion")
    about: dict[str, Any] = {"valuepalette": answered.report}
    for index, answer in enumerate(answered.answers):
        text = answer.candidate.text
        pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
        deltas = [{"role": "assistant", "content": ""}] * chat + [{"content": piece} for piece in pieces]
        for delta in deltas:
            said = {"delta": delta} if chat else {"text": delta["content"]}
            yield {**head, "choices": [{"index": index, **said, "finish_reason": None}], **about}
            about = {}
        last = {"delta": {}} if chat else {"text": ""}
        end = {"index": index, **last, "finish_reason": answer.candidate.finish_reason, **_about(answer)}
        yield {**head, "choices": [end], **about}
        about = {}


def forwarded(plan: Plan, answer: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """An answer, or a chunk, of the model's server, under our name and with our report."""
    return {**answer, "model": plan.asked.wanted.model, "valuepalette": dict(report)}


async def as_events(stream: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    """Server-sent events; one that fails on the way ends with the error, since the status is out."""
    try:
        async for chunk in stream:
            yield event(chunk)
    except Refusal as refusal:
        yield event(complaint(refusal))
    yield b"data: [DONE]\n\n"


def event(content: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False, allow_nan=False)}\n\n".encode()


def complaint(refusal: Refusal) -> dict[str, Any]:
    """A refusal in OpenAI's shape."""
    kinds = {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }
    kind = kinds.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error")
    return {
        "error": {
            "message": refusal.message,
            "type": kind,
            "param": None,
            "code": refusal.code,
            **refusal.detail,
        }
    }


def headers(report: Mapping[str, Any]) -> dict[str, str]:
    """Whether it is aligned, for who looks at headers alone."""
    return {"X-ValuePalette-Aligned": "true" if report["aligned"] else "false"}


def _head(plan: Plan, kind: str) -> dict[str, Any]:
    prefix = "chatcmpl" if plan.asked.path == "chat/completions" else "cmpl"
    return {
        "id": f"{prefix}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": plan.asked.wanted.model,
    }
