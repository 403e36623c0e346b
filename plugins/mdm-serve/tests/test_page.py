"""The page in a real browser, of a server and of one that says what a test tells it to."""

from __future__ import annotations

import json
from urllib.request import urlopen

import mdm
import pytest
from browser import browser as browser
from fastapi import FastAPI
from mdm.protocols.settings import Settings
from mdm.protocols.task import Prompt
from mdm_serve import page
from mdm_serve.describe import describe
from mdm_serve.limits import Limits
from page_server import KEY, MASKS, Script, Shown, address_of

DEFAULTS = {"sampler": "info-gain", "sampler_options": {"candidates": 3}, "cache": "none", "max_tokens": 64, "seed": 0}


@pytest.fixture(scope="module")
def script():
    script, app = Script(), FastAPI()
    described = describe("tiny", mdm.load_model("tiny"), DEFAULTS)
    app.include_router(page.router(lambda: described))
    for path in ("/v1/chat/completions", "/v1/completions"):
        app.post(path, response_model=None)(script.answer)
    with address_of(app) as script.address:
        yield script


@pytest.fixture
def shown(browser, script):
    del script.asked[:]
    return Shown(browser, script.address).ready()


def test_a_decode_is_watched_gone_back_through_and_coloured(shown, script):
    from selenium.webdriver.common.keys import Keys

    shown.run("kinds")
    shown.done()
    assert shown.state() == "done: the answer has ended"
    assert script.asked == [
        ("/v1/completions", {"model": "tiny", "prompt": "kinds", "stream": True, "mdm_trace": "full",
                             "stream_options": {"include_usage": True}}),
    ]  # fmt: skip
    shown.do("document.activeElement.blur()")
    left, newest = [], []
    shown.key(Keys.HOME)
    for _ in MASKS:
        left.append(shown.count(".token.mask"))
        newest.append(shown.do("return [...document.querySelectorAll('.token.now')].map((s) => s.className)"))
        shown.key(Keys.ARROW_RIGHT)
    assert left == MASKS
    assert newest == [
        [], ["token commit now"], ["token commit now"] * 2,
        ["token edit now", "token mask now remask"], ["token bypass now", "token fill now"],
    ]  # fmt: skip
    assert shown.text("where") == "step 4 of 4"
    totals = shown.do("return [...document.querySelector('.totals').querySelectorAll('dd')].map((d) => d.textContent)")
    assert totals[:5] == ["4 / 4", "3", "1.33", "6", "3.000 nats"]
    shown.slide(1)
    assert shown.count(".token.mask") == 3
    assert shown.of(0, ".what") == "Step 1: commit “a” · 1 forward, 2 rows"
    cells = "return [...document.querySelectorAll('tr.best td')].map((d) => d.textContent)"
    assert shown.do(cells) == ["2", "-1.0000", "", "0.2500", "–"]
    colour = "return getComputedStyle(document.querySelectorAll('.token')[2]).backgroundColor"
    shown.slide(3)
    seen = {shown.do(colour)}
    for name in ("entropy", "confidence", "order"):
        shown.key("c")
        assert shown.do("return document.querySelector('input[name=colour]:checked').value") == name
        seen.add(shown.do(colour))
    assert len(seen) == 3 and shown.unseen() == []


def test_a_token_says_when_and_how_surely_it_came(shown):
    from selenium.webdriver.common.keys import Keys

    shown.run("kinds")
    shown.done()
    shown.do("document.querySelector('.canvas').focus()")
    shown.key(Keys.ARROW_RIGHT)
    assert shown.of(0, ".what") == "“A”, position 2, step 3 (edit), entropy 0.500 nats, confidence 0.750, was “a”"
    assert shown.do("const c = document.querySelector('.canvas'); return c.getAttribute('aria-activedescendant')")
    shown.slide(3)
    shown.key(Keys.ARROW_RIGHT)
    assert shown.of(0, ".what") == "Mask, position 3, masked again in step 3, was “b”"
    shown.key(*[Keys.ARROW_LEFT] * 2)
    assert shown.of(0, ".what") == "“␉” of the prompt, position 1"
    shown.slide(1)
    shown.key(*[Keys.ARROW_RIGHT] * 2)
    assert shown.count("tr.held") == 1  # a mask that was weighed
    shown.key(Keys.ESCAPE)
    assert shown.of(0, ".what").startswith("Step 1: ") and shown.count(".selected") == 0
    from selenium.webdriver import ActionChains

    ActionChains(shown.browser).move_to_element(shown.browser.find_elements("css selector", ".token")[2]).perform()
    assert shown.of(0, ".what").startswith("“a”, position 2, step 1 (commit), entropy 0.500 nats")


def test_text_of_a_model_is_text(shown):
    shown.run("kinds")
    shown.done()
    canvas = shown.of(0, ".canvas")
    assert "<img src=x onerror=" in canvas and "␀␛[2J⟨U+202E⟩evil⟨U+200B⟩↵\n&amp;" in canvas
    assert shown.of(0, ".answer pre").endswith("⟨U+202E⟩evil⟨U+200B⟩↵\n&amp;!")
    assert shown.count("img") == 0 and shown.browser.title == "tiny: mdm serve"
    shown.run("refused")
    shown.done()
    assert shown.state() == "temperature should be at least 0 <b> (400)" and shown.count("b") == 0
    assert shown.unseen() == []


def test_two_settings_beside_each_other(shown, script):
    shown.key("b")
    assert shown.count(".pane:not([hidden])") == 2
    shown.set(0, "candidates", "all")
    shown.set(0, "max tokens", "12")
    shown.set(1, "sampler", "klass")
    shown.set(1, "temperature", "0.5")
    shown.set(1, "further settings, as JSON", '{"top_p": 0.9}')
    assert shown.of(0, ".settings small") == "info-gain, max tokens 12, candidates all"
    shown.run("kinds", "chat")
    shown.done()
    [one, other] = sorted(
        ({k: v for k, v in body.items() if k not in ("model", "stream", "stream_options", "mdm_trace")}
         for path, body in script.asked if path == "/v1/chat/completions"),
        key=lambda body: "sampler" in body,
    )  # fmt: skip
    messages = [{"role": "user", "content": "kinds"}]
    assert one == {"messages": messages, "max_tokens": 12, "sampler_options": {"candidates": "all"}}
    assert other == {"messages": messages, "sampler": "klass", "temperature": 0.5, "top_p": 0.9}
    for pane in (0, 1):
        assert shown.state(pane) == "done: the answer has ended" and "4 / 4" in shown.of(pane, ".totals")
    shown.slide(1)
    assert shown.count(".token.mask") == 6
    shown.set(1, "further settings, as JSON", "[1")
    shown.control_enter()
    shown.done()
    assert shown.state(1).startswith("Further settings are not a JSON object")
    assert shown.state(0) == "done: the answer has ended"
    assert shown.unseen() == []


def test_a_preset_fills_the_fields(shown, script):
    shown.set(0, "preset", "infogain-paper")
    shown.run("kinds")
    shown.done()
    shown.set(0, "preset", "llada-instruct-diffusion")
    shown.control_enter()
    shown.done()
    [(_, paper), (_, llada)] = script.asked
    assert paper["sampler"] == "info-gain"
    assert paper["sampler_options"] == {"candidates": 8, "position_temperature": 0.2, "threshold": 0.8}
    assert (llada["sampler"], llada["block_length"], llada["eos_rank"]) == ("confidence", 512, "last")
    assert "sampler_options" not in llada


def test_infilling_by_suffix_or_by_masks(shown, script):
    shown.run("kinds", "infill")
    shown.done()
    shown.browser.find_element("id", "suffix").send_keys(" behind")
    shown.control_enter()
    shown.done()
    [(_, masks), (path, suffix)] = script.asked
    assert masks["max_tokens"] == 0 and "suffix" not in masks
    assert path == "/v1/completions" and suffix["suffix"] == " behind" and "max_tokens" not in suffix


def test_stopped_a_row_is_let_go(shown, script):
    from selenium.webdriver.common.keys import Keys

    before = script.gone
    shown.run("slow")
    shown.until(lambda: shown.do("return +document.getElementById('step').max") > 3)
    shown.do("document.activeElement.blur()")
    shown.key(Keys.ARROW_LEFT)  # one looks back while it goes on
    at = shown.text("where").split(" of ")
    shown.until(lambda: shown.do("return +document.getElementById('step').max") > int(at[1]) + 3)
    assert shown.text("where").startswith(at[0])
    shown.key(Keys.ESCAPE)
    shown.until(lambda: shown.state().startswith("stopped after"))
    shown.until(lambda: script.gone == before + 1)
    shown.run("slow")
    shown.until(lambda: shown.do("return +document.getElementById('step').max") > 3)
    shown.browser.find_element("id", "stop").click()
    shown.until(lambda: script.gone == before + 2)
    assert shown.state().startswith("stopped after") and shown.do("return document.getElementById('stop').disabled")
    assert shown.unseen() == []


def test_what_goes_wrong_is_said(shown, script):
    shown.run("broken")
    shown.done()
    assert shown.state() == "The server's answer broke off before its end." and shown.count(".state.fault") == 1
    shown.run("failed")
    shown.done()
    assert shown.state() == "memory ran out"
    shown.run("slow")
    shown.do("document.getElementById('prompt').value = ''")
    shown.control_enter()
    assert shown.state() == "Type a prompt first."
    shown.run("key")
    shown.until(lambda: shown.do("return document.activeElement.id") == "key")
    assert shown.state() == "this server wants a key (401)"
    shown.key("ключ", "\n")
    shown.done()
    assert shown.state() == "A key is made of plain letters, digits and signs."
    shown.do("document.getElementById('key').value = ''")
    shown.key(KEY, "\n")
    shown.done()
    assert shown.state() == "done: the answer has ended" and shown.unseen() == []


def test_an_autoregressive_model_has_no_samplers_to_choose(browser):
    app = FastAPI()
    told = {"model": "ar", "family": "gpt2", "device": "cpu", "mask": "[MASK]", "diffusion": False, "chat": False}
    told |= {"defaults": {"max_tokens": 8, "temperature": 0.0}, "samplers": [], "caches": [], "presets": []}
    app.include_router(page.router(lambda: told))
    with address_of(app) as address:
        shown = Shown(browser, address).ready()
    labels = shown.do("return [...document.querySelectorAll('.pane:first-child label')].map((l) => l.textContent)")
    assert labels == ["max tokens", "temperature", "seed", "further settings, as JSON"]
    assert shown.do("return [...document.querySelectorAll('input[name=kind]:enabled')].map((i) => i.value)") == [
        "plain"
    ]
    shown.run("kinds")
    shown.done()
    assert shown.state() == "The server cannot be reached." and shown.text("model") == "ar · gpt2 on cpu"
    assert all("ERR_CONNECTION_REFUSED" in message for message in shown.complaints())


def test_everything_is_reached_by_the_keyboard_and_on_a_phone(shown):
    from selenium.webdriver.common.keys import Keys

    shown.run("kinds")
    shown.done()
    shown.key("b")  # goes into the prompt, which is focused
    assert shown.count(".pane:not([hidden])") == 1
    reached, browser = set(), shown.browser
    shown.do("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(38):
        shown.key(Keys.TAB)
        found = shown.do(
            "const e = document.activeElement, ring = e.matches('.group input') ? e.nextElementSibling : e;"
            "return [e.id || e.classList[0] || e.tagName, getComputedStyle(ring).outlineStyle !== 'none']"
        )
        assert found[0] == "BODY" or found[1], found
        reached.add(found[0])
    assert {"compare", "theme", "prompt", "run", "first", "play", "step", "speed", "SUMMARY", "canvas"} <= reached
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        shown.do("document.activeElement.blur()")
        shown.key("b", "d")
        assert shown.do("return document.documentElement.scrollWidth <= innerWidth")
        tops = shown.do("return [...document.querySelectorAll('.pane')].map((p) => p.getBoundingClientRect().left)")
        assert tops[0] == tops[1]  # one below the other
        shown.keep("serve-phone")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    theme = shown.do("return document.documentElement.dataset.theme")
    shown.browser.find_element("id", "theme").click()
    assert {theme, shown.do("return document.documentElement.dataset.theme")} == {"light", "dark"}


def test_a_decode_is_played(shown):
    from selenium.webdriver.common.keys import Keys

    shown.run("kinds")
    shown.done()
    shown.do("document.getElementById('speed').value = 30; document.activeElement.blur()")
    shown.key(" ")
    shown.until(lambda: shown.text("play") == "‖ pause")
    shown.until(lambda: shown.text("play") == "▶ play")
    assert shown.text("where") == "step 4 of 4"
    shown.key(Keys.HOME, " ", " ")
    assert shown.text("play") == "▶ play"


SUDOKU = "[MASK][MASK]42[MASK]41[MASK]4[MASK][MASK][MASK]312[MASK]"


def test_a_server_and_its_page(browser, served, model):
    """Two samplers beside each other on a real model, from the masks to the answers of ``mdm.decode``."""
    shown = Shown(browser, served.url).ready()
    shown.key("b")
    shown.set(0, "sampler", "info-gain")
    shown.set(1, "sampler", "random")
    shown.set(1, "seed", "3")
    shown.run(SUDOKU, "infill")
    shown.done()
    for pane, options in enumerate(({"sampler": "info-gain"}, {"sampler": "random", "seed": 3})):
        prompt = Prompt("", answer=SUDOKU, gen_length=0)
        [result] = mdm.decode(model, [prompt], trace="full", **options)
        assert shown.state(pane) == "done: as long as asked"
        assert shown.of(pane, ".canvas") == model.decode(result.sequence)
        assert shown.of(pane, ".answer pre") == result.text
        totals = shown.do(f"return document.querySelectorAll('.pane')[{pane}].querySelector('.totals').innerText")
        assert f"8 / 8\nforwards\n{result.forwards}\n" in totals and f"rows\n{result.rows}\n" in totals
        assert f"{result.cumulative_entropy:.3f} nats" in totals
        newest = shown.do(
            "const [number, steps] = arguments, pane = document.querySelectorAll('.pane')[number];"
            "const slider = document.getElementById('step');"
            "const newest = (step) => { slider.value = step; slider.dispatchEvent(new Event('input'));"
            "  return [...pane.querySelectorAll('.now')].map((span) => +span.dataset.position); };"
            "return [...Array(steps).keys()].map((step) => newest(step + 1));",
            pane, len(result.trace),
        )  # fmt: skip
        assert newest == [line["positions"] for line in result.trace]
    shown.slide(0)
    assert shown.count(".token.mask") == 16
    shown.slide(1)
    assert shown.count(".pane:first-child tr.best") == 1  # what it has weighed
    shown.key("b")
    shown.set(0, "temperature", "-1")
    shown.control_enter()
    shown.done()
    assert "temperature" in shown.state() and shown.count(".state.fault") == 1 and shown.unseen() == []


def test_a_server_lets_go_of_what_is_stopped(browser, serving, model):
    """It asks for a key too, for all but the page."""
    from selenium.webdriver.common.keys import Keys

    with serving(model, Limits(key=KEY)) as running:
        shown = Shown(browser, running.url)
        shown.until(lambda: shown.do("return document.activeElement.id") == "key")
        shown.key(KEY, "\n")
        shown.ready()
        shown.set(0, "max tokens", "250")
        shown.run("1+")
        shown.until(lambda: shown.do("return +document.getElementById('step').max") > 3)
        shown.key(Keys.ESCAPE)
        assert shown.state().startswith("stopped after") and running.settled()
    shown.control_enter()
    shown.done()
    assert shown.state() == "The server cannot be reached."


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
