"""What ``mdm runs`` says of whole, unfinished, failed, used and broken runs."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.runs import files, run as runs
from stand_in_engine import engine as engine, make


@pytest.fixture
def home(engine, tmp_path, monkeypatch):
    """Runs below ``runs``: whole, with a failure, unfinished, of two variants, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    below = tmp_path / "runs"
    runs.run(make(limit=2), below / "whole")
    runs.run(make(limit=2, sampler=["one", "two"]), below / "deep" / "er" / "several")
    engine.cannot = {1: ValueError("no")}
    runs.run(make(limit=3), below / "failed")
    engine.cannot, engine.stop_after = {}, len(engine.decoded) + 1
    with pytest.raises(KeyboardInterrupt):
        runs.run(make(limit=4), below / "stopped")
    (below / "broken").mkdir()
    (below / "broken" / "config.yaml").write_text("task: [")
    (below / ".hidden").mkdir()
    (below / ".hidden" / "config.yaml").write_text("task: copy")
    for minute, name in enumerate(("broken", "stopped", "failed", "deep/er/several", "whole")):
        for path in (below / name).rglob("*"):
            os.utime(path, (60 * minute, 60 * minute))
    return below


def listed(*arguments):
    done = CliRunner().invoke(cli, ["runs", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0 and not done.stderr
    return {run["folder"].removeprefix("runs/"): run for run in json.loads(done.stdout)}


def test_states(home):
    found = listed()
    assert list(found) == ["whole", "deep/er/several", "failed", "stopped", "broken"]  # the last written first
    told = {name: (run["state"], run["done"], run["expected"], run["failed"]) for name, run in found.items()}
    assert told == {
        "whole": ("complete", 2, 2, 0), "deep/er/several": ("complete", 4, 4, 0), "failed": ("complete", 3, 3, 1),
        "stopped": ("incomplete", 1, 4, 0), "broken": ("broken", 0, None, 0),
    }  # fmt: skip
    assert found["deep/er/several"]["accuracy"] == {"one": 1.0, "two": 1.0}
    assert found["whole"]["task"] == "copy" and found["whole"]["models"] == ["tiny"]
    assert "not YAML" in found["broken"]["why"]
    with files.exclusive_lock(home / "whole"):
        assert listed()["whole"]["state"] == "running"
    (home / "whole" / "summary.json").write_text('{"runs": [{"complete": true}, 5]}')
    assert listed(home / "whole")["whole"]["state"] == "complete"  # as its results say


def test_the_table_and_its_lines(home):
    text = CliRunner().invoke(cli, ["runs"], catch_exceptions=False).stdout
    assert "incomplete, 1 of 4" in text and "complete, 1 failed" in text and "100.0% (one)" in text
    assert "runs/broken: " in text and "Traceback" not in text and ".hidden" not in text
    empty = CliRunner().invoke(cli, ["runs", str(home / "broken" / "..")], catch_exceptions=False).stdout
    assert empty.count("whole") == 1
    nothing = home.parent / "nothing"
    nothing.mkdir()
    assert "no runs in" in CliRunner().invoke(cli, ["runs", str(nothing)], catch_exceptions=False).stdout
