"""The page in a real browser: what a server's events make of it, whatever they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from urllib.request import urlopen

import mdm
import pytest
import uvicorn
from browser import Page, browser as browser
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from mdm.protocols.settings import Settings
from mdm_serve import page
from mdm_serve.describe import describe

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
def serving(app: FastAPI):
    """The address of an app, served from a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


DEFAULTS = {"sampler": "info-gain", "sampler_options": {"candidates": 3}, "cache": "none", "max_tokens": 64, "seed": 0}


@pytest.fixture(scope="module")
def script():
    script, app = Script(), FastAPI()
    described = describe("tiny", mdm.load_model("tiny"), DEFAULTS)
    app.include_router(page.router(lambda: described))
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.post(path, response_model=None)(script.answer)
    with serving(app) as script.address:
        yield script


class Served(Page):
    """The page of a server, as a user works with it."""

    def __init__(self, browser, address: str) -> None:
        super().__init__(browser, address)
        self.until(lambda: self.count(".pane") == 2)

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


@pytest.fixture
def served(browser, script):
    del script.asked[:]
    return Served(browser, script.address)


def test_a_decode_is_watched_gone_back_through_and_coloured(served, script):
    from selenium.webdriver.common.keys import Keys

    served.run("kinds")
    served.done()
    assert served.state() == "done: the answer has ended"
    assert script.asked == [
        ("/v1/completions", {"model": "tiny", "prompt": "kinds", "stream": True, "mdm_trace": "full",
                             "stream_options": {"include_usage": True}}),
    ]  # fmt: skip
    served.do("document.activeElement.blur()")
    left, newest = [], []
    served.key(Keys.HOME)
    for _ in MASKS:
        left.append(served.count(".token.mask"))
        newest.append(served.do("return [...document.querySelectorAll('.token.now')].map((s) => s.className)"))
        served.key(Keys.ARROW_RIGHT)
    assert left == MASKS
    assert newest == [
        [], ["token commit now"], ["token commit now"] * 2,
        ["token edit now", "token mask now remask"], ["token bypass now", "token fill now"],
    ]  # fmt: skip
    assert served.text("where") == "step 4 of 4"
    totals = served.do("return [...document.querySelector('.totals').querySelectorAll('dd')].map((d) => d.textContent)")
    assert totals[:5] == ["4 / 4", "3", "1.33", "6", "3.000 nats"]
    served.slide(1)
    assert served.count(".token.mask") == 3
    assert served.of(0, ".what") == "Step 1: commit “a” · 1 forward, 2 rows"
    cells = "return [...document.querySelectorAll('tr.best td')].map((d) => d.textContent)"
    assert served.do(cells) == ["2", "-1.0000", "", "0.2500", "–"]
    colour = "return getComputedStyle(document.querySelectorAll('.token')[2]).backgroundColor"
    served.slide(3)
    seen = {served.do(colour)}
    for name in ("entropy", "confidence", "order"):
        served.key("c")
        assert served.do("return document.querySelector('input[name=colour]:checked').value") == name
        seen.add(served.do(colour))
    assert len(seen) == 3 and served.unseen() == []


def test_a_token_says_when_and_how_surely_it_came(served):
    from selenium.webdriver.common.keys import Keys

    served.run("kinds")
    served.done()
    served.do("document.querySelector('.canvas').focus()")
    served.key(Keys.ARROW_RIGHT)
    assert served.of(0, ".what") == "“A”, position 2, step 3 (edit), entropy 0.500 nats, confidence 0.750, was “a”"
    assert served.do("const c = document.querySelector('.canvas'); return c.getAttribute('aria-activedescendant')")
    served.slide(3)
    served.key(Keys.ARROW_RIGHT)
    assert served.of(0, ".what") == "Mask, position 3, masked again in step 3, was “b”"
    served.key(*[Keys.ARROW_LEFT] * 2)
    assert served.of(0, ".what") == "“␉” of the prompt, position 1"
    served.slide(1)
    served.key(*[Keys.ARROW_RIGHT] * 2)
    assert served.count("tr.held") == 1  # a mask that was weighed
    served.key(Keys.ESCAPE)
    assert served.of(0, ".what").startswith("Step 1: ") and served.count(".selected") == 0
    from selenium.webdriver import ActionChains

    ActionChains(served.browser).move_to_element(served.browser.find_elements("css selector", ".token")[2]).perform()
    assert served.of(0, ".what").startswith("“a”, position 2, step 1 (commit), entropy 0.500 nats")


def test_text_of_a_model_is_text(served):
    served.run("kinds")
    served.done()
    shown = served.of(0, ".canvas")
    assert "<img src=x onerror=" in shown and "␀␛[2J⟨U+202E⟩evil⟨U+200B⟩↵\n&amp;" in shown
    assert served.of(0, ".answer pre").endswith("⟨U+202E⟩evil⟨U+200B⟩↵\n&amp;!")
    assert served.count("img") == 0 and served.browser.title == "tiny: mdm serve"
    served.run("refused")
    served.done()
    assert served.state() == "temperature should be at least 0 <b> (400)" and served.count("b") == 0
    assert served.unseen() == []


def test_two_settings_beside_each_other(served, script):
    served.key("b")
    assert served.count(".pane:not([hidden])") == 2
    served.set(0, "candidates", "all")
    served.set(0, "max tokens", "12")
    served.set(1, "sampler", "klass")
    served.set(1, "temperature", "0.5")
    served.set(1, "further settings, as JSON", '{"top_p": 0.9}')
    assert served.of(0, ".settings small") == "info-gain, max tokens 12, candidates all"
    served.run("kinds", "chat")
    served.done()
    [one, other] = sorted(
        ({k: v for k, v in body.items() if k not in ("model", "stream", "stream_options", "mdm_trace")}
         for path, body in script.asked if path == "/v1/chat/completions"),
        key=lambda body: "sampler" in body,
    )  # fmt: skip
    messages = [{"role": "user", "content": "kinds"}]
    assert one == {"messages": messages, "max_tokens": 12, "sampler_options": {"candidates": "all"}}
    assert other == {"messages": messages, "sampler": "klass", "temperature": 0.5, "top_p": 0.9}
    for pane in (0, 1):
        assert served.state(pane) == "done: the answer has ended" and "4 / 4" in served.of(pane, ".totals")
    served.slide(1)
    assert served.count(".token.mask") == 6
    served.set(1, "further settings, as JSON", "[1")
    served.control_enter()
    served.done()
    assert served.state(1).startswith("Further settings are not a JSON object")
    assert served.state(0) == "done: the answer has ended"
    assert served.unseen() == []


def test_a_preset_fills_the_fields(served, script):
    served.set(0, "preset", "infogain-paper")
    served.run("kinds")
    served.done()
    served.set(0, "preset", "llada-instruct-diffusion")
    served.control_enter()
    served.done()
    [(_, paper), (_, llada)] = script.asked
    assert paper["sampler"] == "info-gain"
    assert paper["sampler_options"] == {"candidates": 8, "position_temperature": 0.2, "threshold": 0.8}
    assert (llada["sampler"], llada["block_length"], llada["eos_rank"]) == ("confidence", 512, "last")
    assert "sampler_options" not in llada


def test_infilling_by_suffix_or_by_masks(served, script):
    served.run("kinds", "infill")
    served.done()
    served.browser.find_element("id", "suffix").send_keys(" behind")
    served.control_enter()
    served.done()
    [(_, masks), (path, suffix)] = script.asked
    assert masks["max_tokens"] == 0 and "suffix" not in masks
    assert path == "/v1/completions" and suffix["suffix"] == " behind" and "max_tokens" not in suffix


def test_stopped_a_row_is_let_go(served, script):
    from selenium.webdriver.common.keys import Keys

    before = script.gone
    served.run("slow")
    served.until(lambda: served.do("return +document.getElementById('step').max") > 3)
    served.do("document.activeElement.blur()")
    served.key(Keys.ARROW_LEFT)  # one looks back while it goes on
    at = served.text("where").split(" of ")
    served.until(lambda: served.do("return +document.getElementById('step').max") > int(at[1]) + 3)
    assert served.text("where").startswith(at[0])
    served.key(Keys.ESCAPE)
    served.until(lambda: served.state().startswith("stopped after"))
    served.until(lambda: script.gone == before + 1)
    served.run("slow")
    served.until(lambda: served.do("return +document.getElementById('step').max") > 3)
    served.browser.find_element("id", "stop").click()
    served.until(lambda: script.gone == before + 2)
    assert served.state().startswith("stopped after") and served.do("return document.getElementById('stop').disabled")
    assert served.unseen() == []


def test_what_goes_wrong_is_said(served, script):
    served.run("broken")
    served.done()
    assert served.state() == "The server's answer broke off before its end." and served.count(".state.fault") == 1
    served.run("failed")
    served.done()
    assert served.state() == "memory ran out"
    served.run(" ")
    served.do("document.getElementById('prompt').value = ''")
    served.control_enter()
    assert served.state() == "Type a prompt first."
    served.run("key")
    served.until(lambda: served.do("return document.activeElement.id") == "key")
    assert served.state() == "this server wants a key (401)"
    served.key(KEY, "\n")
    served.done()
    assert served.state() == "done: the answer has ended" and served.unseen() == []


def test_everything_is_reached_by_the_keyboard_and_on_a_phone(served):
    from selenium.webdriver.common.keys import Keys

    served.run("kinds")
    served.done()
    served.key("b")  # goes into the prompt, which is focused
    assert served.count(".pane:not([hidden])") == 1
    reached, browser = set(), served.browser
    served.do("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(45):
        served.key(Keys.TAB)
        found = served.do(
            "const e = document.activeElement, ring = e.matches('.group input') ? e.nextElementSibling : e;"
            "return [e.id || e.className || e.tagName, getComputedStyle(ring).outlineStyle !== 'none']"
        )
        assert found[0] == "BODY" or found[1], found
        reached.add(found[0])
    assert {"compare", "theme", "prompt", "run", "first", "play", "step", "speed", "SUMMARY", "canvas"} <= reached
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        served.do("document.activeElement.blur()")
        served.key("b", "d")
        assert served.do("return document.documentElement.scrollWidth <= innerWidth")
        tops = served.do("return [...document.querySelectorAll('.pane')].map((p) => p.getBoundingClientRect().left)")
        assert tops[0] == tops[1]  # one below the other
        served.keep("serve-phone")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    theme = served.do("return document.documentElement.dataset.theme")
    served.browser.find_element("id", "theme").click()
    assert {theme, served.do("return document.documentElement.dataset.theme")} == {"light", "dark"}


def test_a_decode_is_played(served):
    from selenium.webdriver.common.keys import Keys

    served.run("kinds")
    served.done()
    served.do("document.getElementById('speed').value = 30; document.activeElement.blur()")
    served.key(" ")
    served.until(lambda: served.text("play") == "‖ pause")
    served.until(lambda: served.text("play") == "▶ play")
    assert served.text("where") == "step 4 of 4"
    served.key(Keys.HOME, " ", " ")
    assert served.text("play") == "▶ play"


def test_the_page_loads_nothing_but_its_own_files(script):
    with urlopen(script.address) as answer:
        policy, text = answer.headers["content-security-policy"], answer.read().decode()
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (
        "style=" not in text and "<style" not in text and " on" not in text.partition("<body>")[2].partition("<h1")[0]
    )
    named = {part.split('"')[0] for part in text.split("site/")[1:]}
    assert named == {"style.css", "app.js"}
    for name in named:
        with urlopen(f"{script.address}site/{name}") as answer:
            assert answer.headers.get_content_type() in ("text/css", "text/javascript")
    with pytest.raises(OSError, match="404"):
        urlopen(f"{script.address}site/page.py")


def test_what_is_described_can_be_asked_for(script):
    with urlopen(f"{script.address}mdm/describe") as answer:
        told = json.load(answer)
    assert (told["model"], told["family"], told["mask"], told["diffusion"]) == ("tiny", "llada", "[MASK]", True)
    sampler = next(one for one in told["samplers"] if one["name"] == "info-gain")
    bypass = next(option for option in sampler["options"] if option["name"] == "bypass")
    assert bypass["choices"] == ["capped", "block", "all"] and bypass["default"] == "capped" and bypass["help"]
    allowed = {"max_tokens", "sampler", "sampler_options", "cache", "cache_options", *Settings.model_fields}
    for preset in told["presets"]:
        assert preset["settings"] and set(preset["settings"]) <= allowed
    assert {"llada-base", "infogain-paper"} <= {preset["name"] for preset in told["presets"]}
    assert not any(preset["name"].startswith("sdar") for preset in told["presets"])
