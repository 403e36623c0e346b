"""``--live``: on a terminal (a pty) the canvas fills up; elsewhere a plain line tells each step."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from mdm.cli import cli, live
from mdm.cli.live import CanvasView, GridView, LiveBars, LiveLines
from mdm.cli.picture_text import half_blocks
from mdm.protocols.hooks import StepEvent
from mdm.runs.watch import GuardedObserver

PROMPT = ["generate", "--infill", "2*_4=48", "--mask", "_", "--live"]


def test_elsewhere_each_step_is_a_line_and_stdout_stays_clean():
    done = CliRunner().invoke(cli, ["generate", "--infill", "__+_0=42", "--mask", "_", "--live", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    steps = [line for line in done.stderr.splitlines() if " step " in line]
    assert len(steps) == len(answer["trace"]) == 3
    for number, (said, line) in enumerate(zip(steps, answer["trace"], strict=True), 1):
        assert said.startswith(f"info-gain #1 step {number}, commit: {line['positions'][0]} ")
        assert f"({line['entropy'][0]:.3f})" in said
        assert said.endswith(f"; {line['candidates']} weighed") == bool(line["candidates"])
        assert "weighed" not in line  # watching adds nothing to the answer


def test_a_watched_run_writes_what_an_unwatched_one_does(tmp_path):
    for out, more in (("quiet", []), ("watched", ["--live"])):
        command = ["run", "--task", "equations", "--limit", "2", "--out", str(tmp_path / out), *more]
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    lines = map(json.loads, (tmp_path / "watched" / "results.jsonl").read_text().splitlines())
    assert set(re.findall(r"info-gain (\S+) step", done.stderr)) == {line["id"] for line in lines}
    quiet, watched = ((tmp_path / out / "trace.jsonl").read_text() for out in ("quiet", "watched"))
    assert sorted(quiet.splitlines()) == sorted(watched.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_the_masks_dissolve():
    import os
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "HF_HUB_OFFLINE": "1"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "mdm", *PROMPT], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        answer = process.stdout.read().strip()
    os.close(ours)
    assert process.returncode == 0, seen
    screen = seen.decode()
    assert "\x1b[" in screen and "info-gain #1, step 1" in screen
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert re.fullmatch(r"2\*\d4=48", answer) and f"│ {answer}" in plain


def test_a_long_canvas_is_shown_around_the_newest_token():
    canvas = CanvasView(["word "] * 1000 + [None] * 200)
    candidate = {"positions": [1101], "J": -1.0, "C": 0.5, "H": 0.5}
    line = {"step": 0, "kind": "commit", "positions": [1100], "entropy": [0.1], "weighed": [candidate]}
    canvas.apply(line, ["HERE"])
    shown = canvas.text(40, 10).plain
    assert shown.startswith("…") and "HERE" in shown and "▒" in shown and len(shown) < 700
    assert not canvas.done


def test_a_step_without_candidates_is_shown_as_well():
    """An autoregressive model's lines have no more than a plain trace's."""
    canvas = CanvasView(["a", None])
    canvas.apply({"step": 0, "kind": "commit", "positions": [1], "entropy": [0.1]}, ["b"])
    assert canvas.text(80, 1).plain == "ab" and canvas.weighed().plain == "" and canvas.done


def test_a_token_that_is_replaced_is_no_further_one(capsys):
    lines = [line(0, [1, 2], weighed=[[2, 1], [3]]), line(1, [3]), line(1, [1], "edit"), line(1, [2], "remask")]
    canvas = CanvasView(["a", None, None, None])
    for each, texts in zip(lines, [["b", "c"], ["d"], ["e"], [None]], strict=True):
        canvas.apply(each, texts)
    assert canvas.text(80, 1).plain == "ae░d" and not canvas.done
    view = LiveLines()
    view.on_begin("x", {0: ["a", None, None, None]}, lambda ids: [chr(57 + i) for i in ids], {0: (1, 3)})
    view.on_step(StepEvent(tuple(lines)))
    assert [said.split(", mean")[0] for said in capsys.readouterr().err.splitlines()] == [
        "x #1 step 1, commit: 2 tokens, 2 of 3 decoded", "x #1 step 2, commit: 1 token, 3 of 3 decoded",
        "x #1 step 2, edit: 1 token replaced, 3 of 3 decoded", "x #1 step 2, remask: 1 token, 2 of 3 decoded",
    ]  # fmt: skip


def test_the_canvas_may_be_drawn_while_the_next_variant_begins():
    """Another thread draws at any time, also in the middle of ``on_begin``."""
    view = LiveBars()
    view.on_begin("first", {7: ["a", None]}, list)
    view._front = 7

    drawn = []

    def draw(name, value):
        object.__setattr__(view, name, value)
        drawn.append(view._render())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveBars, "__setattr__", lambda self, name, value: draw(name, value), raising=False)
        view.on_begin("second", {0: ["b", None]}, list)
    assert len(drawn) >= 2


def test_a_token_without_text_is_not_shown_as_a_mask(capsys):
    """Byte-level tokenizers have such tokens."""
    view = LiveLines()
    view.on_begin("x", {0: [None]}, lambda ids: [""] * len(ids))
    line = {"row": 0, "step": 0, "kind": "commit", "positions": [0], "tokens": [3], "entropy": [0.5]}
    view.on_step(StepEvent((line,)))
    assert capsys.readouterr().err == "x #1 step 1, commit: 0 '' (0.500)\n"


# --- pictures ---------------------------------------------------------------------------------------------------
CANVAS = ["<|soi|>", *[None] * 6, "<|eoi|>"]
"""A grid of 2 × 3, whose first position is 1."""


def line(step, positions, kind="commit", entropy=0.5, weighed=()):
    return {
        "row": 0, "step": step, "kind": kind, "positions": positions, "tokens": [40 + p for p in positions],
        "entropy": [entropy] * len(positions),
        "weighed": [{"positions": p, "J": -float(p[0]), "C": 0.5, "H": 0.5} for p in weighed],
    }  # fmt: skip


STEPS = (line(0, [2, 6], weighed=[[2, 6], [3, 5]]), line(0, [6], "remask"), line(1, [1, 3, 4, 5, 6], entropy=1.5))


def texts_of(ids):
    return ["code"] * len(ids)


def test_of_a_picture_each_step_counts_its_tokens(capsys):
    view = GuardedObserver(LiveLines())
    view.on_begin("x", {0: CANVAS, 1: ["a", None]}, texts_of, grids={0: (2, 3)})
    view.on_step(StepEvent(STEPS))
    assert capsys.readouterr().err.splitlines() == [
        "x #1 step 1, commit: 2 tokens, 2 of 6 decoded, mean entropy 0.500 nats; 2 weighed",
        "x #1 step 1, remask: 1 token, 1 of 6 decoded",
        "x #1 step 2, commit: 5 tokens, 6 of 6 decoded, mean entropy 1.500 nats",
    ]
    view.on_step(StepEvent((line(0, [1]) | {"row": 1},)))
    assert capsys.readouterr().err == "x #2 step 1, commit: 1 'code' (0.500)\n"


def test_a_picture_is_a_grid_of_masks():
    grid = GridView(CANVAS, (2, 3))
    assert grid.text(80, 9).plain == "░░░░░░\n░░░░░░" and not grid.done
    grid.apply(STEPS[0], ["code"] * 2)
    shown = grid.text(6, 2)
    assert shown.plain == "░░▐▌▒▒\n░░▒▒▐▌"
    assert grid.weighed().plain.splitlines()[0].startswith("▶ (1, 2), (2, 3) ")
    assert [str(span.style) for span in shown.spans if "reverse" in str(span.style)] == ["bold reverse #3fa66b"] * 2
    grid.apply(STEPS[1], [None])
    assert grid.codes == [None, 42, None, None, None, None] and grid.text(6, 2).plain == "░░██░░\n░░░░░░"
    grid.apply(STEPS[2], ["code"] * 5)
    assert grid.text(6, 2).plain == "▐▌██▐▌\n▐▌▐▌▐▌" and grid.done and grid.codes == [41, 42, 43, 44, 45, 46]


def test_a_large_grid_is_sampled_and_the_newest_token_stays_in_sight():
    grid = GridView([None] * 1024, (32, 32))
    assert grid.text(64, 32).plain == "\n".join(["░" * 64] * 32)
    for columns, lines, side in ((63, 32, 16), (64, 16, 16), (22, 40, 11), (200, 11, 11)):
        assert grid.text(columns, lines).plain == "\n".join(["░" * 2 * side] * side)
    candidate = {"positions": list(range(40, 60)), "J": -1.0, "C": 0.5, "H": 0.5}
    grid.apply(line(0, [33]) | {"weighed": [candidate]}, ["code"])
    assert grid.text(32, 16).plain.startswith("▐▌░░░░░░▒▒")
    assert "(2, 9), (2, 10), (2, 11) and 17 more " in grid.weighed().plain


class Clock:
    """Time that passes where someone sleeps, or says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def terminal(monkeypatch):
    """Of 24-bit colour and 80 × 30 characters, with a clock of its own."""
    environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "FORCE_COLOR": "1"}
    for name, value in (environment | {"COLUMNS": "80", "LINES": "30"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def rendered(view):
    console = view._progress.console
    return "".join(segment.text for segment in console.render(view._render()))


@pytest.mark.parametrize("takes", [0.0, 1.0])
def test_pictures_so_far_are_drawn_but_seldom(terminal, takes):
    """Decoding waits for them for a fifth of its time at most."""
    drawn = []

    def pictures(codes):
        drawn.append((terminal.now, list(codes)))
        terminal.sleep(takes)
        return np.full((20, 30, 3), 128, np.uint8)

    view = LiveBars()
    view.on_begin("x", {0: [None] * 120}, texts_of, grids={0: (10, 12)}, pictures=pictures)
    for step in range(120):
        view.on_step(StepEvent((line(step, [step]),)))
    assert [code is None for code in drawn[0][1]] == [False] + [True] * 119
    times = [time for time, _ in drawn]
    pauses = [later - earlier - takes for earlier, later in pairwise(times)]
    assert len(drawn) > 1 and min(pauses) >= max(0.5, 4 * takes) and max(pauses) < max(0.5, 4 * takes) + 0.1
    assert "▀▀▀" in rendered(view) and "██" in rendered(view)


def test_without_24_bit_colour_or_a_picture_there_is_the_grid(terminal, monkeypatch):
    monkeypatch.setenv("COLORTERM", "")
    for pictures in (None, pytest.fail):
        view = LiveBars()
        view.on_begin("x", {0: CANVAS, 1: ["a", None]}, texts_of, grids={0: (2, 3)}, pictures=pictures)
        view.on_step(StepEvent(STEPS[:1]))
        assert "░░▐▌▒▒" in rendered(view) and "(1, 2), (2, 3)" in rendered(view) and "▀" not in rendered(view)
        view.on_step(StepEvent(STEPS[1:]))
        view.on_step(StepEvent((line(0, [1]) | {"row": 1},)))
        assert "acode" in rendered(view)


def test_half_blocks_are_the_mean_colours_of_their_areas():
    image = np.random.default_rng(0).integers(0, 256, (15, 12, 3), dtype=np.uint8)
    shown = half_blocks(image, 4)  # 5 rows of areas of 3 × 3 pixels
    assert shown.plain == "▀▀▀▀\n▀▀▀▀\n▀▀▀▀"
    styles = [span.style for span in shown.spans]
    for y in range(5):
        for x in range(4):
            style = styles[y // 2 * 4 + x]
            colour = style.bgcolor if y % 2 else style.color
            assert tuple(colour.triplet) == tuple(image[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].mean((0, 1)).round())
    assert all(style.bgcolor is None for style in styles[8:])


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 50), (512, 512)])
def test_half_blocks_fit_any_width(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    for width in (1, 5, 64):
        lines = half_blocks(image, width).plain.split("\n")
        assert {len(shown) for shown in lines} == {min(width, shape[1])} and 1 <= len(lines) <= max(1, shape[0])
    assert {tuple(span.style.color.triplet) for span in half_blocks(image, 5).spans} == {(7, 7, 7)}


def test_the_live_view_takes_all_of_stderr():
    refused = CliRunner().invoke(cli, ["run", "--live", "--quiet"])
    assert "--live takes the whole of stderr" in str(refused.exception)
