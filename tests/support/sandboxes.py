"""Sandboxes for tests: on machines that offer less than this one, and as root or an ordinary user."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from mdm import errors
from mdm_code import sandbox

LIMITS = {"cpu": 2, "wall": 10, "memory": 512 * 2**20, "disk": 16 * 2**20}
ALL, BARE = {}, {"bubblewrap": False, "namespaces": False, "libseccomp": False, "landlock": 0}
MACHINES = {
    "all layers": ALL,
    "our own filter alone": BARE,
    "no bubblewrap": {"bubblewrap": False},
    "no namespaces": {"bubblewrap": False, "namespaces": False},
    "no libseccomp": {"libseccomp": False},
    "no Landlock": {"landlock": 0},
    "Landlock 2, no namespaces": {"bubblewrap": False, "landlock": 2, "namespaces": False},
    "bubblewrap alone": {"namespaces": False, "libseccomp": False, "landlock": 0},
}
BATCH = str(Path(__file__).with_name("sandbox_batch.py"))
USER = 65534
SYSTEM = "/usr/bin/python3"
"""An interpreter that every user can read; the tests' own may lie in somebody's home."""

LAYERED, ALONE = ("root", "all layers"), ("user", "our own filter alone")


def settings(*fast: tuple[str, str]) -> list:
    """Everybody on every machine, all but the ``fast`` ones in wide runs only."""
    return [
        pytest.param(who, machine, id=f"{who}, {machine}", marks=[] if (who, machine) in fast else pytest.mark.wide)
        for who in ("root", "user")
        for machine in MACHINES
    ]


@cache
def user_folder() -> str:
    """A folder for temporary files that every user can write."""
    folder = tempfile.mkdtemp(prefix="mdm-attacks-")
    atexit.register(os.rmdir, folder)  # which fails, and says so, where something is left in it
    os.chmod(folder, 0o777)
    return folder


def readable_by_all(path: str) -> bool:
    return subprocess.run(["setpriv", "--reuid", str(USER), "--clear-groups", "test", "-r", path]).returncode == 0


@cache
def command(who: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """What runs ``sandbox_batch.py`` as somebody, and its environment."""
    if who == ("root" if os.geteuid() == 0 else "user"):
        return (sys.executable,), dict(os.environ)
    if who == "root":
        pytest.skip("not root")
    if (
        not os.path.exists(SYSTEM)
        or subprocess.run([SYSTEM, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode
    ):
        pytest.skip(f"no {SYSTEM} of 3.11 or later that another user could run")
    paths = [str(Path(module.__file__).parents[1]) for module in (sandbox, errors)]
    if not all(map(readable_by_all, (*paths, BATCH))):
        pytest.skip("another user cannot read the packages")
    environment = {
        "PYTHONPATH": ":".join(paths),
        "TMPDIR": user_folder(),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
    }
    return ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", SYSTEM), environment


def judged(
    who: str, machine: str, programs: list[str], limits: dict | None = None
) -> list[tuple[bool, str, list[str]]]:
    """The verdicts of programs whose ``f`` should return True, or an empty list."""
    start, environment = command(who)
    jobs = [(program, ["assert f() in (True, [])"], {"f": "f"}) for program in programs]
    if machine == "bubblewrap alone" and not shutil.which("bwrap"):
        pytest.skip("no bubblewrap here")
    asked = {"limits": LIMITS | (limits or {}), "machine": MACHINES[machine], "jobs": jobs, "workers": 2}
    done = subprocess.run(
        [*start, BATCH], input=json.dumps(asked), capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
