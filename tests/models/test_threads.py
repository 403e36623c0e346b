"""How many threads torch computes with: as said, as the environment says, or as many cores as are free."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import mdm
import pytest
import torch
from click.testing import CliRunner
from mdm.cli import cli
from mdm.models import threads

LARGE = threads.SMALL


@pytest.fixture(autouse=True)
def unstated(monkeypatch):
    """An environment that says nothing, a torch of four threads, and all of it as before afterwards."""
    before = torch.get_num_threads()
    for name in (*threads.STATED_BY, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "weight_bytes", "device", "free", "used"),
    [
        (3, 0, "cpu", 8, 3), (None, 0, "cpu", 8, 4), ("auto", LARGE - 1, "cpu", 8, 1), ("auto", LARGE, "cpu", 3, 3),
        ("auto", LARGE, "cpu", 8, 4), ("auto", LARGE, "cpu", 1, 1), ("auto", LARGE, "cuda:0", 3, 3),
    ],
)  # fmt: skip
def test_what_is_used(monkeypatch, asked, weight_bytes, device, free, used):
    monkeypatch.setattr(threads, "free_cores", lambda processes: free)
    threads.use_threads(asked, weight_bytes, device)
    assert torch.get_num_threads() == used


def test_few_beside_a_gpu(monkeypatch):
    torch.set_num_threads(8)
    monkeypatch.setattr(threads, "free_cores", lambda processes: 64)
    threads.use_threads("auto", LARGE, "cuda")
    assert torch.get_num_threads() == threads.MOST_BESIDE_GPU


@pytest.mark.parametrize("name", threads.STATED_BY)
def test_what_the_environment_states_stays_unless_a_number_is_asked_for(monkeypatch, name):
    monkeypatch.setenv(name, "4")
    threads.use_threads("auto", 0, "cpu")
    assert torch.get_num_threads() == 4
    threads.use_threads(2, 0, "cpu")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("wrong", [0, -1, "many", 1.5])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(mdm.MdmError, match="threads is .*: it should be a number from 1, or auto"):
        mdm.load_model("tiny", device="cpu", threads=wrong)


def test_a_command_computes_with_so_many():
    for flags, used in (([], 1), (["--threads", "3"], 3)):
        done = CliRunner().invoke(
            cli, ["generate", "1+1=", "--gen-length", "1", "--device", "cpu", *flags], catch_exceptions=False
        )
        assert (done.exit_code, torch.get_num_threads()) == (0, used)


def test_a_library_leaves_torchs_threads_alone():
    mdm.load_model("tiny", device="cpu")
    assert torch.get_num_threads() == 4


def test_busy_cores_are_left_out(monkeypatch):
    monkeypatch.setattr(threads, "_quota", lambda: float("inf"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for busy, free in ((0.0, cores), (0.4, cores), (cores - 0.6, 1), (cores, 1), (3 * cores, 1)):
        monkeypatch.setattr(threads, "_busy", lambda _, busy=busy: busy)
        assert threads.free_cores() == free
    monkeypatch.setattr(threads, "_busy", lambda _: pytest.fail("processes of one run are no strangers"))
    assert [threads.free_cores(n) for n in (2, 10**6)] == [max(1, cores // 2), 1]


def test_a_container_may_have_fewer(monkeypatch):
    monkeypatch.setattr(threads, "_busy", lambda _: 0.0)
    monkeypatch.setattr(threads, "_quota", lambda: 1.5)
    assert threads.free_cores() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_a_busy_core_is_seen():
    [core] = list(os.sched_getaffinity(0))[:1]
    spinning = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        os.sched_setaffinity(spinning.pid, {core})
        spinning.stdout.read(1)
        time.sleep(0.1)
        assert threads._busy({core}) > 0.5
    finally:
        spinning.kill()
        spinning.communicate()
    assert threads._busy({-1}) >= 0  # a core that is not listed: the load


def test_a_run_goes_on_with_other_threads(tmp_path):
    out = tmp_path / "run"
    for number in ("1", "2"):
        flags = ["--limit", "1", "--steps", "1", "--device", "cpu", "--threads", number, "--out", str(out), "--json"]
        done = CliRunner().invoke(cli, ["run", "--sampler", "confidence", *flags])
        assert done.exit_code == 0, done.output
    assert "threads: 1\n" in (out / "config.yaml").read_text()
