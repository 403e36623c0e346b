"""The process that serves: the socket, signals, and a decent end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from mdm.errors import MdmError
from uvicorn.protocols.http.h11_impl import H11Protocol

from mdm_serve.app import Service

HEAD_SECONDS = 60.0
"""Within which the head of a request has to arrive, on a connection that has begun or sent a part of it."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STUCK = 60_000
"""Milliseconds after which a connection is given up whose client reads nothing of what it is sent."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0 is any free one.

    Raises:
        MdmError: it cannot.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        raise MdmError(f"cannot listen at {host}, port {port}: {error.strerror}; see --host and --port") from None
    # What is accepted inherits these. Without the first, an answer's second write waits 40 ms for the client.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK)
    return found


def is_loopback(listener: socket.socket) -> bool:
    """Whether nobody but this machine's programs can reach it."""
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Where it listens, for a client on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Protocol(H11Protocol):
    """uvicorn's, but who does not finish the head of a request is not waited for."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read what has come, which may be the beginning of another request."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self.late is not None:
            self.late.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Begin to wait where a head is missing, and end where one is complete."""
        if self.conn.their_state is not h11.IDLE:
            if self.late is not None:
                self.late.cancel()
            self.late = None
        elif self.late is None:
            self.late = self.loop.call_later(HEAD_SECONDS, self.transport.close)


class Server(uvicorn.Server):
    """uvicorn's server with an end of our own: one signal drains and leaves with status 0, a second ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals within the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, or end at once."""
        if self.should_exit:
            os.write(2, b"mdm: ended at once\n")
            os._exit(128 + sig)  # a forward pass may take a while, and nothing else would end it
        self._service.draining = self.should_exit = True
        rows = self._service.worker.state.running + self._service.worker.waiting
        os.write(2, f"mdm: finishing {rows} rows; once more to end at once\n".encode())


def serve(app: FastAPI, service: Service, listener: socket.socket) -> None:
    """Serve until a signal, and then until what runs is done, or its time is over."""
    config = uvicorn.Config(
        app, http=Protocol, ws="none", loop="asyncio", lifespan="on", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=max(1, round(service.limits.timeout)),
    )  # fmt: skip
    Server(config, service).run([listener])


def log_to_stderr() -> None:
    """Show a line for each request, and uvicorn's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("mdm.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
