"""Packages written on the spot, real enough for importlib.metadata, and the command line run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import pytest


class Site:
    """A folder on the path that packages are put into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def package(
        self,
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        source: str | None = None,
        version: str = "1.0",
        requires: Sequence[str] = (),
    ) -> str:
        """Install a package of one module (if ``source`` is given); returns the module's name."""
        module = name.replace("-", "_")
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir()
        wanted = "".join(f"Requires-Dist: {line}\n" for line in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + wanted)
        lines = []
        for group, points in entry_points.items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        if source is not None:
            (self.path / f"{module}.py").write_text(dedent(source))
        return module

    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120"}

    def python(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args], env=self.env(), cwd=cwd or self.path, capture_output=True, text=True, timeout=120
        )

    def mdm(self, *args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "mdm", *args, cwd=cwd)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder for packages, on the path of this process and of those it starts."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(folder))
    return Site(folder)
