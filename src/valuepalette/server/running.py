"""From a study to a gateway that serves."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuepalette.server.policies import Policies
from valuepalette.solution import Solution
from valuepalette.study import Study

if TYPE_CHECKING:
    from valuepalette.server.gateway import Gateway
    from valuepalette.server.recording import Recorder
    from valuepalette.server.selecting import Served

__all__ = ["KEY", "check_installed", "opened", "recording", "serve"]

KEY = "VALUEPALETTE_KEY"
"""The variable of the environment that holds the bearer key, unless a study names another."""

_PLACES = ("name", "host", "port", "key", "candidates", "floors", "solutions")


def check_installed() -> None:
    """ModuleNotFoundError with the command where a package that serving needs is missing."""
    for package in ("fastapi", "uvicorn", "httpx", "prometheus_client"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f'serving needs {package}: pip install "valuepalette[serve]"', name=package
            )


@contextmanager
def opened(study: Study, on_served: Callable[[Served], object] | None = None) -> Iterator[Gateway]:
    """The gateway of a study that is sampled and scored; engine and rewards are open as long as it is.

    It is not started: `async with gateway`, or `create_app(gateway)`, which does that.
    """
    check_installed()
    from valuepalette.server.gateway import Gateway

    told, settings = study.settings.serve, study.settings
    pilot = study.pilot()
    checks = study.checks(pilot)
    wanted = settings.solve.get("candidates")
    with ExitStack() as stack:
        engine = study.engine()
        stack.callback(engine.close)
        rewards = {}
        for name in study.rewards:
            if name not in settings.checks:
                rewards[name] = study.reward(name)
                stack.callback(rewards[name].close)
        gateway = Gateway(
            pilot,
            engine,
            rewards,
            name=told.get("name", settings.model),
            palettes=settings.palettes,
            floors=told.get("floors"),
            candidates=told.get("candidates") or (wanted if isinstance(wanted, int) else None),
            sampling=settings.sampling,
            policies=Policies(**{name: entry for name, entry in told.items() if name not in _PLACES}),
            weighting=settings.solve.get("weighting", "prompts"),
            seed=settings.seed,
            checks=checks,
            solutions={
                name: Solution.load(settings.path.parent / path)
                for name, path in told.get("solutions", {}).items()
            },
            on_served=on_served,
        )
        if settings.monitor.get("record") or settings.monitor.get("watch"):
            stack.enter_context(recording(gateway, study.folder / "traffic", settings.monitor))
        yield gateway


@contextmanager
def recording(gateway: Gateway, folder: Path, told: Mapping[str, Any]) -> Iterator[Recorder]:
    """Keeps and watches what a gateway serves, as `[monitor]` says; what it tells already, it is told as well."""
    from valuepalette.monitoring import Watch
    from valuepalette.server.exposing import Exposed
    from valuepalette.server.recording import Parts, Recorder
    from valuepalette.traffic import Layout

    pilot, values, parts, watch = gateway.pilot, gateway.scorer.columns, None, None
    if told.get("record"):
        layout = Layout(values, pilot.columns, pilot.metadata, bool(told.get("texts")))
        names = {"groups": "part_groups", "seconds": "part_seconds", "megabytes": "megabytes"}
        parts = Parts(folder, layout, **{name: told[key] for name, key in names.items() if key in told})
    if told.get("watch", True):
        names = ("confidence", "tolerance", "window")
        watch = Watch(
            pilot, values, weighting=gateway.weighting, **{key: told[key] for key in names if key in told}
        )
    before = gateway.on_served
    with Recorder(parts, watch, **{key: told[key] for key in ("sample", "queue") if key in told}) as recorder:
        gateway.meters.add(exposed := Exposed(recorder))

        def both(served: Served) -> None:
            recorder(served)
            if before is not None:
                before(served)

        gateway.on_served = both
        try:
            yield recorder
        finally:
            gateway.on_served = before
            gateway.meters.remove(exposed)


def serve(study: Study, *, host: str | None = None, port: int | None = None) -> None:
    """Serves a study until it is stopped.

    Raises ValueError where there is no key and the host is more than this machine, or where the study names a
    variable for the key that is not set.
    """
    check_installed()
    import uvicorn

    from valuepalette.server.app import create_app

    told: Any = study.settings.serve
    at: str = host or told.get("host", "127.0.0.1")
    key = key_of(told.get("key"), at)
    with opened(study) as gateway:
        uvicorn.run(
            create_app(gateway, key=key),
            host=at,
            port=port or told.get("port", 8000),
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=10,
        )


def key_of(variable: str | None, host: str) -> str | None:
    """The bearer key; None where nobody named one and only this machine can ask."""
    key = os.environ.get(variable or KEY)
    if key:
        return key
    if variable is not None:
        raise ValueError(f"[serve] key names {variable}, which must be set in the environment; it is not")
    if not _local(host):
        raise ValueError(
            f"host must be this machine alone, such as 127.0.0.1, where {KEY} is not set, got {host}"
        )
    return None


def _local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
