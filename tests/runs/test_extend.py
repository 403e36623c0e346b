"""A finished run that is extended, and one whose failed examples are decoded again."""

from __future__ import annotations

import json
import sys

import pytest
from mdm.cli import main
from mdm.errors import MdmError
from mdm.runs import config as configs, run as runs
from mdm.runs.config import RunConfig
from mdm.runs.variants import variants
from mdm.runs.watch import RunObserver
from stand_in_engine import engine as engine, lines, make, timeless


class Warned(RunObserver):
    def __init__(self):
        self.said = []

    def on_warning(self, text):
        self.said.append(text)


def ended(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code


def told(out):
    """What the results of each variant say, whatever the folder they lie in."""
    config = configs.parse(RunConfig, out / "config.yaml")
    return {
        variant.label: {row: (result.completion, result.metrics) for row, result in variant.results.by_row.items()}
        for variant in variants(config, out)
    }


@pytest.mark.parametrize(("fewer", "more"), [({"limit": 4}, {"limit": 6}), ({"repeats": 1}, {"repeats": 3})])
def test_more_examples_or_repeats(engine, tmp_path, fewer, more):
    runs.run(make(**fewer), tmp_path / "out")
    decoded = set(engine.decoded)
    summary = runs.run(make(**more), tmp_path / "out")
    assert len(engine.decoded) == len(set(engine.decoded)) and decoded < set(engine.decoded)  # none twice
    whole = runs.run(make(**more), tmp_path / "whole")
    assert summary["complete"] and timeless(summary) == timeless(whole)
    written = configs.parse(RunConfig, tmp_path / "out" / "config.yaml")
    assert {name: getattr(written, name) for name in more} == more


def test_fewer_examples_keep_all_and_it_is_said(engine, tmp_path):
    whole = runs.run(make(limit=6), tmp_path)
    summary = runs.run(make(limit=3), tmp_path, observer := Warned())
    assert summary == whole and len(engine.decoded) == 6
    assert observer.said == [f"{tmp_path} keeps what it has: limit is 6 there"]


@pytest.mark.parametrize(
    ("fewer", "more"),
    [
        ({"sampler": ["one"]}, {"sampler": ["one", "two"]}),
        ({"sampler": ["two"], "tokens_per_step": [2]}, {"sampler": ["one", "two"], "tokens_per_step": [2]}),
        ({"sampler": ["one"], "tokens_per_step": [1, 2]}, {"sampler": ["one", "two"], "tokens_per_step": [1, 2, 4]}),
        ({"model": ["tiny"], "sampler": ["one", "two"]}, {"model": ["tiny", "/m/a"], "sampler": ["one", "two"]}),
        ({"options": ["one.candidates=2"]}, {"options": ["one.candidates=4", "one.candidates=2"]}),
        ({"options": ["candidates=2", "candidates=4"]}, {"options": [f"candidates={n}" for n in (2, 3, 4)]}),
    ],
    ids=["a sampler", "in front", "another dimension", "a model", "a value", "a value of several"],
)  # fmt: skip
def test_more_variants(engine, tmp_path, fewer, more):
    def built(options=(), **flags):
        return make(*options, **{"autoregressive": [], "limit": 2} | flags)

    runs.run(built(**fewer), tmp_path / "out")
    summary = runs.run(built(**more), tmp_path / "out")
    assert len(engine.decoded) == 2 * len(summary["runs"])  # what was decoded is not decoded again
    whole = runs.run(built(**more), tmp_path / "whole")
    assert summary["complete"] and told(tmp_path / "out") == told(tmp_path / "whole")
    assert {row["variant"] for row in summary["runs"]} == {row["variant"] for row in whole["runs"]}
    assert runs.run(built(**more), tmp_path / "out") == summary  # and it can be taken up again
    again = configs.build(RunConfig, tmp_path / "out" / "config.yaml")
    assert runs.run(again, tmp_path / "out") == summary and len(again.folders) == 0


def test_a_kill_before_the_first_new_example_leaves_no_complete_run(engine, tmp_path):
    runs.run(make(limit=2), tmp_path)
    engine.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        runs.run(make(limit=3), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["complete"] is False
    engine.stop_after = None
    assert runs.run(make(limit=3), tmp_path)["complete"] and engine.decoded == [1, 0, 2]


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"seed": 4}, "seed is 0 there, 4 here"),
        ({"sampler": ["two"]}, r"sampler is one there, two here \(name all of them"),
        ({"assignments": ["candidates=3"]}, "options.one.candidates is 8 there, 3 here"),
        ({"assignments": ["candidates=2", "candidates=3"]}, "options.one.candidates is 8 there, 2, 3 here"),
        ({"assignments": ["infill=true"]}, "options.copy.infill is False there, True here"),
        ({"tokens_per_step": [2]}, "tokens_per_step is None there, 2 here"),
        ({"cache": "kept"}, "cache is auto there, kept here"),
    ],
)
def test_what_else_differs_is_refused(engine, tmp_path, other, line):
    runs.run(make(limit=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(MdmError, match=f"holds another run: {line}"):
        runs.run(make(*other.pop("assignments", ()), limit=3, **other), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_failed_examples_alone_are_decoded_again(engine, tmp_path):
    engine.cannot = {1: ValueError("no"), 3: ValueError("not either")}
    summary = runs.run(make(), tmp_path)
    assert summary["runs"][0]["errors"] == 2 and summary["runs"][0]["first_error"] == "copy-1: ValueError: no"
    engine.cannot, engine.decoded = {}, []
    assert runs.run(make(), tmp_path)["runs"][0]["errors"] == 2 and engine.decoded == []
    summary = runs.run(make(), tmp_path, observer := Warned(), retry_failed=True)
    assert sorted(engine.decoded) == [1, 3] and summary["runs"][0]["errors"] == 0 and summary["complete"]
    assert observer.said == ["one: 2 of 5 results had failed and are decoded again"]
    assert sorted(line["row"] for line in lines(tmp_path / "results.jsonl")) == list(range(5))
    assert timeless(summary) == timeless(runs.run(make(), tmp_path))


def test_what_could_not_be_graded_is_retried(engine, tmp_path, monkeypatch):
    runs.run(make("fragile=true", limit=6), tmp_path)
    monkeypatch.setattr(sys.modules["fake_run"].Copy, "grade", lambda *_: {"right": 1.0})
    engine.decoded = []
    summary = runs.run(make("fragile=true", limit=6), tmp_path, retry_failed=True)
    assert sorted(engine.decoded) == [2, 5] and summary["runs"][0]["errors"] == 0


def test_a_run_of_failures_ends_with_1(engine, tmp_path, capsys):
    engine.cannot = {row: ValueError(f"no {row}") for row in range(5)}
    command = ["run", "--task", "copy", "--sampler", "one", "--out", str(tmp_path / "out")]
    assert ended(*command) == 1
    text = capsys.readouterr().out
    assert "one: every example failed: copy-0: ValueError: no 0" in text and "accuracy" not in text
    assert ended(*command, "--json") == 1 and not json.loads(capsys.readouterr().out)["runs"][0]["metrics"]
    del engine.cannot[2]
    assert ended(*command, "--retry-failed") == 0
    assert "4 could not be decoded or graded" in capsys.readouterr().out
    assert ended(*command[:-2], "--retry-failed") == 2
    assert "--retry-failed is for the run in --out" in capsys.readouterr().err


def test_an_extended_run_of_several_variants_is_graded_again(engine, tmp_path, monkeypatch, capsys):
    engine.cannot = {1: ValueError("no")}
    runs.run(make(limit=2), tmp_path)
    engine.cannot = {}
    before = runs.run(make(limit=3, sampler=["one", "two"]), tmp_path)
    assert ended("grade", tmp_path, "--all", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert timeless(again) == timeless(before) and [row["errors"] for row in again["runs"]] == [1, 0]
    decoded = list(engine.decoded)
    monkeypatch.setattr(sys.modules["fake_run"].Copy, "grade", lambda *_: {"right": 0.5})
    assert ended("grade", tmp_path, "--all", "--json") == 0
    accuracies = [row["accuracy"] for row in json.loads(capsys.readouterr().out)["runs"]]
    assert accuracies == [1 / 3, 0.5] and engine.decoded == decoded  # what could not be decoded stays wrong
    (tmp_path / "summary.json").unlink()
    assert ended("grade", tmp_path, "--json") == 0
    written = capsys.readouterr()
    assert json.loads(written.out)["complete"] and "nothing in" in written.err
