"""A server of the built-in model for all tests of this package, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from json import dumps, loads
from typing import Any

import mdm
import pytest
import uvicorn
from mdm_serve import server
from mdm_serve.app import Service, make_app, make_service
from mdm_serve.limits import Limits

DEFAULTS = {"sampler": "confidence", "sampler_options": {}, "cache": "none", "batch_size": 4}


@dataclass
class Running:
    """A server that runs."""

    service: Service
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, document (bytes where it is no JSON) and headers of an answer; ``body`` is JSON, or bytes."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else dumps(body).encode()
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, headers or {})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, loads(text) if is_json else text, {k.lower(): v for k, v in answer.getheaders()}

    def settled(self) -> bool:
        """Whether every row and every connection is gone, within some seconds."""
        worker = self.service.worker
        for _ in range(500):
            if not (worker.waiting or worker.state.running or worker.state.row_tokens or worker._rows):
                return True
            time.sleep(0.02)
        return False


@contextmanager
def running(model: Any, limits: Limits, **defaults: Any) -> Iterator[Running]:
    """A server in a thread."""
    service = make_service(model, "tiny", DEFAULTS | defaults, limits)
    with server.listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            make_app(service), http=server.Protocol, ws="none", lifespan="on", log_config=None, access_log=False
        )
        process = server.Server(config, service)
        thread = threading.Thread(target=process.run, args=([listener],))
        thread.start()
        while not process.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield Running(service, listener.getsockname()[1])
        finally:
            process.should_exit = True
            thread.join(30)
    assert not thread.is_alive() and not service.worker.alive


@pytest.fixture(scope="session")
def model() -> Any:
    return mdm.load_model("tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def serving() -> Any:
    """``running``, for tests with limits of their own."""
    return running


@pytest.fixture(scope="session")
def served(model: Any) -> Iterator[Running]:
    with running(model, Limits()) as up:
        yield up
