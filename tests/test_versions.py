"""Requirements, classifiers, pins, environments of tox, `mdm doctor` and docs say the same of versions."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import floors
from mdm.cli import doctor
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT / "core" / "pyproject.toml", *sorted(ROOT.glob("[pi]*s/*/pyproject.toml"))]
LOWEST = floors.floors(ROOT)
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def test_the_pinned_versions_are_no_older_than_the_lowest_and_no_newer_than_the_newest_tested():
    for name, floor in LOWEST.items():
        if name in PINS:
            assert Version(floor) <= Version(PINS[name]), name
    for name in ("torch", "transformers"):
        assert Version(PINS[name]).release[:2] <= Version(doctor.NEWEST_TESTED[name]).release, name


def test_every_package_names_the_pythons_that_an_environment_runs():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    run = set(re.findall(r"python(3\.\d+)", tox["testenv:{oldest,py312,py313,newest}"]["base_python"]))
    for path in PROJECTS:
        project = tomllib.loads(path.read_text())["project"]
        named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
        assert set(named) == run, path
        assert project["requires-python"] == f">={min(run, key=Version)}", path
    assert doctor.NEWEST_TESTED["python"] == max(run, key=Version)


def test_the_docs_say_what_is_tested():
    row = re.compile(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.M)
    oldest, pinned = {"python": "3.11"} | LOWEST, {"python": "3.11.0"} | PINS
    expected = [
        (name, oldest[name], pinned[name].rpartition(".")[0], newest) for name, newest in doctor.NEWEST_TESTED.items()
    ]
    assert [(row[0].lower(), *row[1:]) for row in row.findall((ROOT / "docs" / "install.md").read_text())] == expected
