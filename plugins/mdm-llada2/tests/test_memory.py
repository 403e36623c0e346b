"""Sharded checkpoints are loaded without a second copy of their weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("loading_memory.py")


def script(*args):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, args)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.wide
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="private memory is read from /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_takes_hardly_more_memory_than_the_weights(tmp_path, dtype):
    script("write", tmp_path / "model", "--dtype", dtype, "--gigabytes", 2)
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 3
    measured = json.loads(script("load", tmp_path / "model", "--dtype", dtype))
    assert measured["weights"] > 1.8e9
    assert measured["private"] <= 1.15 and measured["resident"] <= 1.15, measured
