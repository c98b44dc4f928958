"""What stands before every request: the key, the limit of its body, JSON that is JSON; and errors in OpenAI's shape.

Nothing of a request is logged or repeated here.
"""

from __future__ import annotations

import hmac
import json
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from valuepalette.server.answering import complaint
from valuepalette.server.policies import Refusal

__all__ = ["Guarded", "http", "invalid", "refuse", "unforeseen"]

log = logging.getLogger("valuepalette.server")


class _Body(Request):
    """A request whose body was read already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


class Guarded(APIRoute):
    """Asks for the key, then reads the body within its limit, as JSON that is JSON; nothing of it is ever logged."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            _check_key(request)
            if request.method == "POST":
                request = _Body(request.scope, request.receive)
                request._body = await _read(request, request.app.state.gateway.policies.body_limit)
                request.parsed = _parsed(request._body)
            try:
                return await handle(request)
            except (Refusal, RequestValidationError, HTTPException):
                raise
            except Exception as error:
                raise unforeseen(error) from None

        return guarded


def _check_key(request: Request) -> None:
    key = request.app.state.key
    if key is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        raise Refusal(401, "invalid_api_key", "the request must bring the key: Authorization: Bearer …")


async def _read(request: Request, limit: int) -> bytes:
    too_large = Refusal(413, "body", f"a request must have at most {limit} bytes")
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _parsed(body: bytes) -> Any:
    """The body, if it is JSON as the standard has it: no NaN, no half characters."""
    try:
        # Left to decode it, `json` lets half characters pass.
        text = body.decode("utf-8-sig")
        parsed = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if b"\\ud" in body.lower():
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "body", f"the request must be JSON: {type(error).__name__}") from None
    return parsed


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def unforeseen(error: Exception) -> Refusal:
    """A fault of the gateway: where it happened is logged, what it says may hold texts and is not."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    where = "" if at is None else f" at {at.tb_frame.f_code.co_filename}:{at.tb_lineno}"
    log.error("unforeseen %s%s", type(error).__name__, where)
    return Refusal(500, "internal", "the gateway failed; its log says where")


async def refuse(_: Request, refusal: Refusal) -> Response:
    after = {} if refusal.after is None else {"Retry-After": str(refusal.after)}
    if refusal.status == 401:
        after["WWW-Authenticate"] = "Bearer"
    return JSONResponse(complaint(refusal), status_code=refusal.status, headers=after)


async def invalid(request: Request, error: RequestValidationError) -> Response:
    """What is wrong with the body, by field; what was given is not repeated."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    refusal = Refusal(400, "invalid", f"{where or 'the request'}: {first['msg']}"[:500])
    return await refuse(request, refusal)


async def http(request: Request, error: HTTPException) -> Response:
    return await refuse(request, Refusal(error.status_code, "http", str(error.detail)))
