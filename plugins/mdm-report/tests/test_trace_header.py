"""What the trace page tells of an example, how it opens, and what leaves it as a picture, in a real browser."""

from __future__ import annotations

import json
import shutil

import pytest
from browser import Page
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.models.text import TextCodec
from mdm_report import view
from mdm_report.view import data, header
from outcomes import outcome
from tiny_families import save_bpe
from traced import image_run, large, page_data

RESOLVED = ("device", "dtype")
"""What only a summary says."""


def run(out, *arguments):
    done = CliRunner().invoke(cli, ["run", *arguments, "--trace", "full", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two samplers on four equations."""
    samplers = ["--sampler", "info-gain", "--sampler", "confidence"]
    out = tmp_path_factory.mktemp("runs") / "two"
    return run(out, *samplers, "--task", "equations", "--limit", "4", "--block-length", "3")


def results(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").open()]


def rewrite(folder, lines: list[dict]) -> None:
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_header_says_what_was_asked_and_how_it_was_decoded(browser, folder):
    assert CliRunner().invoke(cli, ["trace", "view", str(folder)]).exit_code == 0
    page = Page(browser, folder / "trace.html")
    for result in results(folder / "info-gain"):
        browser.execute_script(f"view.sample = data.samples.findIndex(s => s.id === '{result['id']}'); show(false)")
        assert page.text("question") == result["prompt"] and page.text("answer") == result["completion"]
        assert page.text("verdict") == ("right" if result["metrics"]["accuracy"] else "wrong")
        reference = page.text("reference")
        assert len(reference) == len(result["completion"]) and eval(reference.replace("=", "=="))
    said = page.text("settings")
    for fact in ("model tiny", "sampler info-gain", "cache none", "block_length 3", "seed 0", "candidates 8"):
        assert f"{fact} · " in said
    page.key("2")
    assert "sampler confidence · " in page.text("settings") and "candidates" not in page.text("settings")
    assert page.text("state") == "" and page.complaints() == []


def test_the_arms_of_a_sweep_are_told_apart(tmp_path):
    out = run(tmp_path / "sweep", "--task", "equations", "--limit", "1", "-o", "candidates=2", "-o", "candidates=4")
    found = data.load([out])
    assert [label.split()[-1] for label in found["variants"]] == ["candidates=2", "candidates=4"]
    assert [dict(about["settings"])["candidates"] for about in found["about"]] == ["2", "4"]


def test_what_failed_and_what_is_missing_is_said(browser, folder, tmp_path):
    """A run that was cut off, one of whose examples failed before its first step and whose task is gone."""
    cut = shutil.copytree(folder, tmp_path / "cut")
    first, second, *_ = results(cut / "info-gain")
    failed = second | {"metrics": {}, "completion": "", "forwards": 0, "error": "ValueError: no such place"}
    rewrite(cut / "info-gain", [first, failed])
    trace = [line for line in (cut / "info-gain/trace.jsonl").open() if json.loads(line)["row"] == first["row"]]
    (cut / "info-gain/trace.jsonl").write_text("".join(trace))
    found = data.load([cut])
    assert found["about"][0]["state"] == "incomplete: 2 of 4 decoded, 1 failed" and found["about"][1]["state"] == ""
    (cut / "summary.json").unlink()
    assert data.load([cut])["about"] == [
        {**about, "settings": [(n, "auto" if n == "cache" else v) for n, v in about["settings"] if n not in RESOLVED]}
        for about in found["about"]
    ]
    path = cut / "trace.html"
    path.write_text(view.page(found))
    page = Page(browser, path)
    number = next(i for i, sample in enumerate(found["samples"]) if sample["id"] == second["id"])
    browser.execute_script(f"view.sample = {number}; show(false)")
    assert page.text("verdict") == "failed: ValueError: no such place" and page.text("where") == "0 / 0"
    assert page.text("state").startswith("incomplete") and page.count("#canvas .mask") == second["canvas"].count(None)
    browser.execute_script("view.sample = data.samples.findIndex(s => !s.variants[0]); show(false)")
    assert page.count("#variants button:disabled") == 1 and page.text("facts").startswith("confidence")
    assert page.complaints() == []


def test_examples_that_cannot_be_read_any_more_leave_a_line(folder, tmp_path):
    gone = shutil.copytree(folder, tmp_path / "gone")
    config = (gone / "config.yaml").read_text()
    (gone / "config.yaml").write_text(config.replace("data: null", f"data: {tmp_path}/gone.jsonl"))
    found = data.load([gone])
    assert "gone.jsonl" in found["fault"] and {sample["reference"] for sample in found["samples"]} == {None}
    done = CliRunner().invoke(cli, ["trace", "view", str(gone)], catch_exceptions=False)
    assert done.exit_code == 0 and "without references and answers: " in done.output
    (gone / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))  # other examples under the rows
    assert {sample["reference"] for sample in data.load([gone])["samples"]} == {None}


def test_runs_of_other_tasks_and_of_other_examples_are_refused(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    lines = [line | {"id": f"x{line['index']}"} for line in results(other / "confidence")]
    for name in ("info-gain", "confidence"):
        rewrite(other / name, lines)
    with pytest.raises(MdmError, match="have no example in common: other data, another seed"):
        data.load([folder, other])
    for name in ("info-gain", "confidence"):
        rewrite(other / name, [line | {"digest": "0" * 16} for line in results(folder / name)])
    with pytest.raises(
        MdmError, match=r"equations-0-\d is another example in .*other than in .*two: nothing to compare"
    ):
        data.load([folder, other])
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("task: equations", "task: sudoku"))
    done = CliRunner().invoke(cli, ["trace", "view", str(folder), str(other)])
    assert "is of equations and" in str(done.exception or done.output)


def test_verdicts():
    assert header.verdict(outcome(0), "ok") == ("right", "right")
    assert header.verdict(outcome(0, right=0.0), "ok") == ("wrong", "wrong")
    assert header.verdict(outcome(0, right=0.25), "ok") == ("graded", "ok 0.25")
    assert header.verdict(outcome(0), "other") == ("open", "not graded")
    assert header.verdict(outcome(0, error="TypeError: x"), "ok") == ("failed", "failed: TypeError: x")


def codec(folder) -> TextCodec:
    from transformers import PreTrainedTokenizerFast

    mask = save_bpe(folder, ["<|mask|>"], whole=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), mask_token="<|mask|>")
    return TextCodec(tokenizer, "bpe", mask)


def test_characters_over_several_tokens_are_joined(browser, tmp_path):
    """Until all of a character is there its bytes stand in boxes, and no neighbour changes."""
    text, codes = "hello 漢é🙂!", codec(tmp_path)
    ids = codes.content(text)
    shown = codes.spell_halves(ids, codes.each(ids))
    han, smile = shown.index("‹E6›"), shown.index("‹F0›")
    order = [han + 2, han, smile, smile + 1, smile + 3, *range(2), han + 1]
    order += [i for i in range(len(ids)) if i not in order]
    lines = [
        {"step": n, "kind": "commit", "positions": [i], "tokens": [ids[i]], "entropy": [0.5]}
        for n, i in enumerate(order)
    ]
    texts = dict(zip(map(str, ids), shown, strict=True))
    result = outcome(0, canvas=[None] * len(ids), texts=texts, completion=text)
    path = tmp_path / "halves.html"
    path.write_text(view.page(page_data("halves", ["one"], [data._decoding(result, lines)])))
    page = Page(browser, path)

    def boxes(frame: int) -> list[str]:
        browser.execute_script(f"go({frame})")
        return browser.execute_script("return [...document.querySelectorAll('#canvas .half')].map(b => b.textContent)")

    assert boxes(2) == ["E6", "A2"] and page.text("canvas") == "E6A2"
    assert boxes(5) == ["E6", "A2", "F0", "9F", "82"] and page.count("#canvas .mask") == len(ids) - 5
    assert boxes(7) == ["E6", "A2", "F0", "9F", "82"] and page.text("canvas").startswith("hello E6A2")
    assert boxes(8) == ["F0", "9F", "82"] and page.text("canvas").startswith("hello 漢") and page.count(".tail") == 2
    assert boxes(len(ids)) == [] and page.text("canvas") == text and page.count("#canvas .half") == 0
    assert boxes(7) == ["E6", "A2", "F0", "9F", "82"]  # and back again
    legacy = browser.execute_script(
        "return join(['a\\ufffd', '\\ufffd', null, '‹E4›', '‹41›', 'b']).map(p => p.length)"
    )
    assert legacy == [2, 1, 0, 1, 1, 1] and page.complaints() == []


def test_it_opens_where_the_masks_are_and_fits_a_phone(browser, tmp_path):
    found = large(512, 4)
    arms = [f"a-model-of-a-long-name info-gain K{pace} candidates={n}" for pace in (1, 2) for n in range(6)]
    found |= {"variants": arms, "about": found["about"][:1] * 12}
    found["samples"][0]["variants"] *= 6
    found["samples"][0]["variants"][0]["prompt"] = "a question of many words " * 200
    for name, prompt in (("folded", 400), ("short", 12)):
        for decoding in found["samples"][0]["variants"][:2]:
            decoding["canvas"][:40] = ["word " * (prompt // 10)] + [" p"] * 39
        (tmp_path / f"{name}.html").write_text(view.page(found))
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    pictures = image_run(tmp_path / "images", (8, 8), 4, 16)
    CliRunner().invoke(cli, ["trace", "view", str(pictures)], catch_exceptions=False)
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for path in (tmp_path / "folded.html", tmp_path / "short.html", pictures / "trace.html"):
            page = Page(browser, path)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
            if "images" in str(path):
                continue
            assert page.count("#canvas details:not([open])") == (path.stem == "folded")
            top, bottom = browser.execute_script("""
                const [box, mask] = [$("canvas"), spans[now.from]].map(element => element.getBoundingClientRect());
                return [mask.top - box.top, box.bottom - mask.bottom];
            """)
            assert top >= 0 and bottom >= 0
            assert browser.execute_script("return spans[now.from].getBoundingClientRect().bottom") < 844
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.complaints() == []


def test_a_step_leaves_as_a_png(browser, folder, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    (tmp_path / "page.html").write_text(view.page(data.load([folder])))
    page = Page(browser, tmp_path / "page.html")
    browser.execute_script("go(2)")
    browser.find_element("id", "save").click()
    saved = tmp_path / "equations-0-0-step-2.png"
    page.until(saved.exists)
    assert page.text("shared") == f"saved {saved.name}"
    with Image.open(saved) as picture:
        assert picture.format == "PNG" and picture.width == 1920 and picture.height > 400
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    tints = browser.execute_script("return now.slots || spans.map(s => s.style.background).filter(Boolean)")
    assert len(tints) == 2
    assert {tuple(map(int, tint[4:-1].split(","))) for tint in tints} <= colours

    pictures = image_run(tmp_path / "images", (4, 4), 4, 16)
    (tmp_path / "images.html").write_text(view.page(data.load([pictures])))
    page = Page(browser, tmp_path / "images.html")
    page.until(lambda: browser.execute_script("return finished() !== null"))
    browser.execute_script("go(4)")
    bytes_of = "sheet().then(blob => arguments[0](blob.size))"
    assert browser.execute_async_script(bytes_of) > 10_000  # a picture from a data URI leaves the canvas readable
    assert page.complaints() == []
