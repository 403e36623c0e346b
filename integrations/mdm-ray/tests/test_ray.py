"""Runs on a Ray cluster of two CPU workers: the lines of one process, whatever is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from fake_packages import site as site

pytestmark = [
    pytest.mark.wide,
    pytest.mark.skipif(
        not any(dist.name == "ray" for dist in metadata.distributions()),
        reason="ray is not installed (tox -e ray has it)",
    ),
]

EXAMPLES = 60
RUN = {"sampler": ["info-gain"], "batch_size": 1, "limit": EXAMPLES, "seed": 3}
"""Alone in its batch an example's sums of floats are the same to the last digit."""


def ray_run(out: Path, *more: str, **settings: object) -> subprocess.Popen[str]:
    file = out.with_suffix(".yaml")
    file.write_text(json.dumps(RUN | settings))
    command = [sys.executable, "-m", "mdm", "ray-run", str(file), "--out", str(out), "--json", "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as Ray gives it to its workers
    return subprocess.Popen(
        [*command, "--share", "4", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def lines(folder: Path, name: str = "results") -> list[str]:
    """A log's lines by their row, times aside."""
    path = folder / f"{name}.jsonl"
    records = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [json.dumps(record | {"seconds": 0}) for record in sorted(records, key=lambda record: record["row"])]


def wait_for(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until so many results are written."""
    while not (out / "results.jsonl").exists() or len(lines(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def descendants(process: int) -> dict[int, str]:
    """The processes that a process started, and theirs, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
        if parent == process:
            found |= {int(folder.name): line} | descendants(int(folder.name))
    return found


def workers(process: int) -> list[int]:
    return [pid for pid, line in descendants(process).items() if "MapWorker" in line]


def is_running(process: int) -> bool:
    """Whether it is there, and not only waits to be buried."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def finish(process: subprocess.Popen[str]) -> dict:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of one process."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "run.yaml").write_text(json.dumps(RUN))
    command = [sys.executable, "-m", "mdm", "run", "--config", str(folder / "run.yaml"), "--out", str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder / "out"


def check_whole(out: Path, whole: Path) -> None:
    assert len(lines(whole)) == EXAMPLES
    for name in ("results", "trace"):
        assert lines(out, name) == lines(whole, name)
    assert (out / "config.yaml").read_bytes() == (whole / "config.yaml").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_worker_that_is_killed_is_replaced(tmp_path, whole):
    process = ray_run(tmp_path / "out")
    try:
        wait_for(process, tmp_path / "out", 1)
        first = workers(process.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        assert len(lines(tmp_path / "out")) < EXAMPLES
        summary = finish(process)
    finally:
        process.kill()
    assert summary["complete"] and summary["runs"][0]["examples"] == EXAMPLES and summary["runs"][0]["errors"] == 0
    check_whole(tmp_path / "out", whole)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_goes_on(tmp_path, whole, how):
    process = ray_run(tmp_path / "out")
    started = []
    try:
        wait_for(process, tmp_path / "out", 1)
        started = workers(process.pid)
        process.send_signal(how)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    written = lines(tmp_path / "out")
    assert 1 <= len(written) < EXAMPLES
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130 and "to go on: mdm ray-run" in errors and "Traceback" not in errors
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False
    deadline = time.monotonic() + 60
    while alive := list(filter(is_running, started)):
        assert time.monotonic() < deadline, alive  # Ray ends the workers also where the command was killed
        time.sleep(0.1)
    assert finish(ray_run(tmp_path / "out"))["complete"]
    kept = set(written) & set(lines(tmp_path / "out"))
    assert len(kept) == len(written)
    check_whole(tmp_path / "out", whole)


def test_examples_that_kill_their_workers_end_the_run(tmp_path, site, monkeypatch):
    """Not the workers for ever, one after the other."""
    site.package(
        "mdm-deadly", {"mdm.tasks": {"deadly": "mdm_deadly:Deadly"}},
        """
        import os, signal
        from mdm_planning.sudoku import Sudoku

        class Deadly(Sudoku):
            def grade(self, example, completion):
                if example.id.endswith("-3"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().grade(example, completion)
        """,
    )  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", site.env()["PYTHONPATH"])
    process = ray_run(tmp_path / "out", "--share", "1", task="deadly", limit=6)
    _, errors = process.communicate(timeout=300)
    last = errors.strip().splitlines()[-1]
    assert process.returncode == 2 and last.startswith("mdm: workers died 4 times over the examples "), errors
    assert 3 not in {json.loads(line)["row"] for line in lines(tmp_path / "out")}


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    for more, settings, why in (
        (["--gpus", "1"], {}, "each takes 1 CPU and 1 GPU"),
        ([], {"model": ["nowhere/at-all"], "offline": True}, "nowhere/at-all"),
        (["--address", "auto"], {}, "Ray cannot be reached at auto"),
    ):
        process = ray_run(tmp_path / "out", *more, **settings)
        out, errors = process.communicate(timeout=120)
        said = [line for line in errors.splitlines() if line.startswith("mdm: ")]
        assert process.returncode == 2 and not out and len(said) == 1 and why in said[0], errors
        assert "Traceback" not in errors and not (tmp_path / "out").exists()
