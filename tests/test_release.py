"""The release script refuses what would be a broken release, and leaves one version everywhere."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "packages" / "release.py"
spec = importlib.util.spec_from_file_location("release", SCRIPT)
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)

PROJECT = '[project]\nname = "{}"\nversion = "1.0.0.dev0"\ndependencies = ["mdm-core>=1.0.0.dev0,<2"]\n'


@pytest.fixture
def house(tmp_path):
    for folder in ("core", "plugins/mdm-a", "integrations/mdm-b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text(PROJECT.format(folder))
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.0.0\n\n- All.\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("one", "is not a version"),
        ("v1.0.0", "is written 1.0.0"),
        ("1.0.0.dev0", "not after the version"),
        ("1.0.1", "no section '## 1.0.1'"),
    ],
)
def test_what_is_refused(house, version, said):
    assert said in release.refusal(house, version)


def test_a_clean_house_may_release_once(house):
    assert release.refusal(house, "1.0.0") is None
    subprocess.run(["git", "tag", "v1.0.0"], cwd=house, check=True)
    assert "a tag v1.0.0 already" in release.refusal(house, "1.0.0")
    (house / "CHANGELOG.md").write_text("")
    assert "not clean" in release.refusal(house, "1.0.0")


def test_every_package_gets_the_version_and_keeps_its_ranges(house):
    release.set_version(house, "1.0.0")
    for path in release.projects(house):
        assert 'version = "1.0.0"' in path.read_text() and "mdm-core>=1.0.0.dev0,<2" in path.read_text()
    (house / "core" / "pyproject.toml").write_text(PROJECT.format("core"))
    assert "different versions: 1.0.0, 1.0.0.dev0" in release.refusal(house, "2.0.0")
