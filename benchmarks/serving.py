"""What the gateway adds: latency, throughput and memory, beside a best-of-n proxy of a few lines.

A model's server that answers at once, the gateway, a plain best-of-n proxy and the client are four processes on one
machine. Each request asks for one answer of k = 8 candidates, scored by diversity and length. "direct" asks the model's
server for the 8 candidates and nothing else, so the difference to it is what stands between.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

K = 8
MODEL = "words"
WORDS = ["the", "sun", "rose", "over", "a", "quiet", "hill", "and", "nobody", "laughed", "at", "goat", "sang"]
ALONE, TOGETHER, MANY = 400, 1600, 6000
WORKERS = 16


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    """The body of an HTTP message; None at the end of the line."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next(
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    )
    return await reader.readexactly(length)


async def _upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while (body := await _request(reader)) is not None:
        asked = json.loads(body)
        rng = random.Random(asked.get("seed", 0))
        choices = [
            {
                "index": i,
                "message": {
                    "role": "assistant",
                    "content": " ".join(rng.choices(WORDS, k=rng.randint(4, 20))),
                },
                "finish_reason": "stop",
            }
            for i in range(asked.get("n", 1))
        ]
        usage = {"completion_tokens": 12 * len(choices), "prompt_tokens": 5, "total_tokens": 5}
        said = json.dumps({"choices": choices, "usage": usage}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
        )
        writer.write(said)
        await writer.drain()
    writer.close()


def upstream(port: int, _: int) -> None:
    """The model's server."""

    async def forever() -> None:
        server = await asyncio.start_server(_upstream, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(forever())


def pilot_of(engine: Any, rewards: dict[str, Any], k: int) -> Any:
    """k candidates of 64 prompts, scored, with all that a gateway compares."""
    import numpy as np

    import valuepalette as vp
    from valuepalette.pilot import PilotMetadata

    sampling, prompts = vp.Sampling(), [f"Tell {i}." for i in range(64)]
    drawn = engine.sample(prompts, k, sampling=sampling, seed=0)
    asked, said = [p for p in prompts for _ in range(k)], [c.text for own in drawn for c in own]
    about = {
        name: {
            "definition": column.definition,
            "version": reward.version,
            "scale": column.scale,
            "reward": name,
        }
        for name, reward in rewards.items()
        for column in reward.columns
    }
    told = asdict(sampling)
    return vp.Pilot.from_arrays(
        {name: np.ravel(reward.score(asked, said)) for name, reward in rewards.items()},
        prompts=asked,
        responses=said,
        metadata=PilotMetadata(dict(engine.fingerprint), told, told.pop("system_prompt"), 0, about),
    )


def gateway(port: int, behind: int) -> None:
    """The gateway on a pilot of that model."""
    import uvicorn

    import valuepalette as vp
    from valuepalette.engines.openai import OpenAIEngine
    from valuepalette.server.app import create_app
    from valuepalette.server.gateway import Gateway

    engine = OpenAIEngine(MODEL, base_url=f"http://127.0.0.1:{behind}/v1", key="")
    rewards = {name: vp.open_reward(name, name) for name in ("diversity", "length")}
    pilot = pilot_of(engine, rewards, 2 * K)
    palettes = {"varied": vp.Palette({"diversity": "reach 40%", "length": "keep"})}
    made = Gateway(pilot, engine, rewards, name=MODEL, palettes=palettes, candidates=K)
    uvicorn.run(create_app(made), port=port, log_level="error", ws="none")


def proxy(port: int, behind: int) -> None:
    """What one would write instead: the best of n by the sum of the same rewards."""
    import httpx
    import uvicorn
    from fastapi import FastAPI

    import valuepalette as vp

    app, client = FastAPI(), httpx.AsyncClient()
    rewards = [vp.open_reward(name, name) for name in ("diversity", "length")]

    @app.post("/v1/chat/completions")
    async def best_of_n(body: dict[str, Any]) -> Any:
        url = f"http://127.0.0.1:{behind}/v1/chat/completions"
        answer = (await client.post(url, json={**body, "n": K, "model": MODEL})).json()
        texts = [choice["message"]["content"] for choice in answer["choices"]]
        prompts = [body["messages"][-1]["content"]] * K
        scores = sum(reward.score(prompts, texts)[:, 0] for reward in rewards)
        return {**answer, "choices": [answer["choices"][int(scores.argmax())]]}  # type: ignore[union-attr]

    uvicorn.run(app, port=port, log_level="error", ws="none")


async def asked_of(port: int, model: str, n: int, requests: int, workers: int) -> tuple[list[float], float]:
    """Seconds of each request, and requests a second."""
    left, took = iter(range(requests)), list[float]()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            turns = [{"role": "user", "content": f"Say {number}."}]
            body = json.dumps({"model": model, "messages": turns, "n": n, "seed": number}).encode()
            began = time.perf_counter()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = await _request(reader)
            took.append(time.perf_counter() - began)
            assert answer is not None
            assert b'"choices"' in answer, answer
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return took, requests / (time.perf_counter() - began)


def measured(port: int, model: str, n: int) -> list[float]:
    """Quantiles of the latency of requests one after another, in ms; requests a second of many workers."""
    asyncio.run(asked_of(port, model, n, 50, 1))
    took, _ = asyncio.run(asked_of(port, model, n, ALONE, 1))
    took.sort()
    _, rate = asyncio.run(asked_of(port, model, n, TOGETHER, WORKERS))
    return [1000 * took[int(share * len(took))] for share in (0.5, 0.95, 0.99)] + [rate]


def resident(process: Any) -> float:
    """MB of memory that a process holds."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def started(target: Callable[[int, int], None], behind: int = 0) -> tuple[Any, int]:
    """A server in a process of its own, once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=target, args=(port, behind), daemon=True)
    process.start()
    for _ in range(600):
        with socket.socket() as line:
            if line.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.1)
    raise TimeoutError(f"{target.__name__} did not start")


def run() -> str:
    source, behind = started(upstream)
    served, front = started(gateway, behind)
    plain, beside = started(proxy, behind)
    try:
        rows = {
            "direct": measured(behind, MODEL, K),
            "best-of-n proxy": measured(beside, MODEL, 1),
            "gateway": measured(front, f"{MODEL}/varied", 1),
        }
        before = resident(served)
        asyncio.run(asked_of(front, f"{MODEL}/varied", 1, MANY, WORKERS))
        after = resident(served)
    finally:
        for process in (source, served, plain):
            process.terminate()
    lines = ["| | p50 ms | p95 ms | p99 ms | requests a second |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {name} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {rate:.0f} |"
        for name, (p50, p95, p99, rate) in rows.items()
    ]
    about = (__doc__ or "").partition("\n\n")[2]
    return "\n".join(
        [
            about,
            *lines,
            "",
            f"Latency of {ALONE} requests one after another; rate of {TOGETHER} with {WORKERS} at a time. The "
            f"gateway's memory: {before:.0f} MB before, {after:.0f} MB after {MANY:,} more requests.",
        ]
    )
