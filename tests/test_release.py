"""The release script refuses what would be a broken release, and leaves one version and a fresh table everywhere."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import known_plugins
import pytest
import release
from mdm import registry

ROOT = Path(__file__).parents[1]

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


def test_the_table_of_known_plugins_is_what_the_packages_say():
    table = known_plugins.table(ROOT)
    assert registry.known_plugins() == table, "stale: run python tests/packages/known_plugins.py"
    assert {name: table["command"][name] for name in ("check", "new", "bench", "compare", "trace")} == {
        "check": "mdm-testing", "new": "mdm-testing", "bench": "mdm-bench", "compare": "mdm-report",
        "trace": "mdm-report",
    }  # fmt: skip
    assert "none" not in table["cache"], "what the core brings is always installed"


def test_a_release_writes_the_table_and_tags_what_it_built(house, monkeypatch):
    """Building is replaced: what is built and checked is tested in tests/packages."""
    (house / "core" / "src" / "mdm").mkdir(parents=True)
    (house / "core" / "src" / "mdm" / "known_plugins.json").write_text("{}")
    (house / "tests" / "packages").mkdir(parents=True)
    (house / "tests" / "packages" / "build_all.py").write_text("")
    with (house / "plugins" / "mdm-a" / "pyproject.toml").open("a") as project:
        project.write('[project.entry-points."mdm.samplers"]\nbold = "mdm_a:Bold"\n')
    for command in (
        ["config", "user.name", "x"],
        ["config", "user.email", "x@x"],
        ["add", "-A"],
        ["commit", "-qm", "y"],
    ):
        subprocess.run(["git", *command], cwd=house, check=True)
    monkeypatch.setattr(release, "ROOT", house)
    assert release.main("1.0.0") == 0
    table = json.loads((house / "core" / "src" / "mdm" / "known_plugins.json").read_text())
    assert table["sampler"] == {"bold": "plugins/mdm-a"}  # the name of the project in this house
    tagged = subprocess.run(["git", "show", "--stat", "v1.0.0"], cwd=house, capture_output=True, text=True).stdout
    assert "known_plugins.json" in tagged and "Release 1.0.0" in tagged
