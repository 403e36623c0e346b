"""Who may ask, and what is noted of each request: hosts, keys, sizes of bodies, one line in the log."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import traceback
import uuid
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from mdm.errors import cause, one_line
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mdm_serve.errors import ApiError
from mdm_serve.limits import Limits
from mdm_serve.metrics import Metrics

log = logging.getLogger("mdm.serve")

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics")
"""Paths that the metrics tell apart."""
PROBES = ("/health", "/metrics")
"""Paths that are asked for every few seconds, by programs; the log is for the others."""
OPEN = ("/", "/health")
"""Paths without a key, beside the page's own files: who opens the page types the key there."""
BODY_SECONDS = 60.0
"""Within which a body has to arrive."""
WASTED = 16
"""Bodies of the largest size that are read and dropped, so that who sends too much can read why it is refused."""


class Guard:
    """Middleware: refuses who may not ask, and turns whatever the application raises into one line.

    A page of another site must neither read the model nor keep it busy. Its requests carry that site's name: in
    ``Origin``, or, where it points its own name to this machine, in ``Host``.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, name, status = time.perf_counter(), uuid.uuid4().hex[:12], 0
        state = scope.setdefault("state", {})
        state["id"], state["note"] = name, ""

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = name
            await send(message)

        try:
            try:
                self._check(scope)
                await self.app(scope, receive, noted)
            except ApiError as error:
                await error.response()(scope, receive, noted)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s failed: %s (%s:%s)", name, one_line(cause(error)), frame.filename, frame.lineno)
            if not status:  # an answer that has begun is cut short
                failure = ApiError(500, f"the server failed; its log has the reason under {name}")
                await failure.response()(scope, receive, noted)
        finally:
            self._note(scope, status, time.perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.limits.loopback and not _is_local(host):
            raise ApiError(403, f"the server listens for this machine alone, and was asked for as {host!r}")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, f"pages of {origin!r} may not ask this server")
        if self.limits.key is None or path in OPEN or path.startswith("/site/"):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode() if scheme.lower() == "bearer" else b""
        if not hmac.compare_digest(given, self.limits.key.encode()):
            message = "the key is wrong" if given else "a key is needed: Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = next((path for path in ENDPOINTS if scope["path"] == path), "other")
        self.metrics.requests.labels(endpoint, str(status)).inc()
        self.metrics.seconds.labels(endpoint).observe(seconds)
        state, asked = scope["state"], one_line(f"{scope['method']} {scope['path']}")[:200]
        level = logging.DEBUG if status == 200 and endpoint in PROBES else logging.INFO
        log.log(level, "%s %s %s %.3f s%s", state["id"], asked, status, seconds, state["note"])


def _is_local(host: str) -> bool:
    """Whether a Host header names this machine: localhost, or an address of the loopback."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def read_body(request: Request, largest: int) -> bytes:
    """A request's body.

    Raises:
        ApiError: it has more than ``largest`` bytes, or does not arrive in time.
        ClientDisconnect: the client has gone.
    """
    data, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= largest:
                    data += part
                elif size > largest * WASTED:
                    break
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {BODY_SECONDS:g} s", headers={"Connection": "close"}
        ) from None
    if size > largest:
        message = f"the body has more than {largest:,} bytes (--max-body)"
        raise ApiError(413, message, headers={"Connection": "close"})
    return bytes(data)


def shown(value: Any) -> str:
    """A prompt as a log shows it: one line of ASCII."""
    return json.dumps(value, default=lambda item: getattr(item, "__dict__", repr(item)))
