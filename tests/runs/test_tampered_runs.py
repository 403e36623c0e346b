"""Folders of runs that somebody else has changed: one line or made anew, and nothing taken that does not belong."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
from mdm.cli import main
from mdm.errors import MdmError
from mdm.runs import run as runs
from mdm.runs.results import ResultsFolder
from stand_in_engine import engine as engine, lines, make

RUN = ["run", "--sampler", "one", "--task", "copy"]


def mdm(capsys, *args):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(args)
    return stop.value.code, *capsys.readouterr()


@pytest.fixture
def out(engine, tmp_path):
    """A finished run of five examples."""
    runs.run(make(), tmp_path / "run")
    engine.decoded.clear()
    return tmp_path / "run"


def rewrite(path, number, change):
    """Change one line of JSON; ``change`` returns a record, or text."""
    records = path.read_text().splitlines()
    new = change(json.loads(records[number]))
    records[number] = new if isinstance(new, str) else json.dumps(new)
    path.write_text("\n".join(records) + "\n")


def field(name, value):
    return lambda record: {**record, name: value}


def without(name):
    return lambda record: {key: value for key, value in record.items() if key != name}


RESULT_LINES = {
    "a list": lambda record: [record],
    "a number": lambda record: 5,
    "null": lambda record: "null",
    "a text": lambda record: '"x"',
    "no JSON": lambda record: "{x}",
    "empty": lambda record: "",
    "deep": lambda record: "[" * 10**5 + "]" * 10**5,
    "NaN": lambda record: json.dumps(record).replace("0.1", "NaN"),
    "not UTF-8": lambda record: '{"id": "\udcff"}',
    "digits": lambda record: '{"index": ' + "9" * 10**5 + "}",
    "no id": without("id"),
    "no index": without("index"),
    "no row": without("row"),
    "no digest": without("digest"),
    "no metrics": without("metrics"),
    "no seconds": without("seconds"),
    "an unknown field": field("more", 1),
    "id null": field("id", None),
    "id a number": field("id", 3),
    "index a text": field("index", "1"),
    "index negative": field("index", -1),
    "index of another row": field("index", 2),
    "index true": field("index", True),
    "index 1.0": field("index", 1.0),
    "row of another": field("row", 3),
    "row negative": field("row", -4),
    "row huge": field("row", 10**30),
    "repeat that is not the row's": field("repeat", 1),
    "repeat null": field("repeat", None),
    "metrics a list": field("metrics", [1]),
    "metrics null": field("metrics", None),
    "a grade of text": field("metrics", {"right": "1.0"}),
    "a grade true": field("metrics", {"right": True}),
    "a grade of a list": field("metrics", {"right": [1]}),
    "a grade too large": field("metrics", {"right": 1e300}),
    "tokens a text": field("tokens", "4"),
    "tokens negative": field("tokens", -4),
    "tokens huge": field("tokens", 10**60),
    "forwards 0.5": field("forwards", 0.5),
    "rows null": field("rows", None),
    "seconds negative": field("seconds", -1.0),
    "seconds a text": field("seconds", "1"),
    "seconds null": field("seconds", None),
    "entropy a text": field("cumulative_entropy", "1"),
    "entropy a list": field("cumulative_entropy", [1]),
    "block_steps a number": field("block_steps", 3),
    "block_steps of texts": field("block_steps", ["1"]),
    "canvas a text": field("canvas", "abc"),
    "canvas of numbers": field("canvas", [1, 2]),
    "texts a list": field("texts", ["a"]),
    "texts of numbers": field("texts", {"1": 1}),
    "error a number": field("error", 5),
    "prompt null": field("prompt", None),
    "completion a list": field("completion", ["a"]),
    "image elsewhere": field("image", "/dev/zero"),
    "image of another": field("image", "images/3.png"),
    "image above": field("image", "../../images/1.png"),
    "grid a text": field("grid", "16x16"),
    "digest a number": field("digest", 5),
}


@pytest.mark.attack("runs: lines of results")
@pytest.mark.parametrize("trick", RESULT_LINES)
def test_a_line_that_is_no_result_is_named(engine, out, trick):
    path = out / "results.jsonl"
    number = next(i for i, line in enumerate(lines(path)) if line["row"] == 1)
    before = path.read_bytes()
    text = path.read_text().splitlines()
    new = RESULT_LINES[trick](json.loads(text[number]))
    text[number] = new if isinstance(new, str) else json.dumps(new)
    path.write_bytes(("\n".join(text) + "\n").encode("utf-8", "surrogateescape"))
    tampered = path.read_bytes()
    for read in (lambda: runs.run(make(), out), lambda: ResultsFolder(out)):
        with pytest.raises(MdmError, match=rf"results\.jsonl, line {number + 1}: ") as error:
            read()
        assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert path.read_bytes() == tampered != before  # as it was found
    path.write_text("".join(line + "\n" for i, line in enumerate(text) if i != number))
    assert runs.run(make(), out)["complete"] and engine.decoded == [1]  # the way out that the line tells


TRACE_LINES = {
    "a list": lambda line: [line],
    "a number": lambda line: 5,
    "null": lambda line: "null",
    "no row": without("row"),
    "row a text": field("row", "1"),
    "row null": field("row", None),
    "no step": without("step"),
    "step a text": field("step", "1"),
    "no positions": without("positions"),
    "positions a number": field("positions", 4),
    "positions of texts": field("positions", ["a"]),
    "position huge": field("positions", [10**12]),
    "position negative": field("positions", [-1]),
    "no tokens": without("tokens"),
    "tokens null": field("tokens", None),
    "more tokens": field("tokens", [1, 2, 3]),
    "no entropy": without("entropy"),
    "entropy of texts": field("entropy", ["a"]),
    "no kind": without("kind"),
    "kind a list": field("kind", ["commit"]),
    "confidence a number": field("confidence", 1),
    "weighed a number": field("weighed", 1),
    "weighed of numbers": field("weighed", [1]),
    "weighed without J": field("weighed", [{"positions": [1], "C": 1.0, "H": 1.0}]),
    "no JSON": lambda line: "{",
    "deep": lambda line: "[" * 10**5,
}


@pytest.mark.attack("runs: lines of traces")
@pytest.mark.parametrize("trick", TRACE_LINES)
def test_a_line_of_a_trace_of_another_shape_is_one_line(out, capsys, trick):
    rewrite(out / "trace.jsonl", 1, TRACE_LINES[trick])
    for command in (["trace", "view", str(out)], ["trace", "plot", str(out), "--out", str(out / "x.png")]):
        code, text, errors = mdm(capsys, *command)
        assert (code, text) == (2, "") and "trace.jsonl, line 2: " in errors and len(errors.splitlines()) == 1
    code, text, errors = mdm(capsys, *RUN, "--out", str(out))
    assert code in (0, 2) and len(errors.splitlines()) == (code == 2)


FILES = {
    "a list": "[1, 2]",
    "a number": "5",
    "a text": '"x"',
    "null": "null",
    "deep": "[" * 10**5,
    "NaN": '{"a": NaN}',
    "no JSON": "{",
    "runs a number": '{"runs": 5}',
    "runs of numbers": '{"runs": [1]}',
    "runs empty": '{"runs": []}',
    "rows of texts": '{"accuracy": "x", "errors": "x", "preset": 5, "repeats": [], "tokens_per_step": 1, "model": 3}',
    "empty": "",
    "versions a list": '{"versions": [1]}',
    "versions of numbers": '{"versions": {"a": 1}}',
    "models a list": '{"models": [1]}',
    "a model a number": '{"models": {"tiny": 5}}',
    "digest a number": '{"data_sha256": 5}',
    "a model that is accurate": '{"models": {"tiny": {"accuracy": 7}}}',
    "not UTF-8": b"\xff\xfe{}",
    "NUL": b"\0" * 100,
}
COMMANDS = {
    "run": RUN,
    "grade": ["grade"],
    "grade all": ["grade", "--all"],
    "compare": ["compare"],
    "trace": ["trace", "view"],
}

OF_COMMANDS = pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[] if name == "run" else pytest.mark.wide) for name in COMMANDS]
)


def args_of(name, out):
    return [*COMMANDS[name], *(["--out"] if name == "run" else []), str(out)]


@pytest.mark.attack("runs: files of a run")
@pytest.mark.parametrize("file", ["summary.json", "environment.json", "config.yaml"])
@pytest.mark.parametrize("trick", FILES)
@OF_COMMANDS
def test_a_tampered_file_is_one_line_or_made_anew(engine, out, capsys, file, trick, command):
    content = FILES[trick]
    (out / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, errors = mdm(capsys, *args_of(command, out))
    assert code in (0, 2) and (code == 0 or len(errors.splitlines()) <= 1 + (command == "grade")), errors
    assert "Traceback" not in errors and len(errors) < 1500
    assert engine.decoded == []
    if file == "summary.json" and command == "run":
        assert json.loads((out / file).read_text())["runs"][0]["accuracy"] == 0.8


SPECIAL = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a FIFO": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "a link to /dev/full": lambda path: path.symlink_to("/dev/full"),
    "huge and empty": lambda path: os.truncate(path_of(path), 2**36),
}


def path_of(path):
    path.touch()
    return path


@pytest.mark.attack("runs: special files")
@pytest.mark.parametrize(
    "file", ["results.jsonl", "trace.jsonl", "config.yaml", "summary.json", "environment.json", "results.rank1.jsonl"]
)
@pytest.mark.parametrize("trick", SPECIAL)
@OF_COMMANDS
def test_a_special_file_is_one_line_and_is_not_waited_for(out, capsys, file, trick, command):
    (out / file).unlink(missing_ok=True)
    SPECIAL[trick](out / file)
    code, _, errors = mdm(capsys, *args_of(command, out))
    assert code in (0, 2) and "Traceback" not in errors and len(errors) < 1500, errors


def test_results_of_other_inputs_are_decoded_again(engine, out, capsys):
    summary = json.loads((out / "summary.json").read_text())
    for number in (1, 3):
        rewrite(out / "results.jsonl", number, field("digest", "0" * 16))
    rewrite(out / "results.jsonl", 1, field("metrics", {"right": 1.0}))
    rows = {lines(out / "results.jsonl")[number]["row"] for number in (1, 3)}
    code, _, errors = mdm(capsys, *RUN, "--out", str(out))
    assert code == 0 and errors == "mdm: one: 2 of 5 results were of other inputs and are decoded again\n"
    assert set(engine.decoded) == rows and sorted(line["row"] for line in lines(out / "results.jsonl")) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert json.loads((out / "summary.json").read_text())["runs"][0]["accuracy"] == summary["runs"][0]["accuracy"]
    assert sorted(line["row"] for line in lines(out / "trace.jsonl")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.attack("runs: other inputs")
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("reader", ["compare", "grade"])
def test_other_inputs_are_seen_by_readers(out, tmp_path, capsys, number, reader):
    shutil.copytree(out, tmp_path / "other")
    rewrite(out / "results.jsonl", number, field("digest", "0" * 16))
    more = [str(tmp_path / "other")] if reader == "compare" else ["--all"]
    code, _, errors = mdm(capsys, reader, str(out), *more)
    assert code == 2 and len(errors.splitlines()) == 1


FOREIGN = {
    "another id": field("id", "x"),
    "an index that is too large": lambda line: {**line, "index": 99, "row": 99},
    "a repeat that is not asked for": lambda line: {**line, "repeat": 1, "row": line["index"] + 10**9},
}


@pytest.mark.attack("runs: foreign rows")
@pytest.mark.parametrize("trick", FOREIGN)
@pytest.mark.parametrize("file", ["results.jsonl", "results.rank0.jsonl", "results.rank7.jsonl"])
def test_foreign_rows_are_refused(out, trick, file):
    foreign = FOREIGN[trick](lines(out / "results.jsonl")[0])
    with (out / file).open("a") as log:
        log.write(json.dumps(foreign) + "\n")
    before = (out / file).read_bytes()
    with pytest.raises(MdmError, match="is not an example of this run"):
        runs.run(make(), out)
    assert (out / file).read_bytes() == before


@pytest.mark.attack("runs: doubled lines")
@pytest.mark.parametrize(
    "how", ["one", "all", "twice", "in a rank's file", "in two ranks' files", "traces too", "torn"]
)
def test_doubled_lines_are_dropped(engine, out, how):
    path, summary = out / "results.jsonl", runs.run(make(), out)
    once = path.read_bytes()
    if how == "one":
        path.write_bytes(once + once.splitlines(keepends=True)[2])
    elif how.startswith("in"):
        (out / "results.rank0.jsonl").write_bytes(once)
        if "two" in how:
            (out / "results.rank5.jsonl").write_bytes(once)
    else:
        path.write_bytes(once * (3 if how == "twice" else 2))
    if how == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    if how == "traces too":
        (out / "trace.jsonl").write_bytes((out / "trace.jsonl").read_bytes() * 2)
    assert runs.run(make(), out) == summary and engine.decoded == []
    assert sorted(line["row"] for line in lines(path)) == [0, 1, 2, 3, 4]
    assert sorted(line["row"] for line in lines(out / "trace.jsonl")) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert {entry.name for entry in out.glob("*.rank*")} == set()


GONE = 2**22 - 1
"""A process that is not there: most systems count to this, few reach it."""


@pytest.mark.attack("runs: stale parts")
@pytest.mark.parametrize("kind", ["gone", "own", "running"])
@pytest.mark.parametrize("command", ["run", "grade all"])
def test_parts_of_processes_that_are_gone_are_removed(out, capsys, kind, command):
    process = {"gone": GONE, "own": os.getpid(), "running": os.getppid()}[kind]
    (out / "images").mkdir()
    names = ["summary.json", "results.jsonl", "trace.jsonl", "config.yaml", "environment.json", "images/7.png"]
    parts = [(out / name).with_name(f".{(out / name).name}.{process}") for name in names]
    others = [
        out / ".notes.2024",
        out / ".gitignore",
        out / f".other.json.{process}",
        out / "images" / f"7.png.{process}",
    ]
    for part in (*parts, *others, out / "trace.rank3.jsonl"):
        part.write_text("half")
    assert mdm(capsys, *args_of(command, out))[0] == 0
    assert all(part.exists() == (kind == "running") for part in parts) and all(other.exists() for other in others)
    assert not (out / "trace.rank3.jsonl").exists()


def test_what_grades_differ_in_is_said(out, engine, tmp_path, capsys):
    other = tmp_path / "other"
    runs.run(make("fragile=true"), other)
    code, _, errors = mdm(capsys, "compare", str(out), str(other))
    assert code == 0 and "graded with other options of the task: fragile is False for one" in errors
    assert mdm(capsys, "compare", str(out))[2] == ""


@pytest.mark.attack("runs: means that are no shares")
def test_means_that_are_no_shares_are_numbers_in_tables(engine, tmp_path, capsys, monkeypatch):
    for name, grade in (("a", 12.5), ("b", -3.0)):
        given = iter([grade, 0.5, 1.0, 2.0, 3.0])
        monkeypatch.setattr(sys.modules["fake_run"].Copy, "grade", lambda *_, given=given: {"right": next(given)}) if (
            "fake_run" in sys.modules
        ) else None
        make()
        monkeypatch.setattr(sys.modules["fake_run"].Copy, "grade", lambda *_, given=given: {"right": next(given)})
        code, text, _ = mdm(capsys, *RUN, "--out", str(tmp_path / name))
        assert code == 0 and "%" not in text.replace("95% interval", "")
    for more in ([], ["--markdown"], ["--json"], ["--csv", str(tmp_path / "x.csv"), "--plot", str(tmp_path / "x.png")]):
        code, text, errors = mdm(capsys, "compare", str(tmp_path / "a"), str(tmp_path / "b"), *more)
        assert (code, errors) == (0, "") and "%" not in text.replace("95% interval", "")
        assert "--json" in more or " -3.1 " in text.replace("|", " ")
