"""The web: FastAPI around a gateway.

app = create_app(gateway)                     # the gateway starts and stops with it
other.mount("/aligned", create_app(gateway))  # the other's lifespan holds `async with gateway`
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from valuepalette.server.admitting import HungUp, Ticket, kept_alive, unless_gone
from valuepalette.server.answering import (
    SIGN,
    Completion,
    Failure,
    Rewards,
    as_events,
    chunks,
    forwarded,
    headers,
    whole,
)
from valuepalette.server.asking import ChatRequest, CompletionRequest, RewardRequest
from valuepalette.server.deciding import Wanted
from valuepalette.server.gateway import Gateway
from valuepalette.server.guarding import Guarded, http, invalid, refuse, unforeseen
from valuepalette.server.planning import Plan, summary
from valuepalette.server.policies import Refusal

__all__ = ["create_app"]

log = logging.getLogger("valuepalette.server")

_SAID: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "The request makes no sense here, or is not served by policy."},
    401: {"model": Failure, "description": "No key, or another."},
    403: {"model": Failure, "description": "Candidates are not shown here."},
    404: {"model": Failure, "description": "No such model or palette."},
    413: {"model": Failure, "description": "The request is too large."},
    422: {"model": Failure, "description": "The palette cannot be had: `proof`, and `nearest` that can."},
    429: {"model": Failure, "description": "Too many requests; Retry-After says when."},
    502: {"model": Failure, "description": "The model's server failed."},
    503: {"model": Failure, "description": "Aligned answers are not served now."},
    504: {"model": Failure, "description": "The deadline is over."},
}


def create_app(gateway: Gateway, *, key: str | None = None) -> FastAPI:
    """An application that serves a gateway, which it starts and stops; nothing of it is shared with another.

    key  the bearer token that every request but `/healthz` and `/readyz` must bring; None for no key
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = FastAPI(
        title="valuepalette", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, version="1"
    )
    app.state.gateway, app.state.key = gateway, key
    router = APIRouter(route_class=Guarded)
    said = {200: {"model": Completion}, **_SAID}
    router.post("/v1/chat/completions", responses=said)(_chat)
    router.post("/v1/completions", responses=said)(_complete)
    router.post("/v1/rewards", responses={200: {"model": Rewards}, **_SAID})(_rewards)
    router.get("/v1/models", responses={401: _SAID[401]})(_models)
    router.get("/metrics", response_class=Response, responses={401: _SAID[401]})(_metrics)
    router.get("/openapi.json", responses={401: _SAID[401]})(_openapi)
    app.include_router(router)
    app.get("/healthz")(_healthz)
    app.get("/readyz", responses={503: {"description": "Aligned answers are not served now."}})(_readyz)
    app.add_exception_handler(Refusal, refuse)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, invalid)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, http)  # pyright: ignore[reportArgumentType]
    return app


async def _chat(body: ChatRequest, request: Request) -> Response:
    """Answers to a conversation, each drawn among k candidates as the palette asks."""
    return await _answer(request, body)


async def _complete(body: CompletionRequest, request: Request) -> Response:
    """Continuations of texts, each drawn among k candidates as the palette asks."""
    return await _answer(request, body)


async def _answer(request: Request, body: ChatRequest | CompletionRequest) -> Response:
    gateway: Gateway = request.app.state.gateway
    began, label, outcome = perf_counter(), "none", "error"
    ticket = gateway.gate.admit()
    kept = False
    try:
        asked = body.read(chats=gateway.source.chats, texts=gateway.texts)
        plan = await gateway.plan(asked)
        label = plan.decision.label
        if gateway.policies.log_texts:
            log.info("prompts: %r", asked.prompts)
        outcome = "aligned" if not plan.reasons else "unaligned"
        if asked.stream:
            kept = True
            return _Events(gateway, plan, ticket)
        if plan.how == "forward":
            answer = await unless_gone(request.receive, gateway.forward(plan))
            report = summary(plan)
            return JSONResponse(forwarded(plan, answer, report), headers=headers(report))
        answered = await unless_gone(request.receive, gateway.answer(plan))
        if gateway.policies.log_texts:
            log.info("answers: %r", [answer.candidate.text for answer in answered.answers])
        outcome = "aligned" if answered.report["aligned"] else "unaligned"
        return JSONResponse(whole(plan, answered), headers=headers(answered.report))
    except Refusal as refusal:
        outcome = str(refusal.status)
        raise
    except HungUp:
        outcome = "hung up"
        return Response(status_code=499)
    finally:
        if not kept:
            ticket.release()
            gateway.meters.took("whole", perf_counter() - began)
            gateway.meters.served(label, outcome)
        log.info("%s %s %s %.3f s", request.url.path, label, outcome, perf_counter() - began)


class _Events(Response):
    """The answer as server-sent events, with signs of life until it is chosen; stops where the client hangs up."""

    def __init__(self, gateway: Gateway, plan: Plan, ticket: Ticket) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | headers(summary(plan)),
        )
        del self.headers["content-length"]
        self._gateway, self._plan, self._ticket = gateway, plan, ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        outcome = "unaligned" if self._plan.reasons else "aligned"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await unless_gone(receive, self._send(send))
            await send({"type": "http.response.body", "body": b""})
        except (HungUp, OSError):
            outcome = "hung up"
        finally:
            self._ticket.release()
            self._gateway.meters.served(self._plan.decision.label, outcome)
            self._gateway.meters.took("whole", perf_counter() - began)

    async def _send(self, send: Send) -> None:
        events = as_events(self._chunks())
        async for event in kept_alive(events, self._gateway.policies.keep_alive, SIGN):
            await send({"type": "http.response.body", "body": event, "more_body": True})

    async def _chunks(self) -> AsyncIterator[Mapping[str, Any]]:
        gateway, plan = self._gateway, self._plan
        try:
            if plan.how == "forward":
                report = summary(plan)
                async for chunk in gateway.stream(plan):
                    yield forwarded(plan, chunk, report)
                return
            answered = await gateway.answer(plan)
        except Refusal:
            raise
        except Exception as error:
            raise unforeseen(error) from None
        for chunk in chunks(plan, answered):
            yield chunk


async def _rewards(
    body: RewardRequest,
    request: Request,
    model: str | None = Query(None, description="As in the body, for a hook whose body is fixed."),
    beta: float | None = Query(None, allow_inf_nan=False),
    candidates: int | None = Query(None, description='k; "limit", for training, where none is given.'),
    end: str | None = Query(None, description='Cut from the end of responses, such as "</s>".'),
) -> Response:
    """β·λᵀf of responses to prompts, and each value: what reinforcement learning is to be given."""
    gateway: Gateway = request.app.state.gateway
    ticket = gateway.gate.admit()
    try:
        prompts, responses = body.exchanges(end)
        by_row: dict[str, list[Any]] = {}
        for name, entry in (body.columns or {}).items():
            by_row[name] = entry if isinstance(entry, list) else [entry] * len(prompts)
            if len(by_row[name]) != len(prompts):
                raise Refusal(400, "columns", f"columns[{name!r:.80}] must have an entry for each prompt")
        wanted = Wanted(
            body.model or model or gateway.decider.name,
            body.palette,
            body.candidates or candidates or "limit",
            dict.fromkeys(by_row, ""),
        )
        scale = next((given for given in (body.beta, beta) if given is not None), 1.0)
        rewards, values = await gateway.rewards(wanted, prompts, responses, by_row, scale)
        listed = rewards.tolist()
        if not all(map(math.isfinite, listed)):
            raise Refusal(400, "beta", f"beta must leave rewards finite, got {scale}")
        content = {name: numbers.tolist() for name, numbers in values.items()}
        return JSONResponse({"rewards": listed, "scores": listed, "extra_logs": content})
    finally:
        ticket.release()


def _models(request: Request) -> dict[str, Any]:
    """The base model, and one entry for each palette."""
    decider = request.app.state.gateway.decider
    names = [decider.name, *(f"{decider.name}/{palette}" for palette in decider.palettes)]
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": 0, "owned_by": "valuepalette"} for name in names],
    }


def _metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(
        request.app.state.gateway.meters.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _openapi(request: Request) -> dict[str, Any]:
    """This page of what can be asked."""
    return request.app.openapi()


def _healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


def _readyz(request: Request) -> Response:
    """Aligned answers are served; else why not."""
    gateway: Gateway = request.app.state.gateway
    trouble = gateway.trouble()
    content = {
        "ready": not trouble,
        "trouble": trouble,
        "canary": gateway.canary.state,
        "unaligned": gateway.different,
    }
    return JSONResponse(content, status_code=503 if trouble else 200)
