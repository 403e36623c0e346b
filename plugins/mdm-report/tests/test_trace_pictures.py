"""The trace page of a run that draws: patches, maps, candidates and what is said of a cell, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import pytest
from browser import Page
from click.testing import CliRunner
from mdm.cli import cli
from mdm_report import view
from mdm_report.view import album, data
from traced import NASTY, START, flat, image_run

Image = pytest.importorskip("PIL.Image")


def edit_result(folder: Path, **changes) -> None:
    path = folder / "results.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | changes), *rest]) + "\n")


class Boards(Page):
    """The page of an image run."""

    def __init__(self, browser, folder: Path) -> None:
        done = CliRunner().invoke(cli, ["trace", "view", str(folder)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        super().__init__(browser, folder / "trace.html")
        self.until(lambda: self.run("finished() !== null || Boolean(now.image.fault)"))

    def run(self, expression: str):
        return self.browser.execute_script(f"return {expression}")

    def pixels(self, board: str, script: str, *args):
        """What a script returns for which ``read(x, y, width, height)`` gives pixels; x and y are shares of a board."""
        opening = f"""
            const {{ width, height }} = $("{board}"), [rows, columns] = now.grid;
            const copy = document.createElement("canvas");
            Object.assign(copy, {{ width, height }});
            const c = copy.getContext("2d", {{ willReadFrequently: true }});
            c.drawImage($("{board}"), 0, 0);
            const read = (x, y, w, h) => [...c.getImageData(Math.floor(x * width), Math.floor(y * height), w, h).data];
        """
        return self.browser.execute_script(opening + script, *args)

    def colours(self, board: str) -> list[list[int]]:
        """A colour from within each cell of a board, where no outline and no number is."""
        script = """
            const at = (cell) => [(cell % columns + 0.5) / columns, (Math.floor(cell / columns) + 0.2) / rows];
            return now.slots.map((_, cell) => read(...at(cell), 1, 1).slice(0, 3));
        """
        return self.pixels(board, script)


def rgb(colour: str) -> list[int]:
    """Of #rrggbb, or of "rgb(r,g,b)"."""
    return [*bytes.fromhex(colour[1:])] if colour[0] == "#" else [int(part) for part in colour[4:-1].split(",")]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return image_run(tmp_path_factory.mktemp("runs") / "small", (8, 8), 16, 16, flat, examples=3)


def test_patches_come_and_go_as_their_tokens_do(browser, small):
    page = Boards(browser, small)
    frames = data.load([small])["samples"][0]["variants"][0]["frames"]
    patches = flat(8, 8, 1).reshape(64, 3).tolist()
    mask = rgb(page.run("pens.mask"))
    assert page.colours("patches") == [mask] * 64
    tokens: dict[int, str | None] = {}
    for frame, line in enumerate(frames, 1):
        tokens |= {position - START: text for position, text in zip(line["p"], line["t"], strict=True)}
        page.run(f"go({frame})")
        seen = page.colours("patches")
        for cell in range(64):
            token = tokens.get(cell)
            assert (seen[cell] == patches[cell]) == (token == str(126_000 + START + cell)), (frame, cell)
            assert token is not None or seen[cell] == mask
    assert {line["k"] for line in frames} == {"commit", "edit", "remask"} and page.colours("patches") == patches
    assert "Patches are cut from the finished picture" in page.text("picture")
    assert page.complaints() == []


def test_maps_cells_and_keys(browser, small):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = Boards(browser, small)
    page.key(Keys.END)
    for mode, caption in (("step", "Step of"), ("entropy", "Entropy at"), ("confidence", "Confidence at")):
        assert page.run("MODES[view.mode]") == mode and page.text("mapname").startswith(caption)
        assert page.colours("map") == [
            rgb(colour) for colour in page.run("now.slots.map((p) => css(tint(shown(p, view.frame))))")
        ]
        assert page.run("document.querySelector('figure #legend') !== null")
        page.key("c")
    page.run("document.getElementById('map').focus()")
    page.key(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_DOWN)
    result = page.run("now.commits[START_ + 10].at(-1)".replace("START_", str(START)))
    assert page.text("detail") == (
        f"Row 2, column 3 (position {START + 10}) · token {126_000 + START + 10} · "
        f"step {page.run('now.frames')[result['frame'] - 1]['s'] + 1} (commit) · "
        f"entropy {result['entropy']:.3f} nats · confidence {result['confidence']:.3f}"
    )
    assert page.run("view.frame") == page.run("now.frames.length")  # the arrows were the board's
    page.key(Keys.HOME)
    assert page.text("detail").endswith("masked") or "weighed next" in page.text("detail")
    page.key(Keys.ESCAPE, Keys.ARROW_RIGHT)
    assert page.run("view.frame") == 1 and "Point at a cell" in page.text("detail")
    ActionChains(browser).move_to_element(browser.find_element("id", "patches")).perform()
    assert page.text("detail").startswith(("Row 4, column 4", "Row 5, column 5", "Row 4, column 5", "Row 5, column 4"))
    assert page.complaints() == []


def test_a_candidate_that_is_pointed_at_stands_out(browser, small):
    from selenium.webdriver.common.keys import Keys

    page = Boards(browser, small)
    first = data.load([small])["samples"][0]["variants"][0]["frames"][0]
    chosen, second, *_ = sorted(first["w"], key=lambda candidate: -candidate[1])
    assert chosen[0] == first["p"] and page.count("#weighed tr.best") == 1 and page.run("held") is None

    def outlined(colour: str) -> set[int]:
        """Cells with this colour on their left edge."""
        script = """
            const near = (pixel) => arguments[0].every((value, i) => Math.abs(value - pixel[i]) < 40);
            const isLine = (value, i, all) => i % 4 === 3 && value && near(all.slice(i - 3, i));
            const left = (cell) => read(cell % 8 / 8, (Math.floor(cell / 8) + 0.1) / 8, 3, 30);
            return now.slots.filter((_, cell) => left(cell).some(isLine));
        """
        return set(page.pixels("map", script, rgb(page.run(f"pens.{colour}"))))

    everywhere = {position for positions, *_ in first["w"] for position in positions}
    assert outlined("accent") == set(chosen[0]) and outlined("ink") >= everywhere - set(chosen[0])
    page.run("document.querySelector('#weighed tr[tabindex=\"0\"]').focus()")
    page.key(Keys.ARROW_DOWN)
    assert page.run("held[0]") == second[0] and page.count("#weighed tr.held") == 1
    assert outlined("ink") == set(second[0]) and outlined("accent") == set()
    page.key(Keys.ESCAPE)
    assert page.run("held") is None and outlined("accent") == set(chosen[0])
    page.run(f"point({second[0][0] - START})")
    assert second[0][0] in page.run("held[0]") and f"J {page.run('held[1]'):.4f}" in page.text("detail")
    assert page.complaints() == []


def test_pictures_of_all_examples_and_none_of_a_text(browser, small, tmp_path):
    """Thumbnails choose; an example that is a text beside them is shown as one."""
    found = data.load([small])
    decoding = found["samples"][1]["variants"][0]
    found["samples"][1]["variants"][0] = {k: v for k, v in decoding.items() if k not in ("grid", "image", "prompt")}
    path = tmp_path / "mixed.html"
    path.write_text(view.page(found))
    page = Page(browser, path)
    shown = "return ['picture', 'canvas'].map((id) => document.getElementById(id).offsetHeight > 0)"
    assert page.count("#strip img") == 2 and browser.execute_script(shown) == [True, False]
    buttons = browser.find_elements("css selector", "#strip button")
    buttons[1].click()
    assert browser.execute_script(shown) == [False, True] and page.count("#canvas .mask") == 64
    buttons[2].click()
    assert browser.execute_script(shown) == [True, False] and page.count("#strip [aria-current=true]") == 1
    assert browser.execute_script("return view.sample") == 2 and browser.title != "owned"
    assert page.text("prompt") == NASTY and page.complaints() == []


@pytest.mark.parametrize("broken", [False, True])
def test_without_its_picture_there_are_flat_cells_and_a_line(browser, tmp_path, broken):
    folder = image_run(tmp_path / "run", (4, 6), 6, 8)
    picture = folder / "images/0.png"
    whole = picture.read_bytes()
    # What only the browser finds: three bits a colour.
    head = whole[12:24] + b"\3" + whole[25:29]
    picture.write_bytes(whole[:12] + head + crc32(head).to_bytes(4, "big") + whole[33:]) if broken else picture.unlink()
    page = Boards(browser, folder)
    page.run("go(now.frames.length)")
    page.until(lambda: page.text("fault") != "")
    assert page.text("fault").startswith("images/0.png " + ("cannot be read" if broken else "is missing"))
    assert page.colours("patches") == [rgb(page.run("pens.soft"))] * 24
    page.run("go(0)")
    assert page.colours("patches") == [rgb(page.run("pens.mask"))] * 24 and page.complaints() == []


def test_what_is_no_bounded_whole_png_is_not_embedded(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "good.png")
    good = (folder / "good.png").read_bytes()
    (tmp_path / "outside.png").write_bytes(good)
    (folder / "torn.png").write_bytes(good[:-9])
    (folder / "text.png").write_text("no picture")
    (folder / "damaged.png").write_bytes(good[:50] + b"\0\0" + good[52:])
    Image.new("1", (5000, 1)).save(folder / "long.png")
    (folder / "folder.png").mkdir()
    names = ("none.png", "../outside.png", "torn.png", "text.png", "damaged.png", "long.png", "folder.png")
    faults = [album.Album().embed(folder, name)["fault"] for name in names]
    whole, long = "is not a whole PNG file", "has a side of more than 4096 pixels"
    assert faults == ["is missing", "lies outside of the run", whole, whole, whole, long, "is missing"]
    book = album.Album(room=len(good) + 1)
    assert "uri" in book.embed(folder, "good.png") and "--example" in book.embed(folder, "good.png")["fault"]
    monkeypatch.setattr(album, "LARGEST", 20)
    assert "more than" in album.Album().embed(folder, "good.png")["fault"]


def test_a_result_whose_grid_does_not_fit_its_masks_is_shown_as_text(tmp_path):
    folder = image_run(tmp_path / "run", (4, 6), 6, 8)
    edit_result(folder, grid=[4, 5])
    assert "grid" not in data.load([folder])["samples"][0]["variants"][0]


def test_1024_tokens_by_50_steps(browser, tmp_path):
    """The page stays small; how long a step takes is printed, not asserted."""
    from selenium.webdriver.common.keys import Keys

    folder = image_run(tmp_path / "large", (32, 32), 50, 16, candidates=8)
    page = Boards(browser, folder)
    assert (folder / "trace.html").stat().st_size < 3 << 20
    took = page.run(
        "(() => { const t = performance.now(); for (let f = 0; f < 50; f++) go(f); return performance.now() - t })()"
    )
    print(f"{took / 50:.2f} ms a step")
    page.run("go(20)")
    page.keep("picture")
    page.key("d", "c")
    page.keep("picture-dark")
    browser.set_window_size(480, 1400)
    page.until(lambda: page.run("$('map').width < 480"))
    page.keep("picture-narrow")
    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(1280, 1000)
    page.key(Keys.END)
    assert page.complaints() == []
