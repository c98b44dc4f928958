"""A pilot in memory, gateways on it, and a server that runs in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from fakes import FakeEngine, FakeReward, goats, variety
from valuepalette.engines import Engine, Sampling
from valuepalette.palette import Palette
from valuepalette.pilot import Pilot, PilotMetadata
from valuepalette.rewards import Reward
from valuepalette.server.app import create_app
from valuepalette.server.gateway import Gateway
from valuepalette.server.policies import Policies

SAMPLING = Sampling(max_new_tokens=12)
NAME = "support/bot"
"""With a slash, as hub ids have."""
PALETTES = {
    "funny": Palette({"goats": "reach 50%", "variety": "keep"}),
    "varied": Palette({"variety": "reach 60%"}),
    "short": Palette({"length": "<= reach 60%"}),
    "impossible": Palette({"goats": ">= 50"}),
    "kids": Palette({"goats": "keep"}, cohorts={"audience=children": {"variety": "reach 30%"}}),
}


def rewards() -> dict[str, Reward]:
    return {
        "goats": FakeReward("goats", goats),
        "variety": FakeReward("variety", variety),
        "length": FakeReward("length", lambda text: len(text.split())),
    }


def pilot(engine: Engine | None = None, prompts: int = 40, k: int = 8, seed: int = 0) -> Pilot:
    """Candidates of fresh prompts, scored, with all that a gateway compares."""
    engine = engine or FakeEngine()
    texts = [f"Say {i} of pilot {seed}." for i in range(prompts)]
    drawn = engine.sample(texts, k, sampling=SAMPLING, seed=seed)
    said = [candidate.text for own in drawn for candidate in own]
    asked = [text for text in texts for _ in range(k)]
    values, about = {}, {}
    for name, reward in rewards().items():
        values[name] = reward.score(asked, said)[:, 0]
        column = reward.columns[0]
        about[name] = {
            "definition": column.definition,
            "version": reward.version,
            "scale": column.scale,
            "reward": name,
        }
    sampling = asdict(SAMPLING)
    return Pilot.from_arrays(
        values,
        prompts=asked,
        responses=said,
        columns={"audience": np.repeat(np.array(["children", "adults"])[np.arange(prompts) % 2], k)},
        metadata=PilotMetadata(
            dict(engine.fingerprint), sampling, sampling.pop("system_prompt"), seed, about
        ),
    )


def gateway(
    own: Pilot | None = None,
    engine: Engine | None = None,
    scored: Mapping[str, Reward] | None = None,
    *,
    candidates: int = 4,
    palettes: Mapping[str, Palette] = PALETTES,
    floors: Palette | None = None,
    on_served: Any = None,
    sampling: Sampling | None = None,
    **policies: Any,
) -> Gateway:
    return Gateway(
        pilot() if own is None else own,
        engine or FakeEngine(),
        rewards() if scored is None else scored,
        name=NAME,
        palettes=palettes,
        candidates=candidates,
        floors=floors,
        sampling=sampling,
        policies=Policies(**policies),
        on_served=on_served,
    )


@asynccontextmanager
async def client(made: Gateway, key: str | None = None, **headers: str) -> Any:
    """Speaks with a gateway inside this process."""
    async with made:
        app = create_app(made, key=key)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as found:
            yield found


def ask(made: Gateway, *bodies: Mapping[str, Any], path: str = "/v1/chat/completions") -> Any:
    """The answers to requests, all sent at once; the one answer where there is one request."""

    async def all_of_them() -> list[httpx.Response]:
        async with client(made) as speaker:
            return await asyncio.gather(*(speaker.post(path, json=body) for body in bodies))

    found = asyncio.run(all_of_them())
    return found if len(bodies) > 1 else found[0]


def chat(name: str | None = "funny", /, text: str = "Say it.", **more: Any) -> dict[str, Any]:
    model = NAME if name is None else f"{NAME}/{name}"
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The base URL of an application on a port of its own, while it runs."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        assert thread.is_alive(), "the server ended"
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join(20)
