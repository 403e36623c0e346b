"""Runs against each other: what pairs, what the numbers are, and what is refused."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from click.testing import CliRunner
from mdm.cli import cli
from mdm.errors import MdmError
from mdm.runs import config as configs
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult
from mdm.runs.variants import variants
from mdm_report.compare import compare
from mdm_report.compare_plot import ahead, plot_speed

pytest.importorskip("scipy")
TASK = """
    from mdm.protocols import BaseTask

    class Task(BaseTask):
        metric, default_limit = "right", 3
        def examples(self, **kw): ...
        def prompt(self, *args): ...
        def grade(self, *args): ...
"""


@pytest.fixture(autouse=True)
def tasks(site):
    site.package("fake-compare", {"mdm.tasks": {"copy": "fake_compare:Task", "other": "fake_compare:Task"}}, TASK)


def make(folder, grades, *, digest="d", prefix="e", **config):
    """A run's folder; ``grades``: for each of its rows and repeats the grade of each example, None where it failed."""
    settled = RunConfig(**{"task": "copy", "sampler": ["one"], **config})
    folder.mkdir()
    (folder / "config.yaml").write_text(configs.to_yaml(settled))
    rows = variants(settled, folder)
    for number, (variant, repeats) in enumerate(zip(rows, grades, strict=True)):
        with variant.results.writing() as log:
            for repeat, grade in ((r, g) for r, row in enumerate(repeats) for g in enumerate(row)):
                index, right = grade
                lost = right is None
                result = ExampleResult(
                    id=f"{prefix}{index}", index=index, repeat=repeat, row=index + 10**9 * repeat, digest=digest,
                    prompt="", completion="", metrics={} if lost else {"right": float(right), "half": 0.5}, tokens=4,
                    cumulative_entropy=0.0 if lost else 1.0 + number, forwards=0 if lost else 4,
                    rows=0 if lost else 8, seconds=0.5, error="RuntimeError: no" if lost else None,
                )  # fmt: skip
                log.add(result, [])
    return folder


def test_wins_losses_and_mcnemar(tmp_path):
    ours = [1] * 10 + [0] * 2 + [1] * 20 + [0] * 8
    theirs = [0] * 10 + [1] * 2 + [1] * 20 + [0] * 8
    make(tmp_path / "run", [[theirs], [ours]], sampler=["one", "two"])
    first, second = compare([tmp_path / "run"])
    assert "against" not in first and (first["label"], second["label"]) == ("one", "two")
    pair = second["against"]
    assert (pair["label"], pair["wins"], pair["ties"], pair["losses"]) == ("one", 10, 28, 2)
    assert pair["difference"] == pytest.approx(0.2) == second["accuracy"] - first["accuracy"]
    # 2 or fewer of 12 by a fair coin, both tails
    assert pair["p_value"] == pytest.approx(2 * (1 + 12 + 66) / 2**12) and pair["test"] == "mcnemar-exact"
    # the normal interval of the mean of 40 differences, which has a standard error of 0.0811
    assert pair["difference_ci95"] == pytest.approx([0.2 - 1.96 * 0.0811, 0.2 + 1.96 * 0.0811], abs=0.03)
    assert (pair["entropy_difference"], pair["entropy_difference_ci95"]) == (1.0, [1.0, 1.0])
    assert (second["rows"], second["rows_per_example"], second["seconds_per_example"]) == (320, 8.0, 0.5)
    assert compare([tmp_path / "run"]) == [first, second]  # the same every time


def test_what_is_not_graded_is_not_compared(tmp_path):
    make(tmp_path / "a", [[[1, 0, 0]]])
    path = tmp_path / "a" / "results.jsonl"
    path.write_text(path.read_text().replace('"right": 0.0, ', "", 1))
    with pytest.raises(MdmError, match=r"1 of 3 results of one in .*a are not graded yet: use mdm grade .*a$"):
        compare([tmp_path / "a"])
    assert compare([tmp_path / "a"], metric="half")[0]["accuracy"] == 0.5


def test_repeats_are_paired_by_their_mean(tmp_path):
    make(tmp_path / "a", [[[1, 0, 0], [1, 1, 0]]], repeats=2)
    make(tmp_path / "b", [[[1, 1, None], [0, 1, 0]]], repeats=2, sampler=["two"])
    one, two = compare([tmp_path / "a", tmp_path / "b"])
    assert (one["accuracy"], two["accuracy"]) == (0.5, 0.5) and one["repeats"] == 2
    pair = two["against"]
    assert (pair["wins"], pair["ties"], pair["losses"], pair["test"]) == (1, 1, 1, "sign-exact")
    assert pair["entropy_difference"] == 0.0  # what was not decoded has none


def test_each_pace_meets_its_own(tmp_path):
    make(tmp_path / "a", [[[1, 1]], [[1, 0]], [[0, 1]], [[0, 0]]], sampler=["one", "two"], tokens_per_step=[1, 2])
    records = compare([tmp_path / "a"], baseline="two")
    assert [record["label"] for record in records] == ["one K1", "one K2", "two K1", "two K2"]
    assert [record.get("against", {}).get("label") for record in records] == ["two K1", "two K2", None, None]
    assert [record["against"]["difference"] for record in records[:2]] == [0.5, 0.5]
    to_one = compare([tmp_path / "a"], baseline="one K2")
    assert [record.get("against", {}).get("label") for record in to_one] == ["one K2", None, "one K2", "one K2"]
    with pytest.raises(MdmError, match="no baseline 'thre'"):
        compare([tmp_path / "a"], baseline="thre")


def test_labels_tell_apart_what_differs(tmp_path):
    make(tmp_path / "a", [[[1]]], cache="none")
    make(tmp_path / "b", [[[1]]], cache="dual")
    make(tmp_path / "c", [[[1]]], cache="none", seed=1)
    labels = [record["label"] for record in compare([tmp_path / "a", tmp_path / "b"])]
    assert labels == ["one none", "one dual"]
    labels = [record["label"] for record in compare([tmp_path / "a", tmp_path / "c"])]
    assert labels == [f"one ({tmp_path / 'a'})", f"one ({tmp_path / 'c'})"]
    with pytest.raises(MdmError, match="the same run twice"):
        compare([tmp_path / "a", tmp_path / "a"])


def test_runs_of_different_examples(tmp_path):
    make(tmp_path / "a", [[[1, 0, 1]]])
    make(tmp_path / "short", [[[1, 1]]], sampler=["two"])
    make(tmp_path / "changed", [[[1, 0, 1]]], sampler=["two"], digest="x")
    make(tmp_path / "other", [[[1, 0, 1]]], task="other")
    with pytest.raises(MdmError, match="two in .*short lacks 1 of 3 examples, e2 for one: --intersect compares the 2"):
        compare([tmp_path / "a", tmp_path / "short"])
    one, two = compare([tmp_path / "a", tmp_path / "short"], intersect=True)
    assert (one["examples"], one["accuracy"], one["rows"], two["accuracy"]) == (2, 0.5, 16, 1.0)
    with pytest.raises(MdmError, match="no example in common"):  # the same ids of other data
        compare([tmp_path / "a", tmp_path / "changed"], intersect=True)
    with pytest.raises(MdmError, match="of copy and .* of other: nothing to compare"):
        compare([tmp_path / "a", tmp_path / "other"])
    with pytest.raises(MdmError, match="no grade 'rigth'. Did you mean 'right'"):
        compare([tmp_path / "a"], metric="rigth")
    assert compare([tmp_path / "a"], metric="half")[0]["accuracy"] == 0.5
    make(tmp_path / "begun", [[[]]])
    with pytest.raises(MdmError, match="holds no results of one yet"):
        compare([tmp_path / "a", tmp_path / "begun"])
    with pytest.raises(MdmError, match="is not a run's folder"):
        compare([tmp_path])


def invoke(*args):
    return CliRunner().invoke(cli, ["compare", *map(str, args)], catch_exceptions=False)


def test_command(tmp_path):
    pytest.importorskip("matplotlib")
    make(tmp_path / "a", [[[1, 1]], [[1, 0]]], sampler=["one", "two"])
    make(tmp_path / "b", [[[0, 0]]], sampler=["three|four"])
    runs = [tmp_path / "a", tmp_path / "b"]
    files = ["--csv", tmp_path / "t.csv", "--plot", tmp_path / "p.svg"]
    done = invoke(*runs, *files)
    assert done.exit_code == 0 and all(words in done.output for words in ("wins/ties/losses", "-50.0%", "0/1/1"))
    records = json.loads(invoke(*runs, "--json").stdout)
    with (tmp_path / "t.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [row["label"] for row in rows] == [record["label"] for record in records] == ["one", "two", "three|four"]
    assert [float(row["accuracy"]) for row in rows] == [1.0, 0.5, 0.0] and rows[0]["wins"] == ""
    assert float(rows[2]["difference_ci95_low"]) == -1.0 == records[2]["against"]["difference_ci95"][0]
    drawn = (tmp_path / "p.svg").read_text()
    assert drawn.startswith("<?xml") and drawn.rstrip().endswith("</svg>")
    table = invoke(*runs, "--markdown").stdout.splitlines()
    assert len(table) == 5 and {line.replace("\\|", "").count("|") for line in table} == {table[0].count("|")}
    with pytest.raises(MdmError, match=r"p.txt: a picture is one of .png"):
        invoke(*runs, "--plot", tmp_path / "p.txt")


def test_the_picture_of_speed_names_what_nothing_exceeds(tmp_path):
    pytest.importorskip("matplotlib")
    points = [
        ("slow", 1, 0.9),
        ("slow", 2, 0.5),
        ("even", 2, 0.5),
        ("fast", 4, 0.5),
        ("worse", 4, 0.25),
        ("none", None, 1.0),
    ]
    records = [
        {"sampler": sampler, "tokens_per_forward": speed, "accuracy": accuracy} for sampler, speed, accuracy in points
    ]
    assert ahead(records) == {(1, 90): ["slow"], (4, 50): ["fast"]}
    assert ahead([records[3], {**records[3], "sampler": "twin"}]) == {(4, 50): ["fast", "twin"]}
    plot_speed({"one": records, "two": records[:1], "three": records}, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert all(f"<!-- {words} -->" in drawn for words in ("one", "two", "three", "worse", "fast"))
    assert drawn.count("<!-- tokens per forward -->") == 3 and "<!-- none -->" not in drawn


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    make(tmp_path / "a", [[[1]], [[0]]], sampler=["one", "two"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MdmError, match="a picture needs matplotlib: pip install matplotlib"):
        invoke(tmp_path / "a", "--plot", tmp_path / "p.png")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MdmError, match="comparing needs scipy: pip install scipy"):
        compare([tmp_path / "a"])
    assert not (tmp_path / "p.png").exists()


def test_an_autoregressive_model_keeps_its_name_where_its_checkpoint_has_moved(tmp_path, monkeypatch):
    def locate(*args, **kw):
        raise AssertionError("comparing asks neither for a checkpoint nor the hub")

    monkeypatch.setattr("mdm.models.checkpoints.locate", locate)
    models = {"model": ["/moved/ar", "org/model"], "autoregressive": ["/moved/ar"]}
    make(tmp_path / "run", [[[1, 0]], [[1, 1]]], **models)
    assert [record["label"] for record in compare([tmp_path / "run"])] == ["/moved/ar autoregressive", "org/model one"]
