"""Exactly mdm-core, mdm-llada and mdm-infogain, from wheels: they decode a local checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import mdm

TINY = Path(__file__).parents[2] / "plugins" / "mdm-tiny" / "src" / "mdm_tiny" / "checkpoint"


def test_only_the_three_are_installed():
    ours = {d.name for d in metadata.distributions() if d.name.startswith("mdm-")}
    assert ours == {"mdm-core", "mdm-llada", "mdm-infogain"}


def test_a_local_checkpoint_is_decoded():
    model = mdm.load_model(TINY, device="cpu")
    [result] = mdm.decode(model, ["1234[MASK][MASK]214321341[MASK]"], gen_length=0)
    assert len(result.tokens) == 3
    assert result.forwards == 3
    assert set(result.text) <= set("1234")


def test_the_command_line_decodes_it():
    args = [
        sys.executable,
        "-m",
        "mdm",
        "generate",
        "--infill",
        "12+3_=46",
        "--mask",
        "_",
        "--model",
        str(TINY),
        "--json",
    ]
    got = subprocess.run(args, capture_output=True, text=True, timeout=300)
    assert got.returncode == 0, got.stderr
    assert "12+3" in json.loads(got.stdout)["text"]


def test_a_sampler_that_is_not_installed_is_named_with_its_package():
    got = subprocess.run(
        [sys.executable, "-m", "mdm", "generate", "1+1=", "--model", str(TINY), "--sampler", "margin"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert got.returncode == 2
    assert "mdm-greedy" in got.stderr
