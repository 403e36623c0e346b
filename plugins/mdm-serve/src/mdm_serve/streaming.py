"""Answers on their way: what happens to a request's rows becomes one answer, or a stream of events (SSE)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from mdm.runs.files import to_json
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mdm_serve.answers import Answer
from mdm_serve.errors import ApiError
from mdm_serve.worker import Begun, Call, Canvas, Ended, Event, Failed, Gone, Piece

QUIET = 15.0
"""Seconds after which a stream says that it is still there: an empty comment, for whatever lies between."""
SLACK = 10.0
"""Seconds that the decoder gets to notice for itself that a request's time is over."""
CLIENT_GONE = 499
"""The status that the log and the metrics have for a client that went away."""

Done = Callable[[list[Ended]], None]


def watch(call: Call, receive: Receive) -> asyncio.Task[None]:
    """Close a call as soon as its client goes away."""

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call.put(Gone())
        call.close()

    return asyncio.create_task(until_gone())


async def begun(call: Call) -> Begun | None:
    """The canvases that a call begins with; None where the client has gone.

    Raises:
        ApiError: the request is refused.
    """
    event = await call.events.get()
    if isinstance(event, Failed):
        raise event.error
    return event if isinstance(event, Begun) else None


async def whole(call: Call, answer: Answer, begin: Begun, done: Done) -> Response:
    """The answer in one.

    Raises:
        ApiError: a row could not be decoded.
    """
    traces = [_canvas(canvas) | {"choice": i, "lines": []} for i, canvas in enumerate(begin.canvases)]
    ends: dict[int, Ended] = {}
    while len(ends) < call.job.rows:
        event = await call.events.get()
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Gone):
            return Response(status_code=CLIENT_GONE)
        if isinstance(event, Piece):
            if event.lines:
                traces[event.choice]["lines"] += event.lines
            if event.ended is not None:
                ends[event.choice] = event.ended
    in_order = [ends[choice] for choice in range(call.job.rows)]
    done(in_order)
    return Response(to_json(answer.whole(in_order, traces)), media_type=JSONResponse.media_type)


class EventStream(Response):
    """A stream of server-sent events; whatever ends it, its call is closed then.

    Args:
        seconds: the longest that it may take.
        done: told how the choices ended, where they did.
    """

    def __init__(self, call: Call, answer: Answer, begin: Begun, seconds: float, done: Done) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._call, self._answer, self._begin, self._seconds, self._done = call, answer, begin, seconds, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        watcher = watch(self._call, receive)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for data in self._events():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            watcher.cancel()
            self._call.close()

    async def _events(self) -> AsyncIterator[bytes]:
        answer, ends = self._answer, dict[int, Ended]()
        for choice, canvas in enumerate(self._begin.canvases):
            yield _event(answer.event(choice=choice, **_canvas(canvas)), "canvas")
        if answer.kind == "chat":
            for choice in range(self._call.job.rows):
                yield _event(answer.role(choice))
        until = asyncio.get_running_loop().time() + self._seconds
        while len(ends) < self._call.job.rows:
            event = await self._next(until)
            if event is None:
                yield b": still there\n\n"
            elif isinstance(event, Failed):
                yield _event(event.error.body)
                return
            elif isinstance(event, Gone):
                return
            elif isinstance(event, Piece):
                if event.lines:
                    yield _event(answer.event(choice=event.choice, lines=event.lines), "draft")
                if event.text:
                    yield _event(answer.text(event.choice, event.text))
                if event.ended is not None:
                    ends[event.choice] = event.ended
                    yield _event(answer.end(event.choice, event.ended))
        in_order = [ends[choice] for choice in range(self._call.job.rows)]
        self._done(in_order)
        if self._call.job.include_usage:
            yield _event(answer.total(in_order))
        yield b"data: [DONE]\n\n"

    async def _next(self, until: float) -> Event | None:
        """What happens next; None where that is a while."""
        left = until - asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(self._call.events.get(), min(QUIET, max(left, 0)))
        except TimeoutError:
            return None if left > QUIET else Failed(ApiError(504, "not done in time", code="timeout"))


def _canvas(canvas: Canvas) -> dict[str, Any]:
    return {"prompt_tokens": canvas.prompt_tokens, "texts": canvas.texts}


def _event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {to_json(data)}\n\n".encode()
