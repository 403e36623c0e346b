"""One process, two, and two of which one is killed and the run taken up again: the same results and numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.runs import processes

EXAMPLES = 33  # odd: the shares differ
ARGUMENTS = ["run", "--limit", str(EXAMPLES), "--batch-size", "8", "--seed", "5", "--json"]


def start(out: Path, *launcher: str, more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *(launcher or ("mdm",)), *ARGUMENTS, "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def children(process: subprocess.Popen[str]) -> dict[str, int]:
    """The processes it started, by their rank."""
    found = {}
    for task in Path("/proc").glob("[0-9]*"):
        try:
            if int((task / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid:
                environment = dict(e.partition("=")[::2] for e in (task / "environ").read_text().split("\0"))
                found[environment.get("RANK", "")] = int(task.name)
        except OSError:
            continue  # gone meanwhile
    return found


def facts(folder: Path) -> tuple[dict, set, set]:
    """Summary, results and trace without times, with entropies to the digits that any batch's shape leaves the same."""

    def timeless(record: dict) -> dict:
        return {key: value for key, value in record.items() if "second" not in key}

    def rounded(record: dict) -> str:
        entropy = round(record["cumulative_entropy"], 4)
        return json.dumps({**timeless(record), "cumulative_entropy": entropy}, sort_keys=True)

    results, trace = lines(folder / "results.jsonl"), lines(folder / "trace.jsonl")
    assert len(results) == EXAMPLES  # each once
    steps = {json.dumps([line["row"], line["step"], line["positions"], line["tokens"]]) for line in trace}
    assert len(steps) == len(trace)
    [row] = json.loads((folder / "summary.json").read_text())["runs"]
    return timeless(row), set(map(rounded, results)), steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, set, set]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = CliRunner().invoke(cli, [*ARGUMENTS, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return facts(out)


def test_two_processes_do_as_one(tmp_path, whole):
    process = start(tmp_path / "run", more=("--num-processes", "2"))
    text, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert json.loads(text)["runs"][0]["examples"] == EXAMPLES
    assert facts(tmp_path / "run") == whole
    assert not list((tmp_path / "run").glob("*rank*"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process to kill in /proc")
def test_a_killed_process_leaves_a_run_that_resumes_under_another_launcher(tmp_path, whole):
    out = tmp_path / "run"
    process = start(out, more=("--num-processes", "2"))
    try:
        while not ((out / "results.rank1.jsonl").exists() and (out / "results.rank1.jsonl").stat().st_size):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        os.kill(children(process)["1"], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1 and "Traceback" not in errors, errors
    assert f"mdm: process 1 was killed (SIGKILL); to go on: mdm run --config {out}/config.yaml --out {out}" in errors
    assert not json.loads((out / "summary.json").read_text())["complete"]
    resumed = start(
        out, "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "-m", "mdm"
    )
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    assert facts(out) == whole
    assert not list(out.glob("*rank*"))


def test_what_all_processes_refuse_is_said_once(tmp_path):
    process = start(tmp_path / "run", more=("--num-processes", "2", "--model", str(tmp_path)))
    text, errors = process.communicate(timeout=120)
    assert (process.returncode, text) == (2, "")
    assert errors.count("mdm: ") == 1 and errors.splitlines()[-1].startswith("mdm: "), errors  # notes may come before
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_several_processes_take_one_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = CliRunner().invoke(cli, ["run"])
    assert "needs --out, and takes no --num-processes" in str(refused.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_keeps_what_all_processes_finished(tmp_path, whole):
    out = tmp_path / "run"
    process = start(out, more=("--num-processes", "2"))
    try:
        while not all(path.exists() and path.stat().st_size for path in (out / f"results.rank{r}.jsonl" for r in "01")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == f"mdm: interrupted; to go on: mdm run --config {out}/config.yaml --out {out}"
    so_far = json.loads(text)
    assert so_far == json.loads((out / "summary.json").read_text()) and not so_far["complete"]
    written = {line["row"] for path in out.glob("results*.jsonl") for line in lines(path)}
    resumed = CliRunner().invoke(cli, [*ARGUMENTS, "--out", str(out)], catch_exceptions=False)
    assert resumed.exit_code == 0 and facts(out) == whole and len(written) >= 2


def failure(exitcode: int, timestamp: int, error: str | None = None) -> SimpleNamespace:
    message = {"message": error} if error else "To enable traceback see ..."
    return SimpleNamespace(exitcode=exitcode, timestamp=timestamp, message=message)


@pytest.mark.parametrize(
    ("failures", "rank"),
    [
        ({0: failure(130, 7), 1: failure(-signal.SIGKILL, 7)}, 1),  # rank 0 only lost its peer
        ({1: failure(2, 7, "MdmError: no"), 0: failure(-signal.SIGTERM, 7)}, 1),  # the launcher ended rank 0
        ({0: failure(2, 8), 2: failure(2, 8, "MdmError: no")}, 2),
        ({0: failure(2, 7, "MdmError: no"), 1: failure(-signal.SIGKILL, 40)}, 0),  # rank 1 did not stop in time
        ({0: failure(1, 7), 1: failure(-signal.SIGTERM, 7)}, 0),
        ({1: failure(130, 7), 0: failure(130, 7)}, 1),
    ],
)
def test_which_process_failed_first(failures, rank):
    assert processes.first_failure(failures)[0] == rank


@pytest.mark.parametrize("sigint", [signal.default_int_handler, signal.SIG_IGN])
def test_a_launchers_sigterm_keeps_what_is_finished(sigint):
    """Launchers send it when another process fails. In a process of a shell's background SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, sigint)
    try:
        with pytest.raises(KeyboardInterrupt), processes.sigterm_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
