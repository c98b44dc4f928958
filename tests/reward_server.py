"""A real HTTP server for tests of rewards: it answers by a function, or does what it is told to instead."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], Any]


@dataclass
class Rewarder:
    """`answer(path, asked)` is what a request gets: an object, or (status, object).

    next      what the next requests get instead: a status, "html", "cut", "close", or the text of a body
    requests  every (path, content) asked
    """

    answer: Answer
    next: list[Any] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def rewarding(rewarder: Rewarder) -> Iterator[str]:
    """The server's URL, without a path, while it runs."""
    handler = type("Handler", (_Handler,), {"rewarder": rewarder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    rewarder: Rewarder
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        rewarder = self.rewarder
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with rewarder.lock:
            rewarder.requests.append((self.path, asked))
            rewarder.keys.add(self.headers.get("Authorization"))
            mood = rewarder.next.pop(0) if rewarder.next else None
        if mood == "close":
            self.close_connection = True
            self.connection.close()
            return
        if isinstance(mood, int):
            self._send(mood, json.dumps({"error": {"message": "not now"}}).encode())
            return
        answer = rewarder.answer(self.path, asked)
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        body = json.dumps(content).encode()
        if mood == "cut":
            body = body[: len(body) // 2]
        elif mood == "html":
            body = b"<html>busy</html>"
        elif isinstance(mood, str):
            body = mood.encode()
        self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
