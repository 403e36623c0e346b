"""The trace page in a real browser: stepped, played, switched, with no complaint in its console."""

from __future__ import annotations

import json
import re
import sys

import pytest
from browser import Page
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError
from mdm_report import view
from mdm_report.view import data
from outcomes import outcome
from traced import large, page_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two samplers on four equations, traced in full."""
    out = tmp_path_factory.mktemp("runs") / "two"
    samplers = ["--sampler", "info-gain", "--sampler", "confidence"]
    command = ["run", *samplers, "--task", "equations", "--limit", "4", "--trace", "full", "--out", str(out)]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


def test_step_play_and_switch(browser, folder):
    from selenium.webdriver.common.keys import Keys

    done = CliRunner().invoke(cli, ["trace", "view", str(folder)], catch_exceptions=False)
    assert "trace.html (4 examples)" in done.output
    found = data.load([folder])
    first = found["samples"][0]["variants"][0]
    masks = first["canvas"].count(None)
    page = Page(browser, folder / "trace.html")
    assert page.count("#canvas .mask") == masks and page.text("where").startswith("0 / ")
    chosen = max(first["frames"][0]["w"], key=lambda candidate: candidate[1])
    assert chosen[0] == first["frames"][0]["p"]
    assert page.count("#weighed tr") == 1 + len(first["frames"][0]["w"])
    best = browser.execute_script("return [...document.querySelectorAll('tr.best td')].map(cell => cell.textContent)")
    assert (best[0], best[1]) == (", ".join(map(str, chosen[0])), f"{chosen[1]:.4f}")
    page.key(Keys.ARROW_RIGHT)
    assert page.count("#canvas .mask") == masks - len(first["frames"][0]["p"]) and page.count("#canvas .now") == 1
    page.key("c", "c")
    assert "confidence" in browser.execute_script(
        "return document.querySelector('#mode [aria-checked=true]').textContent"
    )
    page.key("c", Keys.HOME, " ")
    page.until(lambda: page.count("#canvas .mask") == 0)
    made = "".join(t for t in browser.execute_script("return spans.map(s => s.textContent)"))
    record = next(json.loads(line) for line in (folder / "info-gain/results.jsonl").open() if '"row": 0' in line)
    assert made == record["completion"]
    page.key(Keys.ARROW_LEFT)
    assert page.count("#canvas .mask") == len(first["frames"][-1]["p"])
    page.keep("light")
    page.key("2")
    assert page.text("facts").startswith("confidence")
    page.key(Keys.END)
    page.key(Keys.ARROW_DOWN)
    assert page.count("#canvas .mask") == found["samples"][1]["variants"][1]["canvas"].count(None)
    for button in ("last", "back", "theme"):
        browser.find_element("id", button).click()
    page.keep("dark")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    assert page.complaints() == []


def test_512_tokens_by_512_steps(browser, tmp_path):
    """A step touches what it changes and nothing else; how long that takes is printed, not asserted."""
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "large.html"
    path.write_text(view.page(large(512, 8)))
    page = Page(browser, path)
    touched = browser.execute_script("""
        const watcher = new MutationObserver(() => {});
        watcher.observe(document.getElementById("canvas"), { subtree: true, childList: true });
        go(100);
        watcher.takeRecords();
        go(101);
        return new Set(watcher.takeRecords().map((r) => r.target)).size;
    """)
    assert touched == 2  # the token that came, and the one before it, which is no longer the newest
    took = browser.execute_script(
        "const t = performance.now(); for (let f = 0; f <= 512; f++) go(f); return performance.now() - t;"
    )
    print(f"{took / 513:.2f} ms a step")
    page.key("c")
    browser.execute_script("go(300)")
    assert page.count("#canvas .mask") == 212
    page.keep("large")
    page.key("d")
    page.keep("large-dark")
    page.key(Keys.END)
    assert page.count("#canvas .mask") == 0
    assert page.complaints() == []


def test_a_page_is_one_file_and_no_text_gets_out_of_it(browser, tmp_path):
    nasty = "</script><script>document.title = 'owned'</script><!-- {{style}} &amp;"
    found = large(4, 2)
    found["title"] = found["samples"][0]["id"] = found["variants"][0] = nasty
    found["samples"][0]["variants"][0]["frames"][0]["t"] = [nasty]
    text = view.page(found)
    assert not re.findall(r"""(?:src|href)=(?!["']data:)|https?://(?!www\.w3\.org/2000/svg)|url\(""", text)
    path = tmp_path / "nasty.html"
    path.write_text(text)
    page = Page(browser, path)
    browser.execute_script("go(4)")
    assert browser.title.startswith(nasty) and nasty in page.text("canvas")
    assert page.complaints() == []


def test_runs_are_set_side_by_side_and_remasked_tokens_are_masks_again(folder, tmp_path):
    found = data.load([folder, folder], limit=1)
    assert found["variants"][:2] == ["two: info-gain", "two: confidence"] and found["left_out"] == 3
    assert all(len(sample["variants"]) == 4 for sample in found["samples"])
    line = {"step": 0, "kind": "remask", "positions": [2], "tokens": [9], "entropy": [0.0]}
    assert data._frame(line, {"9": "[MASK]"})["t"] == [None]
    with pytest.raises(MdmError, match="not a run's folder"):
        data.load([tmp_path])
    with pytest.raises(MdmError, match=r"no example 'x'.*'equations-0-0'"):
        data.load([folder], examples=["x"])


def embedded(page: str) -> dict:
    """The page's data, parsed as strictly as a browser does."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


NAN, INFINITY = float("nan"), float("inf")
LINES = [
    {"step": 0, "kind": "commit", "positions": [1, 2], "tokens": [5, 6], "entropy": [NAN, 0.5],
     "confidence": [NAN, 0.9], "weighed": [{"positions": [1], "J": -INFINITY, "C": NAN, "H": 0.25}]},
    {"step": 1, "kind": "commit", "positions": [3], "tokens": [7], "entropy": [0.25], "confidence": [0.8]},
    {"step": 1, "kind": "remask", "positions": [2], "tokens": [9], "entropy": [0.125], "confidence": [0.7]},
    {"step": 2, "kind": "edit", "positions": [3], "tokens": [5], "entropy": [2.0], "confidence": [0.5]},
    {"step": 3, "kind": "bypass", "positions": [2], "tokens": [6], "entropy": [0.25], "confidence": [1.0]},
    {"step": 3, "kind": "fill", "positions": [4], "tokens": [8], "entropy": [0.0], "confidence": [1.0]},
]  # fmt: skip
"""A step that commits and re-masks, an edit, a bypass and a fill; entropies and candidates that are no numbers."""


def every_kind() -> dict:
    result = outcome(0, cumulative_entropy=NAN, canvas=["a", None, None, None, None], texts={"5": "five", "6": "six"})
    return page_data("kinds", ["one"], [data._decoding(result, LINES)])


def test_numbers_that_are_not_finite_are_null_in_the_page():
    [decoding] = embedded(view.page(every_kind()))["samples"][0]["variants"]
    assert decoding["entropy"] is None and decoding["frames"][0]["e"] == [None, 0.5]
    assert decoding["frames"][0]["c"] == [None, 0.9] and decoding["frames"][0]["w"] == [[[1], None, None, 0.25]]
    raw = {"title": "raw", "samples": [{"variants": [{"frames": [{"e": [NAN, -INFINITY, 1.0]}]}]}]}
    assert embedded(view.page(raw))["samples"][0]["variants"][0]["frames"][0]["e"] == [None, None, 1.0]


def test_every_kind_of_line_in_the_browser(browser, tmp_path):
    """Entropies of commits and bypasses add up; what is masked again is a mask; no number breaks the page."""
    path = tmp_path / "kinds.html"
    path.write_text(view.page(every_kind()))
    page = Page(browser, path)
    assert page.count("#canvas .mask") == 4 and page.count("#weighed td") == 5
    masks, newest = [], []
    for frame in range(1, 7):
        browser.execute_script(f"go({frame})")
        masks.append(page.count("#canvas .mask"))
        newest.append(
            browser.execute_script("return [...document.querySelectorAll('#canvas .now')].map(s => s.className)")
        )
    assert masks == [2, 1, 2, 2, 1, 0]
    assert newest == [
        ["now commit"] * 2,
        ["now commit"],
        ["mask now remask"],
        ["now edit"],
        ["now bypass"],
        ["now fill"],
    ]
    assert page.count("#canvas .edited") == 1
    assert browser.execute_script("return spans[3].title.endsWith(', was ' + JSON.stringify(now.commits[3][0].text))")
    assert [text.split(":")[0] for text in page.text("kinds").split(" · ")] == [
        "commit", "bypass", "edit", "remask", "fill"
    ]  # fmt: skip
    # As many tokens are decoded as there are masks less in the canvas.
    assert browser.execute_script("return [now.paid, now.count]") == [
        [0, 0.5, 0.75, 0.75, 0.75, 1, 1],
        [0, 2, 3, 2, 2, 3, 4],
    ]
    page.key("c", "c", "c")
    assert "–" in page.text("facts") and page.complaints() == []


def test_samplers_that_take_back_are_replayed(browser, tmp_path):
    """What is masked again is a mask on the page, what is replaced another token, and the last step is the answer."""
    out = tmp_path / "revisers"
    options = ["-o", "edit_threshold=0", "-o", "loop_steps=3", "-o", "max_post_steps=4"]
    command = ["run", "--sampler", "joint-threshold", "--sampler", "remdm", *options, "--limit", "1"]
    command += ["--task", "equations", "--temperature", "1.5", "--out", str(out)]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(cli, ["trace", "view", str(out)]).exit_code == 0
    page, seen = Page(browser, out / "trace.html"), set()
    for number, sampler in enumerate(("joint-threshold", "remdm"), 1):
        page.key(str(number))
        for result in map(json.loads, (out / sampler / "results.jsonl").open()):
            browser.execute_script(f"view.sample = data.samples.findIndex(s => s.id === '{result['id']}'); show(false)")
            lines = [x for x in map(json.loads, (out / sampler / "trace.jsonl").open()) if x["row"] == result["row"]]
            canvas = [None if text is None else "" for text in result["canvas"]]
            masks = []
            for line in lines:
                seen.add(line["kind"])
                for position in line["positions"]:
                    canvas[position] = None if line["kind"] == "remask" else ""
                masks.append(canvas.count(None))
            shown = "go(f + 1); return document.querySelectorAll('#canvas .mask').length"
            assert browser.execute_script(f"return now.frames.map((_, f) => {{ {shown}; }})") == masks
            assert browser.execute_script("return spans.map(s => s.textContent).join('')").endswith(
                result["completion"]
            )
            tokens = sum(text is None for text in result["canvas"])
            assert browser.execute_script("return now.count.at(-1)") == tokens == result["tokens"]
            assert result["forwards"] >= len({line["step"] for line in lines})
    assert seen == {"commit", "edit", "remask"} and page.complaints() == []
    page.key("1")
    browser.execute_script("view.sample = 0; show(false); go(now.frames.findIndex(f => f.k === 'edit') + 1)")
    page.keep("edit")


def test_every_kind_of_line_in_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from mdm_report.view import plot

    for by in ("step", "entropy"):
        plot.draw(every_kind(), tmp_path / f"{by}.svg", by)
    assert "(1.000)" in (tmp_path / "step.svg").read_text().replace("<!-- ", "")


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture(folder, tmp_path, kind):
    pytest.importorskip("matplotlib")
    out = tmp_path / f"order.{kind}"
    done = CliRunner().invoke(cli, ["trace", "plot", str(folder), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    head = out.read_bytes()[:300]
    assert head.startswith(b"\x89PNG") if kind == "png" else b"<svg" in out.read_bytes()[:2000]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_picture_of_no_known_kind_or_without_matplotlib_is_refused(folder, tmp_path, monkeypatch):
    from mdm_report.view import plot

    found = data.load([folder], limit=1)
    with pytest.raises(MdmError, match=r"\.png"):
        plot.draw(found, tmp_path / "order.bmp", "step")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MdmError, match="pip install matplotlib"):
        plot.draw(found, tmp_path / "order.png", "step")
