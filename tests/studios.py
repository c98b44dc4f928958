"""A studio on a port of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn

from valuepalette.pilot import Pilot
from valuepalette.studio.app import create_app
from valuepalette.studio.guarding import names_of
from valuepalette.studio.opening import Opened
from valuepalette.studio.running import bound
from valuepalette.studio.working import Lanes

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def synthetic(prompts: int = 2000, k: int = 16, seed: int = 0) -> Pilot:
    """Six values that pull against each other, and differ between prompts too."""
    rng = np.random.default_rng(seed)
    sign = np.array([1, 1, 1, -1, -1, 1])
    mix = np.linalg.cholesky(0.7 * np.eye(6) + 0.3 * np.outer(sign, sign))
    own = 0.7 * rng.normal(size=(prompts, 1, 6))
    values = (own + rng.normal(size=(prompts, k, 6)) @ mix.T).reshape(-1, 6)
    names = ("humor", "warmth", "brevity", "accuracy", "caution", "variety")
    return Pilot.from_arrays(
        dict(zip(names, values.T, strict=True)),
        prompts=[f"Prompt {i} of a synthetic pilot" for i in range(prompts) for _ in range(k)],
        responses=[f"Answer {j} to prompt {i}" for i in range(prompts) for j in range(k)],
    )


def opened(pilot: Pilot, **more: Any) -> Opened:
    return Opened(pilot, "a test", 'vp.Pilot.read("pilot.parquet")', **more)


@contextmanager
def studio(what: Opened, *, apart: bool = False) -> Iterator[str]:
    """The address of a studio, while it runs."""
    with bound(0) as door:
        port = door.getsockname()[1]
        app = create_app(Lanes(what, apart=apart), names_of(port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            assert thread.is_alive(), "the server ended"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
