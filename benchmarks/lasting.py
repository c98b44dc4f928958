"""Memory of a gateway over 100,000 requests.

The gateway's web application in one process with its clients, which speak ASGI to it without a network, and a model
that answers at once. Each request asks for one answer of k = 8 candidates, scored by diversity and length, by one of
three palettes; one in a hundred brings a palette of its own, always another, so that what is solved and kept is
replaced several times over. All is recorded and watched, 20 MB of parts at most. The process's memory is read after
every 10,000 requests.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving import pilot_of

K, REQUESTS, EVERY, WORKERS = 8, 100_000, 10_000, 8
WORDS = ["the", "sun", "rose", "over", "a", "quiet", "hill", "and", "nobody", "laughed", "at", "goat", "sang"]
ODD = 100
"""One request in so many brings a palette of its own."""


class Words:
    """A model that answers at once."""

    fingerprint: Mapping[str, str] = {"model": "words", "revision": "1", "template": "none", "dtype": "none"}

    def sample(
        self, prompts: Sequence[Any], k: int, *, sampling: Any, seed: int, logprobs: bool = False
    ) -> list[Any]:
        from valuepalette import Candidate

        rng = random.Random(f"{seed} {prompts[0]}")
        return [
            [Candidate(" ".join(rng.choices(WORDS, k=rng.randint(4, 20))), 12, "stop") for _ in range(k)]
            for _ in prompts
        ]

    def close(self) -> None:
        """Nothing is open."""


def _gateway() -> Any:
    import valuepalette as vp
    from valuepalette.server.gateway import Gateway

    rewards = {name: vp.open_reward(name, name) for name in ("diversity", "length")}
    engine = Words()
    pilot = pilot_of(engine, rewards, 2 * K)
    palettes = {
        "varied": vp.Palette({"diversity": "reach 40%", "length": "keep"}),
        "short": vp.Palette({"length": "<= reach 40%"}),
        "long": vp.Palette({"length": "reach 40%"}),
    }
    return Gateway(pilot, engine, rewards, name="words", palettes=palettes, candidates=K)


def _bodies() -> Any:
    names = ("varied", "short", "long")
    for number in range(REQUESTS):
        turns = [{"role": "user", "content": f"Say {number}."}]
        body = {"model": f"words/{names[number % 3]}", "messages": turns, "seed": number}
        if number % ODD == 0:
            share = 0.05 * (number // ODD)
            body |= {"model": "words", "palette": {"length": f"reach {share:.2f}%"}}
        yield json.dumps(body).encode()


async def _post(app: Any, body: bytes) -> int:
    """One request, without a network; the status."""
    left = [{"type": "http.request", "body": body, "more_body": False}]
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop()
        return await asyncio.get_running_loop().create_future()  # a client that waits

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    path = "/v1/chat/completions"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
    }
    await app({**scope, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}, receive, send)
    return found[0]


def _resident() -> float:
    """MB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _served(made: Any, recorder: Any, told: Any) -> None:
    from valuepalette.server.app import create_app

    app, bodies, count, began = create_app(made), _bodies(), 0, time.perf_counter()

    async def work() -> None:
        nonlocal count
        for body in bodies:
            status = await _post(app, body)
            assert status == 200, status
            count += 1
            if count == 1000 or count % EVERY == 0:
                told.send((count, _resident(), time.perf_counter() - began, dict(recorder.fates)))

    async with made:
        await asyncio.gather(*(work() for _ in range(WORKERS)))
    told.send(None)


def _process(told: Any) -> None:
    from valuepalette.server.running import recording

    with tempfile.TemporaryDirectory() as folder:
        made = _gateway()
        with recording(made, Path(folder), {"record": True, "megabytes": 20}) as recorder:
            asyncio.run(_served(made, recorder, told))


def run() -> str:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    rows: list[tuple[int, float, float, dict[str, int]]] = []
    while (row := ours.recv()) is not None:
        rows.append(row)
    process.join()
    lines = ["| requests | MB | seconds |", "|---:|---:|---:|"]
    lines += [f"| {count:,} | {memory:.0f} | {seconds:.0f} |" for count, memory, seconds, _ in rows]
    fates = rows[-1][3]
    apart = rows[-1][1] - next(memory for count, memory, *_ in rows if count == 2 * EVERY)
    said = [f"{fates.get(fate, 0):,}" for fate in ("kept", "dropped", "lost")]
    return "\n".join(
        [
            (__doc__ or "").partition("\n\n")[2],
            *lines,
            "",
            f"From 20,000 requests to {REQUESTS:,} the memory changed by {apart:+.0f} MB. By then {said[0]} "
            f"groups were on the disk, {said[1]} were dropped and {said[2]} lost; the others waited for their part.",
        ]
    )
