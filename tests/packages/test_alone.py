"""The core with no plugin: it starts, and it says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def mdm(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mdm", *args], capture_output=True, text=True, timeout=120)


def test_help_and_plugins():
    assert mdm("--help").returncode == 0
    listed = mdm("plugins")
    assert listed.returncode == 0
    assert "none" in listed.stdout


@pytest.mark.parametrize(
    ("args", "package"),
    [
        (["run"], "mdm-"),
        (["run", "--task", "sudoku"], "mdm-planning"),
        (["generate", "1+1=", "--model", "tiny"], "mdm-"),
        (["generate", "1+1=", "--sampler", "info-gain"], "mdm-infogain"),
        (["generate", "1+1=", "--sampler", "confidence"], "mdm-greedy"),
        (["generate", "1+1=", "--cache", "dual"], "mdm-"),
        (["compare", "runs/one"], "mdm-report"),
        (["trace", "view", "runs/one"], "mdm-report"),
        (["bench", "decode"], "mdm-bench"),
        (["check", "confidence"], "mdm-testing"),
        (["new", "sampler", "mine"], "mdm-testing"),
    ],
)
def test_an_error_names_the_package_to_install(args, package):
    got = mdm(*args)
    assert got.returncode == 2
    assert package in got.stderr
    assert "Traceback" not in got.stderr
    assert len(got.stderr.strip().splitlines()) == 1


def test_nothing_but_the_core_is_installed():
    from importlib import metadata

    ours = {d.name for d in metadata.distributions() if d.name.startswith("mdm-")}
    assert ours == {"mdm-core"}
