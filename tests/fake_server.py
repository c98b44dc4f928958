"""A server that speaks OpenAI's protocol, with words drawn by a hash, and with every vice one asks of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fakes import FakeEngine
from valuepalette.engines import Candidate, Sampling

MODEL = "word-machine"


@dataclass
class Behaviour:
    """What the server can do, and what it does to its next requests.

    several   candidates a request at most; 1 ignores `n`, 0 refuses it
    logprobs  gives them where asked; refuses where not
    top_k     takes it; refuses where not
    renamed   calls max_tokens max_completion_tokens, as hosted models do
    usage     tells tokens
    next      what the next requests get instead: a status, "slow", "cut", "text", "empty", "close"
    """

    several: int = 100
    logprobs: bool = True
    top_k: bool = True
    renamed: bool = False
    usage: bool = True
    next: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    busy: int = 0
    busiest: int = 0
    delay: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The server's base URL, while it runs."""
    handler = type("Handler", (_Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        behaviour = self.behaviour
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with behaviour.lock:
            behaviour.requests.append(asked)
            behaviour.keys.add(self.headers.get("Authorization"))
            behaviour.busy += 1
            behaviour.busiest = max(behaviour.busiest, behaviour.busy)
            mood = behaviour.next.pop(0) if behaviour.next else None
        try:
            time.sleep(behaviour.delay)
            self._answer(asked, mood)
        finally:
            with behaviour.lock:
                behaviour.busy -= 1

    def _answer(self, asked: dict[str, Any], mood: Any) -> None:
        behaviour = self.behaviour
        if mood == "close":
            self.close_connection = True
            self.connection.close()
            return
        if mood == "slow":
            time.sleep(3.0)
        if isinstance(mood, int):
            self._refuse(mood, "not now", after=0.02 if mood == 429 else None)
            return
        if asked.get("n", 1) > 1 and behaviour.several == 0:
            self._refuse(400, "this server takes one candidate a request", parameter="n")
        elif "max_tokens" in asked and behaviour.renamed:
            self._refuse(400, "Use 'max_completion_tokens' instead.", parameter="max_tokens")
        elif "top_k" in asked and not behaviour.top_k:
            self._refuse(400, "Unrecognized request argument supplied: top_k")
        elif _wants_logprobs(asked) and not behaviour.logprobs:
            self._refuse(400, "logprobs are not supported by this model", parameter="logprobs")
        else:
            self._send(200, self._completion(asked), mood)

    def _completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        behaviour, chat = self.behaviour, self.path.endswith("/chat/completions")
        prompt = asked["messages"] if chat else asked["prompt"]
        sampling = Sampling(max_new_tokens=asked.get("max_tokens") or asked["max_completion_tokens"])
        n = min(asked.get("n", 1), max(behaviour.several, 1))
        drawn = FakeEngine().sample([str(prompt)], n, sampling=sampling, seed=asked["seed"], logprobs=True)[0]
        choices = [self._choice(each, index, asked, chat) for index, each in enumerate(drawn)]
        total = sum(each.tokens for each in drawn)
        usage = {"completion_tokens": total, "prompt_tokens": 5, "total_tokens": total + 5}
        return {"model": asked["model"], "choices": choices, **({"usage": usage} if behaviour.usage else {})}

    def _choice(self, drawn: Candidate, index: int, asked: dict[str, Any], chat: bool) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": drawn.text}} if chat else {"text": drawn.text}
        chances = [(drawn.logprob or 0.0) / drawn.tokens] * drawn.tokens
        told: Any = None
        if _wants_logprobs(asked):
            told = (
                {"content": [{"token": "x", "logprob": chance} for chance in chances]}
                if chat
                else {"token_logprobs": chances}
            )
        return {"index": index, **said, "finish_reason": drawn.finish_reason, "logprobs": told}

    def _refuse(
        self, status: int, said: str, parameter: str | None = None, after: float | None = None
    ) -> None:
        self._send(status, {"error": {"message": said, "param": parameter}}, None, after)

    def _send(self, status: int, content: dict[str, Any], mood: Any, after: float | None = None) -> None:
        body = json.dumps(content).encode()
        if mood == "cut":
            body = body[: len(body) // 2]
        elif mood == "text":
            body = b"<html>busy</html>"
        elif mood == "empty":
            body = json.dumps({**content, "choices": []}).encode()
        self.send_response(status)
        if after is not None:
            self.send_header("Retry-After", str(after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _wants_logprobs(asked: dict[str, Any]) -> bool:
    """A chat asks by true, a completion by how many alternatives it wants beside, which may be 0."""
    return asked.get("logprobs") is not None and asked["logprobs"] is not False
