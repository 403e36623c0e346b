"""A server that says what a test tells it to, and its page as a user works with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator

import uvicorn
from browser import Page
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script>\x00\x1b[2J\u202eevil\u200b\n&amp;"
KEY = "a key"


def line(step: int, kind: str, positions: list[int], texts: list[str | None], **more) -> dict:
    costs = {"forwards": 1, "rows": 2} if kind in ("commit", "bypass") else {"forwards": 0, "rows": 0}
    at = {"step": step, "kind": kind, "positions": positions, "texts": texts, "tokens": [0] * len(positions)}
    return {**at, "entropy": [0.5] * len(positions), "confidence": [0.75] * len(positions), **costs, **more}


def candidate(position: int, value: float | None) -> dict:
    return {"positions": [position], "J": value, "C": 0.25, "H": None}


EVERY_KIND = [
    line(0, "commit", [2], ["a"], weighed=[candidate(3, -2.0), candidate(2, -1.0)]),
    line(1, "commit", [3, 4], ["b", "c"], entropy=[2.0, None], confidence=[None, 1.0]),
    line(2, "remask", [3], [None]),
    line(2, "edit", [2], ["A"]),
    line(3, "bypass", [3], [HOSTILE]),
    line(3, "fill", [5], ["<end>"]),
]
MASKS = [4, 3, 1, 2, 0]
"""Masks left after each of its steps."""


class Script:
    """A server that says what it is told to, by the prompt's first word; ``asked`` and ``gone`` is what it noticed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.gone = 0

    async def answer(self, request: Request):
        body = await request.json()
        self.asked.append((request.url.path, body))
        kind = body.get("prompt") or body["messages"][0]["content"]
        if kind == "key" and request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": {"message": "this server wants a key"}}, 401)
        if kind == "refused":
            return JSONResponse({"error": {"message": "temperature should be at least 0 <b>"}}, 400)
        return StreamingResponse(self.events(kind), media_type="text/event-stream")

    async def events(self, kind: str) -> AsyncIterator[str]:
        yield ": in the queue\n\n"
        yield said({"choice": 0, "prompt_tokens": 2, "texts": ["<p>", "\t", None, None, None, None]}, "canvas")
        try:
            for step in range(10_000 if kind == "slow" else 0):
                yield said({"choice": 0, "lines": [line(step, "commit", [2], ["x"])]}, "draft")
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        if kind == "broken":
            return
        if kind == "failed":
            yield said({"error": {"message": "memory ran out", "code": 503}})
            return
        for trace in EVERY_KIND:
            yield said({"choice": 0, "lines": [trace]}, "draft").replace("\n", "\r\n")
        yield said({"choices": [{"index": 0, "text": HOSTILE, "finish_reason": None}]})
        yield said({"choices": [{"index": 0, "text": "!", "finish_reason": "stop"}]})
        yield said({"choices": [], "usage": {"completion_tokens": 4}})
        yield "data: [DONE]\n\n"


def said(data: dict, event: str = "") -> str:
    return (f"event: {event}\n" if event else "") + f"data: {json.dumps(data)}\n\n"


@contextlib.contextmanager
def address_of(app: FastAPI):
    """The address of an app, served from a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


class Shown(Page):
    """The page of a server, as a user works with it."""

    def ready(self) -> Shown:
        """It itself, once the server has said what it serves."""
        self.until(lambda: self.count(".pane") == 2)
        return self

    def run(self, prompt: str, kind: str = "plain") -> None:
        self.do(f"document.querySelector('input[value={kind}]').click()")
        field = self.browser.find_element("id", "prompt")
        field.clear()
        field.send_keys(prompt)
        self.control_enter()

    def control_enter(self) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()

    def done(self) -> None:
        self.until(lambda: self.do("return !document.documentElement.classList.contains('running')"))
        self.settle()

    def settle(self) -> None:
        self.browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done))")

    def do(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def of(self, pane: int, selector: str) -> str:
        return self.do(f"return document.querySelectorAll('.pane')[{pane}].querySelector('{selector}').textContent")

    def state(self, pane: int = 0) -> str:
        return self.of(pane, ".state")

    def slide(self, step: int) -> None:
        self.do(f"const s = document.getElementById('step'); s.value = {step}; s.dispatchEvent(new Event('input'))")

    def set(self, pane: int, label: str, value: str) -> None:
        """Set the field of a label, as typing or choosing does."""
        self.do(
            "const [pane, label, value] = arguments, root = document.querySelectorAll('.pane')[pane];"
            "const input = [...root.querySelectorAll('label')].find((l) => l.textContent === label).control;"
            "input.value = value;"
            "for (const name of ['input', 'change']) input.dispatchEvent(new Event(name, { bubbles: true }));",
            pane, label, value,
        )  # fmt: skip

    def unseen(self) -> list[str]:
        """Complaints but those about answers that are errors, which a browser writes down whatever a page does."""
        return [message for message in self.complaints() if "the server responded with a status of 4" not in message]
