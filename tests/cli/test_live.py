"""``--live``: on a terminal (a pty) the canvas fills up; elsewhere a plain line tells each step."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.cli.live import CanvasView, LiveBars, LiveLines
from mdm.protocols.hooks import StepEvent

PROMPT = ["generate", "--infill", "2*_4=48", "--mask", "_", "--live"]


def test_elsewhere_each_step_is_a_line_and_stdout_stays_clean():
    done = CliRunner().invoke(cli, ["generate", "--infill", "__+_0=42", "--mask", "_", "--live", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    steps = [line for line in done.stderr.splitlines() if " step " in line]
    assert len(steps) == len(answer["trace"]) == 3
    for number, (said, line) in enumerate(zip(steps, answer["trace"], strict=True), 1):
        assert said.startswith(f"info-gain #0 step {number}, commit: {line['positions'][0]} ")
        assert f"({line['entropy'][0]:.3f})" in said
        assert said.endswith(f"; {line['candidates']} weighed") == bool(line["candidates"])
        assert "weighed" not in line  # watching adds nothing to the answer


def test_a_watched_run_writes_what_an_unwatched_one_does(tmp_path):
    for out, more in (("quiet", []), ("watched", ["--live"])):
        command = ["run", "--task", "equations", "--limit", "2", "--out", str(tmp_path / out), *more]
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    rows = {int(row) for row in re.findall(r"info-gain #(\d+) step", done.stderr)}
    assert rows == {0, 1}
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
    assert "\x1b[" in screen and "info-gain #0, step 1" in screen
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert re.fullmatch(r"2\*\d4=48", answer) and f"│ {answer}" in plain


def test_a_long_canvas_is_shown_around_the_newest_token():
    canvas = CanvasView(["word "] * 1000 + [None] * 200)
    candidate = {"positions": [1101], "J": -1.0, "C": 0.5, "H": 0.5}
    line = {"step": 0, "kind": "commit", "positions": [1100], "entropy": [0.1], "weighed": [candidate]}
    canvas.apply(line, ["HERE"])
    shown = canvas.text(400).plain
    assert shown.startswith("…") and "HERE" in shown and "▒" in shown and len(shown) < 700
    assert not canvas.done


def test_a_step_without_candidates_is_shown_as_well():
    """An autoregressive model's lines have no more than a plain trace's."""
    canvas = CanvasView(["a", None])
    canvas.apply({"step": 0, "kind": "commit", "positions": [1], "entropy": [0.1]}, ["b"])
    assert canvas.text(80).plain == "ab" and canvas.weighed().plain == "" and canvas.done


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
    assert capsys.readouterr().err == "x #0 step 1, commit: 0 '' (0.500)\n"
