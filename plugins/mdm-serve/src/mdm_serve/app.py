"""The application: OpenAI's endpoints over one worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from mdm import api
from mdm.protocols.settings import DEFAULT_GEN_LENGTH
from mdm.runs.decode_args import decode_settings
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from mdm_serve import page
from mdm_serve.answers import Answer, Kind
from mdm_serve.describe import describe
from mdm_serve.errors import ApiError, draining, queue_full, timed_out
from mdm_serve.guard import Guard, read_body, shown
from mdm_serve.limits import Limits
from mdm_serve.metrics import Metrics
from mdm_serve.schema import SETTINGS, Chat, Completion, chat_job, completion_job, parse
from mdm_serve.streaming import CLIENT_GONE, SLACK, EventStream, begun, watch, whole
from mdm_serve.worker import Ended, Worker

if TYPE_CHECKING:
    from mdm.models.model import Model
    from mdm.runs.config import DecodeConfig

log = logging.getLogger("mdm.serve")


@dataclass
class Service:
    """One model that is served."""

    name: str
    """What requests call it."""
    worker: Worker
    defaults: Mapping[str, Any]
    """Arguments of ``mdm.decode`` that hold where a request says nothing."""
    limits: Limits
    draining: bool = False
    """Whether the server is about to end."""


def arguments_of(config: DecodeConfig, model: Model) -> dict[str, Any]:
    """The arguments of ``mdm.decode`` that a configuration fixes for all requests."""
    length = {} if config.gen_length is None else {"gen_length": config.gen_length}
    return decode_settings(config, model, next(iter(config.sampler), "")) | length


def make_service(
    model: Model, name: str, arguments: Mapping[str, Any], limits: Limits, *, row_tokens: int | None = None
) -> Service:
    """A model with the thread that runs it; ``service.worker.open()`` starts that.

    Args:
        arguments: of ``mdm.decode``, which hold for all requests that do not say otherwise.
        row_tokens: tokens of all canvases that are decoded at once; None: by the memory.

    Raises:
        MdmError: the model has no tokenizer.
    """
    _ = model.text
    model.name = name  # clients are told no paths
    defaults = {"gen_length": DEFAULT_GEN_LENGTH} | dict(arguments)
    of_session = {key: value for key, value in defaults.items() if key not in ("trace", "unconditional")}
    worker = Worker(
        model, partial(api.open_session, model, row_tokens=row_tokens, **of_session), Metrics(),
        timeout=limits.timeout, gen_length=defaults["gen_length"], max_length=limits.max_length,
    )  # fmt: skip
    return Service(name, worker, defaults, limits)


def make_app(service: Service) -> FastAPI:
    """The application, which closes the worker when it ends."""
    started, worker = int(time.time()), service.worker

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(worker.open)
        worker.attach(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(
        title="mdm", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.add_middleware(Guard, limits=service.limits, metrics=worker.metrics)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        words = {404: f"there is no {request.url.path} here", 405: f"{request.method} is not for {request.url.path}"}
        message = words.get(error.status_code, str(error.detail))
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _answer(service, request, "chat")

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await _answer(service, request, "text")

    card = {"id": service.name, "object": "model", "created": started, "owned_by": "mdm"}

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != service.name:
            raise ApiError(404, f"there is no model {name!r} here", param="model", code="model_not_found")
        return JSONResponse(card)

    @app.get("/health")
    async def health() -> Response:
        state = "draining" if service.draining else "ok" if worker.alive else "failed"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    about = describe(service.name, worker.model, page_defaults(service))
    app.include_router(page.router(lambda: about))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(worker.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def page_defaults(service: Service) -> dict[str, Any]:
    """Fields of a body -> what a request gets that leaves them out; None where the model or the sampler decides."""
    names = (*SETTINGS, "sampler", "sampler_options", "cache", "cache_options")
    return {"max_tokens": service.worker.gen_length} | {name: service.defaults.get(name) for name in names}


async def _answer(service: Service, request: Request, kind: Kind) -> Response:
    """The answer to a request, whole or as a stream."""
    limits, worker = service.limits, service.worker
    try:
        data = await read_body(request, limits.max_body)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    if kind == "chat":
        job = chat_job(parse(Chat, data, service.name), service.defaults)
    else:
        job = completion_job(parse(Completion, data, service.name), service.defaults)
    if limits.log_prompts:
        log.info("%s asks %s", request.state.id, shown({"prompts": job.prompts, "suffix": job.suffix}))
    if service.draining or not worker.alive:
        raise draining()
    if worker.waiting and worker.waiting + job.rows > limits.queue:
        raise queue_full(worker.waiting)
    answer = Answer(kind, service.name, job, service.defaults)

    def done(ends: list[Ended]) -> None:
        usage, costs = answer.usage([end.result for end in ends]), answer.costs([end.result for end in ends])
        request.state.note = (
            f", {usage['prompt_tokens']} + {usage['completion_tokens']} tokens, {costs['forwards']} forwards"
        )

    call = worker.submit(job)
    watcher = watch(call, request.receive)
    streams = False
    try:
        async with asyncio.timeout(limits.timeout + SLACK):
            begin = await begun(call)
            if begin is None:
                return Response(status_code=CLIENT_GONE)
            streams = job.stream
            if not streams:
                return await whole(call, answer, begin, done)
        return EventStream(call, answer, begin, limits.timeout + SLACK, done)
    except TimeoutError:
        raise timed_out(limits.timeout) from None
    finally:
        watcher.cancel()
        if not streams:
            call.close()
