"""Progress by tokens: lines, a log file and bars."""

from __future__ import annotations

import re

import pytest
from mdm.cli import progress as shown
from mdm.errors import MdmError
from mdm.runs.watch import Work


def decode(observer, until=4):
    """A variant of 4 examples of 10 tokens each, of which ``until`` become finished."""
    with observer:
        observer.on_note("loading tiny")
        observer.on_progress("info-gain", 0, 4, None)
        observer.on_work("info-gain", Work(rows=4, steps=5, tokens=20, tokens_left=20, seconds=2.0))
        observer.on_warning("odd\nthing")
        observer.on_progress("info-gain", until, 4, 0.75)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on by 3 seconds whenever somebody looks."""
    now = iter(range(0, 10**6, 3))
    monkeypatch.setattr(shown.time, "monotonic", lambda: float(next(now)))


def test_lines_tell_speed_and_what_is_left_and_end_with_the_total(clock, capsys):
    decode(shown.progress())
    out, err = capsys.readouterr()
    assert not out and "\x1b" not in err
    assert "info-gain: 0/4, 4 in decoding, step 5, 10 tokens/s, about 2 s left\n" in err
    assert re.search(r"\ninfo-gain: 4/4, accuracy 75.0%, \d+ s\n$", err) and "mdm: odd thing\n" in err


def test_a_short_run_prints_no_line_and_a_verbose_one_its_notes(capsys):
    decode(shown.progress())
    assert capsys.readouterr().err == "mdm: odd thing\n"
    decode(shown.progress(verbose=True))
    assert capsys.readouterr().err.startswith("loading tiny\n")


def test_quiet_leaves_warnings(clock, capsys):
    decode(shown.progress(quiet=True))
    assert capsys.readouterr().err == "mdm: odd thing\n"


def test_a_log_file_has_times_and_the_last_line_whatever_the_terminal_shows(tmp_path, capsys):
    log = tmp_path / "run.log"
    for until in (4, 1):
        decode(shown.progress(quiet=True, log_file=log), until)
    capsys.readouterr()
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S", line) for line in lines)
    said = [line[20:] for line in lines]
    assert said[0] == "loading tiny" and "warning: odd thing" in said
    assert "info-gain: 4/4, accuracy 75.0%, 0 s" in said  # of the first run
    assert said[-1] == "info-gain: 1/4, accuracy 75.0%, 0 s"  # and where the second one was stopped


def test_a_log_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(MdmError, match=f"cannot write {tmp_path}: Is a directory"):
        shown.progress(log_file=tmp_path)
    with pytest.raises(MdmError, match="--quiet and --verbose: give one of them"):
        shown.progress(quiet=True, verbose=True)


@pytest.mark.parametrize("width", [100, 60, 40, 24])
def test_a_bar_fits_its_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    bars = shown.Bars()
    decode(bars, until=1)
    with bars._progress.console.capture() as drawn:
        bars._progress.console.print(bars._progress.get_renderable())
    (line,) = drawn.get().splitlines()
    assert len(line) <= width and (width < 40 or "1/4" in line)
    assert ("tokens/s" in line) == (width >= 40)


def test_a_pace_is_that_of_the_last_half_minute():
    pace = shown.Pace("x", 0)
    pace.total = 10
    for seconds, tokens in ((10, 10), (50, 20), (60, 120)):
        pace.add(Work(1, 1, tokens, 1000, float(seconds)))
    assert pace.speed == 10.0 and pace.left() == "1:40"
    pace.done = 10
    assert pace.left() == "" and pace.share == 1.0


def test_examples_of_an_earlier_process_count_as_decoded():
    pace = shown.Pace("x", 5)
    pace.total = 10
    pace.add(Work(2, 3, 50, 50, 1.0))
    assert pace.share == 0.75
