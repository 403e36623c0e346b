"""``kill -9`` in the middle of a run, then the same command: nothing lost, nothing twice, the same numbers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SAMPLERS = ("info-gain", "random")
EXAMPLES = 64  # enough that a busy machine stops a run before it ends


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    args = [arg for sampler in SAMPLERS for arg in ("--sampler", sampler)]
    args += ["--limit", str(EXAMPLES), "--batch-size", "3", "--seed", "5", "--out", str(out), "--json", *more]
    command = [sys.executable, "-m", "mdm", "run", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def finished(out: Path) -> int:
    return sum(len(lines(out / sampler / "results.jsonl")) for sampler in SAMPLERS)


def stop_after(out: Path, count: int, how: signal.Signals) -> subprocess.Popen[str]:
    """Start the run and stop it as soon as ``count`` examples are in its files."""
    process = start(out)
    try:
        while finished(out) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(how)
        process.communicate(timeout=120)
    finally:
        process.kill()
    return process


def complete(out: Path) -> dict:
    process = start(out)
    text, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(text)


def numbers(summary: dict) -> list[dict]:
    """The summary without its times; entropies to the digits that a batch of another shape leaves the same."""
    return [
        {
            key: round(value, 4) if key == "cumulative_entropy" else value
            for key, value in row.items()
            if "second" not in key
        }
        for row in summary["runs"]
    ]


def decoded(out: Path, sampler: str) -> list[tuple]:
    return sorted((row["index"], row["id"], row["completion"]) for row in lines(out / sampler / "results.jsonl"))


def trace(out: Path, sampler: str) -> list[tuple]:
    found = lines(out / sampler / "trace.jsonl")
    return sorted((line["row"], line["step"], line["kind"], line["positions"], line["tokens"]) for line in found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, complete(out)


def test_killed_in_each_arm(tmp_path, whole):
    out = tmp_path / "run"
    for count in (5, EXAMPLES + 4):
        killed = stop_after(out, count, signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL
        assert count <= finished(out) < 2 * EXAMPLES
        assert not (out / "summary.json").exists()
    summary = complete(out)
    assert [row["examples"] for row in summary["runs"]] == [EXAMPLES, EXAMPLES]
    assert numbers(summary) == numbers(whole[1])
    for sampler in SAMPLERS:
        assert [index for index, *_ in decoded(out, sampler)] == list(range(EXAMPLES))
        assert decoded(out, sampler) == decoded(whole[0], sampler)
        assert trace(out, sampler) == trace(whole[0], sampler)


def test_ctrl_c_says_what_is_done_and_how_to_go_on(tmp_path, whole):
    out = tmp_path / "run"
    process = start(out)
    while finished(out) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in errors
    assert f"to go on: mdm run --config {out}/config.yaml --out {out}" in errors
    so_far = json.loads(text)
    assert so_far == json.loads((out / "summary.json").read_text())
    assert 5 <= so_far["runs"][0]["examples"] < EXAMPLES and not so_far["runs"][0]["complete"]
    resumed = subprocess.run(
        [sys.executable, "-m", "mdm", "run", "--config", f"{out}/config.yaml", "--out", str(out)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert decoded(out, "info-gain") == decoded(whole[0], "info-gain")
