"""Any subset of the packages installs from wheels and works.

Each gets a virtual environment of its own that lends what is not ours (torch and the like) from the one this runs in,
which holds none of our packages. pip resolves without an index: what a package forgets to require is not found.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

BLOCKS = """
import mdm
from mdm_testing import toy_model
[result] = mdm.decode(toy_model("block-causal"), ["hello"], "confidence", cache="block", gen_length=8)
assert len(result.tokens) >= 8  # the last block of the grid is whole
"""

SUBSETS = {
    "alone": (["mdm-core"], [["-m", "pytest", "--noconftest", "-q", str(HERE / "test_alone.py")]]),
    "trio": (
        ["mdm-core", "mdm-llada", "mdm-infogain"],
        [["-m", "pytest", "--noconftest", "-q", str(HERE / "test_trio.py")]],
    ),
    "first-run": (
        ["mdm-core", "mdm-llada", "mdm-tiny", "mdm-infogain", "mdm-planning"],
        [["-m", "mdm", "run", "--limit", "2", "--out", "run"]],
    ),
    "cached": (
        ["mdm-core", "mdm-llada", "mdm-tiny", "mdm-fastdllm", "mdm-kvcache"],
        [["-m", "mdm", "generate", "--infill", "12+3_=46", "--mask", "_", "--sampler", "fastdllm-threshold",
          "--cache", "dual"]],
    ),
    "blocks": (["mdm-core", "mdm-sdar", "mdm-greedy", "mdm-testing"], [["-c", BLOCKS]]),
    "authors": (
        ["mdm-core", "mdm-testing", "mdm-greedy"],
        [["-m", "mdm", "new", "sampler", "mine"], ["-m", "mdm", "check", "margin"]],
    ),
    "measured": (
        ["mdm-core", "mdm-testing", "mdm-bench", "mdm-infogain"],
        [["-m", "mdm", "bench", "decode", "--cache", "none", "--prompt-length", "8", "--gen-length", "8", "--device",
          "cpu", "--bandwidth", "10"]],
    ),
    "reported": (
        ["mdm-core", "mdm-llada", "mdm-tiny", "mdm-infogain", "mdm-planning", "mdm-report"],
        [["-m", "mdm", "run", "--limit", "2", "--out", "run"], ["-m", "mdm", "compare", "run"],
         ["-m", "mdm", "trace", "view", "run"]],
    ),
}  # fmt: skip
"""Name -> what is installed, all of it, and what must succeed there, as arguments of Python."""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    ours = sorted(d.name for d in metadata.distributions() if d.name.startswith("mdm-"))
    assert not ours, f"the environment that lends its packages holds some of ours: {ours}"
    out = tmp_path_factory.mktemp("wheels")
    needed = sorted({name for names, _ in SUBSETS.values() for name in names})
    folders = [ROOT / "core" if name == "mdm-core" else ROOT / "plugins" / name for name in needed]
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*pip, *map(str, folders)], check=True)
    return out


@pytest.mark.parametrize("name", SUBSETS)
def test_the_subset_installs_and_works(name, wheels, tmp_path):
    names, commands = SUBSETS[name]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    site = next((tmp_path / "env").glob("lib/*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*args: str) -> str:
        done = subprocess.run([python, *args], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{' '.join(args)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    run("-m", "pip", "install", "-q", "--no-index", "--find-links", str(wheels), *(f"{n}>=1.0.0.dev0" for n in names))
    listed = run("-c", "from importlib.metadata import *; print(*sorted({d.name for d in distributions()}))").split()
    assert [n for n in listed if n.startswith("mdm-")] == sorted(names)
    assert "wrong" not in run("-m", "mdm", "doctor")
    run("-m", "mdm", "plugins", "--check")
    for command in commands:
        run(*command)
