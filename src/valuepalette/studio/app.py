"""The web: the page, and JSON for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import BackgroundTasks, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from valuepalette.studio.asking import Adjusting, Asked, Reaching, Solving, faults_of
from valuepalette.studio.guarding import Guard
from valuepalette.studio.working import Busy, Lanes

__all__ = ["create_app"]

log = logging.getLogger("valuepalette.studio")

K = Annotated[int | None, Query(ge=1, le=100_000)]


def create_app(lanes: Lanes, hosts: Collection[str]) -> FastAPI:
    """An application that answers for a pilot; `hosts` are the names, with the port, that it goes by.

    The lanes are closed with it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        lanes.close()

    app = FastAPI(
        title="valuepalette studio", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    static = str(files("valuepalette") / "studio" / "static")

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(f"{static}/index.html")

    @app.get("/api/about")
    async def about(after: BackgroundTasks) -> Any:
        after.add_task(lanes.warm)  # once the page has what it opens with
        return await lanes.fast("about")

    @app.get("/api/alone")
    async def alone(k: K = None) -> Any:
        return await lanes.fast("alone", k)

    @app.get("/api/cohort")
    async def cohort(name: Annotated[str, Query(max_length=300)], k: K = None) -> Any:
        return await lanes.slow("of_cohort", name, k)

    @app.get("/api/prompts")
    async def prompts(find: Annotated[str, Query(max_length=300)] = "") -> Any:
        return await lanes.slow("prompts", find)

    @app.get("/api/answers")
    async def answers(prompt: Annotated[int, Query(ge=0)]) -> Any:
        return await lanes.fast("answers", prompt)

    @app.post("/api/solve")
    async def solve(asked: Solving) -> Any:
        return await lanes.fast("solve", asked)

    @app.post("/api/reach")
    async def reach(asked: Reaching) -> Any:
        return await lanes.slow("reach", asked)

    @app.post("/api/adjust")
    async def adjust(asked: Adjusting) -> Any:
        return await lanes.slow("adjust", asked)

    @app.post("/api/plan")
    async def plan(asked: Asked) -> Any:
        return await lanes.slow("plan", asked)

    @app.post("/api/export")
    async def export(asked: Asked) -> Any:
        return await lanes.slow("export", asked)

    app.mount("/static", StaticFiles(directory=static))
    app.add_exception_handler(ValueError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, _http)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(Busy, _busy)
    app.add_middleware(Guard, hosts=hosts)
    return app


def _refused(_: Request, error: Exception) -> Response:
    """A palette that makes no sense, in the one line that says why."""
    return JSONResponse({"error": str(error), "faults": faults_of(error)}, 422)


def _invalid(_: Request, error: RequestValidationError) -> Response:
    """What is wrong with a request, by field; what was given is not repeated."""
    first = error.errors()[0]
    where = ".".join(str(part)[:40] for part in first["loc"] if part != "body")
    return JSONResponse({"error": f"{where or 'the request'}: {first['msg']}"[:300], "faults": []}, 400)


def _http(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": str(error.detail), "faults": []}, error.status_code)


def _busy(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error), "faults": []}, 429)
