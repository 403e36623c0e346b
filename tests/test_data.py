"""Rows come as they are, or a line says which file, line and field, or what the hub refused."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mdm.data import HubData, Pair, read, read_hub
from mdm.errors import MdmError

LINES = [f'{{"input": "{n}", "output": "{n * n}"}}' for n in range(1, 21)]


def written(path, text):
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(text.encode())
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.CSV.gz"])
def test_rows_and_their_lines(tmp_path, name):
    csv = ".csv" in name.lower()
    text = "input,output\n1,2\n" if csv else '\ufeff{"input": "1", "output": "2"}\n\n'
    assert list(read(written(tmp_path / name, text), Pair)) == [(1 + csv, Pair(input="1", output="2"))]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"output": "289"}', "line 17: input is missing"),
        ('{"input": 17}', "line 17: input=17: should be a valid string"),
        ('{"input": "17"', "line 17: not JSON"),
        ("[17]", "line 17: should be a valid dictionary"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_broken_line_17(tmp_path, name, line, said):
    path = written(tmp_path / name, "\n".join([*LINES[:16], line, *LINES[17:]]))
    rows = read(path, Pair)
    assert [number for number, _ in (next(rows) for _ in range(16))] == list(range(1, 17))
    with pytest.raises(MdmError) as error:
        next(rows)
    assert str(error.value).startswith(f"{path}, {said}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, "there is no such data file"),
        ("a.jsonl", b"", "holds no example"),
        ("a.jsonl", b'{"input": "\xff"}', "cannot be read"),
        ("a.jsonl.gz", b'{"input": "1"}', "cannot be read: Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress("\n".join(LINES * 9).encode())[:-40], "cannot be read"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MdmError) as error:
        list(read(tmp_path / name, Pair))
    assert name in str(error.value) and said in str(error.value) and "\n" not in str(error.value)


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MdmError, match=r"^reading a/b from the hub needs `datasets`: pip install 'mdm-core\[hub\]'"):
        list(read_hub(HubData("a/b", "test", "0" * 40), Pair))


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: every repository of ``locked`` is gated, no other exists."""

    def do_HEAD(self):
        gated = self.path.startswith("/datasets/locked/")
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


CLIENT = """
import sys
from mdm.data import HubData, Pair, read_hub
from mdm.errors import MdmError
for name in sys.argv[1:]:
    try:
        next(read_hub(HubData(name, "test", "0" * 40), Pair))
    except MdmError as error:
        print(error)
"""


def test_what_the_hub_refuses_is_one_line_each(tmp_path):
    pytest.importorskip("datasets", reason="the extra mdm-core[hub] is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    try:
        got = subprocess.run(
            [sys.executable, "-c", CLIENT, "locked/data", "no/data"],
            env=env, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    finally:
        server.shutdown()
    offline = subprocess.run(
        [sys.executable, "-c", CLIENT, "locked/data"],
        env=env | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    gated, missing = got.stdout.splitlines()
    assert gated.startswith("locked/data is gated: ask for access on https://") and "--data FILE" in gated
    assert missing.startswith("no/data: ") and "exist" in missing
    assert offline.stdout.startswith("locked/data is not in the hub's cache and the hub is out of reach")
    assert not got.stderr and not offline.stderr and offline.stdout.count("\n") == 1
