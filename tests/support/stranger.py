"""A reader in a new virtual environment, who types what a page of the docs says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv

import pytest


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A folder with a virtual environment in which what is installed here is lent, and a way to type commands there."""
    home = tmp_path_factory.mktemp("stranger")
    venv.create(home / ".venv", with_pip=False, symlinks=True)
    [lent] = (home / ".venv").glob("lib/python*/site-packages")
    # addsitedir, unlike a path alone, also reads the editable packages' own .pth files.
    lent.joinpath("lent.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in site_packages())
    )

    def types(line: str) -> str:
        program, *rest = shlex.split(line.removeprefix("python -m "))
        if program == "pip":
            rest = [rest[0], "-q", "--no-deps", "--no-build-isolation", *rest[1:]]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [str(home / ".venv/bin/python"), "-m", program, *rest]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return home, types


def site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]
