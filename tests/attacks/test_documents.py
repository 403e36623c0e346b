"""Documents of strangers: YAML and JSON that are too deep, too large, of other types, or no files at all."""

from __future__ import annotations

import gzip
import json
import os
import random
import string
from contextlib import suppress

import pytest
from mdm.cli import main
from mdm.data import Pair, documents, read
from mdm.data.documents import parse_json, parse_yaml
from mdm.errors import MdmError
from mdm.runs import files


def bomb(levels: int, width: int = 9) -> str:
    """Lists of aliases of lists of aliases."""
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * width) + "]" for n in range(1, levels)]
    return "\n".join(lines)


YAML = {
    "alias bomb": bomb(12),
    "alias bomb in a key of a list": bomb(11) + "\nsuppressed_tokens: &b [*a10, *a10]",
    "alias bomb by merges": "\n".join(
        [f"m0: &m0 {{{','.join(f'k{i}: 1' for i in range(99))}}}"]
        + [f"m{n}: &m{n} {{{','.join(f'k{i}: *m{n - 1}' for i in range(99))}}}" for n in range(1, 6)]
    ),
    "merge list bomb": "a: &a {" + ",".join(f"k{i}: 0" for i in range(200)) + "}\nb: {<<: ["
    + ",".join(["*a"] * 1000) + "]}",
    "a list in itself": "&a [*a]",
    "a mapping in itself": "a: &a {b: *a}",
    "deep lists": "[" * 100_000,
    "deep closed lists": "[" * 500 + "]" * 500,
    "deep mappings": "".join("  " * n + "a:\n" for n in range(200)),
    "deep sequences": "- " * 5000 + "x",
    "many values": "[" + "0," * 21_000 + "]",
    "an unknown alias": "a: *nowhere",
    "an anchor twice": "a: &x 1\nb: &x 2",
    "a key twice": "seed: 1\nseed: 2",
    "a quoted key twice": "seed: 1\n'seed': 2",
    "a list as a key": "? [a, b]\n: 1",
    "a mapping as a key": "? {a: b}\n: 1",
    "a python object": "!!python/object/apply:os.system ['true']",
    "a python name": "a: !!python/name:os.system",
    "an own tag": "a: !own 1",
    "a binary": "a: !!binary aGVsbG8=",
    "a set": "a: !!set {b, c}",
    "an ordered map": "a: !!omap [b: 1]",
    "a timestamp tag": "a: !!timestamp 2024-13-45",
    "an int of letters": "a: !!int x",
    "a bool of letters": "a: !!bool x",
    "a float of letters": "a: !!float x",
    "an int of 5,000 digits": "a: " + "9" * 5000,
    "a hex of 5,000 digits": "a: 0x" + "f" * 5000,
    "2**64": f"a: {2**64}",
    "-2**63-1": f"a: {-(2**63) - 1}",
    "nan": "a: .nan",
    "infinity": "a: -.inf",
    "an overflow": "a: 1.0e+999",
    "two documents": "a: 1\n---\nb: 2",
    "a control character": "a: \x07",
    "a tab as indent": "a:\n\t- b",
    "an open quote": "a: 'x",
    "an open flow": "a: {b: [",
    "a directive": "%YAML 9.9\n---\na: 1",
    "a null byte": "a: \0",
}  # fmt: skip
TEXTS = {"2024-01-01": "2024-01-01", "10:20": "10:20", "1:2:3": "1:2:3", "=": "=", "0o17": "0o17", "": None}


@pytest.mark.attack("yaml: values")
@pytest.mark.parametrize("name", YAML)
def test_yaml_is_plain_and_bounded(name):
    with pytest.raises(ValueError):
        parse_yaml(YAML[name])


@pytest.mark.attack("yaml: values")
@pytest.mark.parametrize(("text", "value"), TEXTS.items())
def test_yaml_reads_as_text_what_is_one(text, value):
    assert parse_yaml(text) == value


def test_aliases_repeat_values():
    assert parse_yaml("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\nd: [*a, *a]") == {
        "a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]},
        "d": [{"x": 1, "y": [2]}, {"x": 1, "y": [2]}],
    }  # fmt: skip


@pytest.mark.attack("yaml: a configuration file")
@pytest.mark.parametrize("name", YAML)
def test_a_run_refuses_it_in_one_line(name, tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(YAML[name])
    refused(["run", "--config", str(path), "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.attack("yaml: a configuration file")
@pytest.mark.parametrize("value", ["[" * 300, "&a [*a]", "!!python/name:os.system", ".nan", "9" * 400, "{a: 1, a: 2}"])
def test_an_option_is_refused_in_one_line(value, tmp_path, capsys):
    refused(["run", "--task", "sudoku", "-o", f"candidates={value}", "--out", str(tmp_path / "out")], capsys)


JSON = {
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "deep mappings": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "65 deep": "[" * 65 + "]" * 65,
    "deep behind a bracket in a text": '["]]]]", ' + "[" * 70 + "]" * 70 + "]",
    "open": "[" * 80,
    "a key twice": '{"a": 1, "a": 2}',
    "nan": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "an overflow": '{"a": 1e999}',
    "an int of 5,000 digits": "9" * 5000,
    "an int of 200 digits": "9" * 200,
    "no utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "two values": "1 2",
    "nothing": "",
    "a comment": '{"a": 1} // b',
    "a comma": "[1,]",
    "single quotes": "{'a': 1}",
}


@pytest.mark.attack("data: JSON")
@pytest.mark.parametrize("name", JSON)
def test_json_is_plain_and_bounded(name):
    with pytest.raises(ValueError):
        parse_json(JSON[name])


@pytest.mark.attack("data: JSON")
@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("kind", ["data", "log", "document"])
def test_json_in_a_file_is_refused_in_one_line(name, kind, tmp_path):
    text = JSON[name]
    if not text and kind != "document":
        pytest.skip("an empty line is none")
    path = tmp_path / "a.jsonl"
    path.write_bytes((text if isinstance(text, bytes) else text.encode()) + b"\n")
    readers = {
        "data": lambda: list(read(path, Pair)), "log": lambda: list(files.json_lines(path)),
        "document": lambda: files.read_json(path),
    }  # fmt: skip
    with pytest.raises(MdmError) as caught:
        readers[kind]()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_brackets_in_texts_are_no_depth():
    value = {"a": "[{" * 500, "b": ['"[\\"' * 50] * 70}
    assert parse_json(json.dumps(value)) == value


@pytest.mark.attack("data: CSV")
@pytest.mark.parametrize(
    "text",
    ['input,output\n"a,b\nc,d\n', "input,output,input\na,b,c\n", "input,output\na,b,c\n", 'input,output\n"a"b,c\n',
     "output\na\n", ""],
)  # fmt: skip
def test_csv_loses_nothing_without_a_word(text, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(MdmError) as caught:
        list(read(path, Pair))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_long_cell_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f'input,output\n{"x" * 200_000},"b\n""c"""\n')
    [(_, row)] = read(path, Pair)
    assert (len(row.input), row.output) == (200_000, 'b\n"c"')


@pytest.mark.attack("data: what is no file")
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "link to a device", "link in a circle", "socket"])
def test_only_regular_files_are_opened(kind, tmp_path, not_a_file):
    path = not_a_file(tmp_path / "a.jsonl", kind)
    for reader in (
        lambda: list(read(path, Pair)), lambda: files.read_json(path), lambda: list(files.json_lines(path)),
        lambda: documents.read_text(path),
    ):  # fmt: skip
        if kind == "link in a circle":  # which is as if there were none
            continue
        with pytest.raises(MdmError) as caught:
            reader()
        assert "\n" not in str(caught.value)


@pytest.mark.attack("data: sizes")
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz"])
@pytest.mark.parametrize("row", ["one line", "many lines"])
def test_packed_data_unpacks_within_bounds(name, row, tmp_path):
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"input,output\n" if "csv" in name else b"")
        line = b" " * 2**20 if row == "one line" else (b" " * 2**16 + b"\n") * 2**4
        for _ in range(80):
            file.write(line)
    with pytest.raises(MdmError, match=r"more than|no example"):
        list(read(path, Pair))


@pytest.mark.attack("data: sizes")
def test_a_line_has_a_bound(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "' + "x" * 100 + '"}\n')
    with path.open() as file, pytest.raises(ValueError, match="more than 50 characters"):
        list(documents.lines(file, 50))
    monkeypatch.setattr(documents, "LARGEST_LINE", 2**26)
    assert next(read(path, Pair))[1].input == "x" * 100


@pytest.mark.attack("data: what is written can be read")
@pytest.mark.parametrize(
    "value", ["\ud800", {"\udfff": 1}, ["a\ud83d"], float("nan"), [float("inf"), {"a": -float("inf")}], "\x1b[2J"]
)
def test_json_that_is_written_can_be_read_by_anybody(value, tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, value)
    read_back = json.loads(path.read_bytes().decode("utf-8"), parse_constant=pytest.fail)
    log = files.Log(tmp_path / "a.jsonl")
    log.append(value)
    log.close()
    assert list(files.json_lines(tmp_path / "a.jsonl")) == [read_back]


@pytest.mark.attack("yaml: random bytes and mutations")
def test_random_texts(record_property):
    draw = random.Random(19)
    parts = [
        "&a ",
        "*a",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "\n",
        "  ",
        "'",
        '"',
        "!!int ",
        "0x",
        "1",
        "~",
        "<<",
        "?",
        "|",
        ">",
    ]
    for _ in range(1500):
        text = "".join(draw.choice([*parts, draw.choice(string.printable)]) for _ in range(draw.randrange(60)))
        for parse in (parse_yaml, parse_json):
            with suppress(ValueError):
                parse(text)
    record_property("trials", 3000)


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith("mdm: ") and err.count("\n") == 1 and "Traceback" not in err and len(err) < 1000, err
    assert not out


@pytest.fixture
def not_a_file():
    """Makes something at a path that can be named and is no regular file."""
    import socket

    kept = []

    def make(path, kind):
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/full")
        elif kind == "link to a device":
            path.symlink_to("/dev/zero")
        elif kind == "link in a circle":
            path.symlink_to(path)
        else:
            kept.append(socket.socket(socket.AF_UNIX))
            here = os.getcwd()
            os.chdir(path.parent)  # a socket's path is short
            kept[-1].bind(path.name)
            os.chdir(here)
        return path

    return make
