"""Disks that fail and processes that are killed: nothing is lost, nothing doubled, and one line says what happened."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mdm.errors import MdmError
from mdm.runs import files, run as runs
from mdm.runs.results import ResultsFolder
from mdm_report.regrade import regrade
from stand_in_engine import engine as engine, lines, make

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.ESTALE, errno.EROFS)


def check_whole(out, summary):
    assert summary["complete"] and summary["runs"][0]["errors"] == 0
    assert sorted(line["row"] for line in lines(out / "results.jsonl")) == [0, 1, 2, 3, 4]
    assert sorted(line["row"] for line in lines(out / "trace.jsonl")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not [entry.name for entry in out.iterdir() if entry.name.startswith(".")]


class FailingLog(files.Log):
    """Fails at the n-th append, after a part of it is written."""

    left, code = 0, 0

    def append(self, *records):
        cls = type(self)
        cls.left -= 1
        if cls.left == 0:
            real = self._file

            class Torn:
                def __getattr__(self, name):
                    return getattr(real, name)

                def write(self, data):
                    real.write(bytes(data)[: len(data) // 2])
                    raise OSError(cls.code, os.strerror(cls.code))

            self._file = Torn()
        super().append(*records)


@pytest.mark.attack("runs: failing writes")
@pytest.mark.parametrize("code", ERRORS[:3], ids=errno.errorcode.get)
@pytest.mark.parametrize("nth", [1, 2, 5, 10])
def test_a_write_that_fails_loses_nothing(engine, tmp_path, monkeypatch, nth, code):
    with monkeypatch.context() as patch:
        FailingLog.left, FailingLog.code = nth, code
        patch.setattr(files, "Log", FailingLog)
        with pytest.raises(MdmError, match=r"cannot write .*\.jsonl: "):
            runs.run(make(), tmp_path / "out")
        written = len(lines(tmp_path / "out" / "results.jsonl")) if (tmp_path / "out").exists() else 0
        assert written == (nth - 1) // 2
    check_whole(tmp_path / "out", runs.run(make(), tmp_path / "out"))
    assert len(engine.decoded) <= 5 + 5


@pytest.mark.attack("runs: failing renames")
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("nth", range(1, 6))
def test_a_rename_that_fails_loses_nothing(engine, tmp_path, monkeypatch, nth, code):
    out, real, left = tmp_path / "out", os.replace, nth

    def replace(*args):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(code, os.strerror(code))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        for _ in range(2):  # the second time goes on
            try:
                runs.run(make(), out)
            except MdmError as error:
                assert "cannot write" in str(error) and "\n" not in str(error)
    check_whole(out, runs.run(make(), out))
    assert sorted(set(engine.decoded)) == [0, 1, 2, 3, 4]


@pytest.mark.attack("runs: failing writes")
@pytest.mark.parametrize("nth", [1, 3, 5])
@pytest.mark.parametrize("code", ERRORS[:2], ids=errno.errorcode.get)
def test_a_grade_that_cannot_be_written_leaves_what_is_there(engine, tmp_path, monkeypatch, nth, code):
    runs.run(make(), tmp_path)
    before = lines(tmp_path / "results.jsonl")
    with monkeypatch.context() as patch:
        FailingLog.left, FailingLog.code = 2 * nth, code
        patch.setattr(files, "Log", FailingLog)
        with pytest.raises(MdmError, match="cannot write"):
            regrade(tmp_path, everything=True)
    assert sorted(lines(tmp_path / "results.jsonl"), key=str) == sorted(before, key=str)
    regrade(tmp_path, everything=True)
    assert sorted(lines(tmp_path / "results.jsonl"), key=str) == sorted(before, key=str)


def test_a_killed_grading_keeps_each_grade(engine, tmp_path):
    """Grades are appended as they come: the last line of a row counts, and the next command drops the others."""
    runs.run(make(), tmp_path)
    path = tmp_path / "results.jsonl"
    first = lines(path)[0]
    with path.open("a") as log:
        log.write(json.dumps({**first, "metrics": {"right": 0.25}}) + "\n" + json.dumps(first)[:40])
    assert ResultsFolder(tmp_path).by_row[first["row"]].metrics == {"right": 0.25}
    assert runs.run(make(), tmp_path)["complete"] and len(lines(path)) == 5
    assert ResultsFolder(tmp_path).by_row[first["row"]].metrics == {"right": 0.25}


CHILD = """
import sys
sys.argv[1:1] = []
from mdm.cli import main
main(["run", "--limit", "40", "--batch-size", "2", "--sampler", "confidence", "--out", sys.argv[1], "--json"])
"""


def start(out):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.wide
@pytest.mark.attack("runs: kill -9")
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_moments(tmp_path, seed):
    out, chance = tmp_path / "out", random.Random(seed)
    for _ in range(3):
        process, count = start(out), chance.randrange(0, 38)
        path = out / "results.jsonl"
        while process.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < count):
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(out)
    text, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and json.loads(text)["complete"], errors
    assert sorted(line["row"] for line in lines(path)) == list(range(40))
    assert {line["row"] for line in lines(out / "trace.jsonl")} == set(range(40))
    assert not [entry.name for entry in out.iterdir() if entry.name.startswith(".")]


@pytest.mark.attack("runs: two at once")
def test_two_runs_at_once(engine, tmp_path):
    out = tmp_path / "out"
    runs.run(make(), out)
    with files.exclusive_lock(out):
        for act in (lambda: runs.run(make(), out), lambda: regrade(out, everything=True)):
            with pytest.raises(MdmError, match="another run is writing into"):
                act()
    check_whole(out, runs.run(make(), out))


@pytest.mark.attack("runs: folders that cannot be used")
@pytest.mark.parametrize(
    "trick", ["name too long", "below a file", "loop", "a file", "a FIFO", "a device", "of others"]
)
def test_a_folder_that_cannot_be_used_is_one_line(engine, tmp_path, capsys, trick):
    from mdm.cli import main

    out = tmp_path / "out"
    if trick == "name too long":
        out = tmp_path / ("x" * 300)
    elif trick == "below a file":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out"
    elif trick == "loop":
        out.symlink_to(out)
    elif trick == "a file":
        out.write_text("x")
    elif trick == "a FIFO":
        os.mkfifo(out)
    elif trick == "a device":
        out = Path("/dev/null")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("x")
    with pytest.raises(SystemExit) as stop:
        main(["run", "--sampler", "one", "--task", "copy", "--out", str(out)])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.splitlines()) == 1 and errors.startswith("mdm: ")


@pytest.mark.attack("runs: clocks")
@pytest.mark.parametrize("step", [-10.0, 0.0, 1e9])
def test_a_clock_that_jumps_spoils_no_result(engine, tmp_path, monkeypatch, step):
    clock = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: step * next(clock))
        runs.run(make(), tmp_path)
    assert runs.run(make(), tmp_path)["complete"]


@pytest.mark.attack("runs: pipes that close")
@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe"])
def test_output_that_cannot_be_written_is_no_traceback(where, tmp_path):
    command = [sys.executable, "-m", "mdm", "plugins", "--json"]
    if where == "/dev/full":
        with open(where, "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    else:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert (done.stderr == "") == (where == "a closed pipe")  # nobody reads on, as behind `| head`, is no mistake
