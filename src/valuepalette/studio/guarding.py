"""Only this page, on this machine: every request is checked before anything else is done with it.

A page of the web can send requests to this machine, and a name that it owns can be made to point here. So Host must be
a name of this machine, with the port that is served; what a page sends must come from this one; and a body must be
JSON, which another page cannot send unasked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CSP", "Guard", "names_of"]

CSP = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_LIMIT = 64 * 1024
"""Bytes of a body."""


def names_of(port: int) -> frozenset[str]:
    """What this machine calls itself in Host, where a browser leaves out the port that is the web's own."""
    return frozenset(name if port == 80 else f"{name}:{port}" for name in ("127.0.0.1", "localhost"))


class Guard:
    """Around an application."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if trouble := self._trouble(scope):
            status, said = trouble
            await JSONResponse({"error": said}, status)(scope, receive, dressed)
            return
        if scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                said = f"a body has at most {_LIMIT} bytes"
                await JSONResponse({"error": said}, 413)(scope, receive, dressed)
                return
            receive = _told(body, receive)
        await self._app(scope, receive, dressed)

    def _trouble(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") != [headers.get("host")] or headers.get("host") not in self._hosts:
            return 403, "this page is served to this machine alone, under its own name"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{name}" for name in self._hosts}:
            return 403, "another page may not ask here"
        # Links from elsewhere may open the page itself, and nothing else.
        page = scope["path"] == "/" and scope["method"] == "GET"
        if not page and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "another page may not ask here"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "GET and POST alone"
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "a body must be application/json"
        return None


async def _body(receive: Receive) -> bytes | None:
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part: Any = message.get("body", b"")
        size += len(part)
        if size > _LIMIT:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _told(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, then whatever comes after it."""
    rest = [{"type": "http.request", "body": body, "more_body": False}]

    async def told() -> Message:
        return rest.pop() if rest else await receive()

    return told
