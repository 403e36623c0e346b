"""Every command of the pages and every snippet of the README is run.

The commands of a block marked ``bash`` are run one after the other in one folder; a block marked ``console`` needs a
download, a GPU or hours. The two commands under "Start" are run by ``.ci/run``, which reads them from the README.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from goldens import ROOT

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```", TEXT, re.M | re.S)
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("*/*/README.md")),
    ROOT / "core/README.md",
]
FIRST = ("quickstart.md", "runs.md", "watching.md")
"""The pages beside the README whose commands are run for every change; all others are `wide`."""
COMMANDS = [
    pytest.param(lines, id=f"{page.parent.name}/{page.name}: {lines[0]}", marks=wide)
    for page in PAGES
    for wide in [[] if page.parent == ROOT or page.name in FIRST else [pytest.mark.wide]]
    for body in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S)
    if (lines := [line for line in body.splitlines() if line.startswith("mdm ")])
]
BIN = Path(sys.executable).parent


def run(command: list[str], folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **env}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_readme_has_commands():
    assert max(len(commands) for (commands,) in (block.values for block in COMMANDS)) >= 7


@pytest.mark.parametrize("commands", COMMANDS)
def test_commands(commands, tmp_path):
    for command in commands:
        done = run(shlex.split(command), tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip(), command


def test_install_of_a_subset():
    [command] = [line for kind, _, body in BLOCKS if kind == "bash" for line in body.splitlines() if " ./core" in line]
    got = run([sys.executable, "-m", *shlex.split(command), "--dry-run", "--no-build-isolation"], ROOT)
    assert got.returncode == 0, got.stderr
    assert "mdm-core" in got.stdout


def test_python_snippet(tmp_path):
    [snippet] = [body for kind, title, body in BLOCKS if kind == "python" and not title]
    got = run([sys.executable, "-c", snippet], tmp_path)
    assert got.returncode == 0, got.stderr
    text, entropy, forwards = got.stdout.rsplit(maxsplit=2)
    assert float(entropy) >= 0 and int(forwards) == 16 and text


def test_the_plugin_is_installed_and_runs(tmp_path):
    for _, title, body in BLOCKS:
        if title:
            path = tmp_path / "plugin" / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    assert run([*install, str(tmp_path / "plugin")], tmp_path).returncode == 0
    [command] = re.findall(r"`(mdm run --sampler sure[^`]*)`", TEXT)
    got = run([*shlex.split(command), "--limit", "2"], tmp_path, PYTHONPATH=str(site))
    assert got.returncode == 0, got.stderr
    assert "sure" in got.stdout
