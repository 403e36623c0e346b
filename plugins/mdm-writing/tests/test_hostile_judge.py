"""``mdm judge`` against endpoints that send anything, of any size, for any time."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings, strategies as st
from mdm.cli import cli
from mdm.errors import MdmError
from mdm_writing.endpoint import Endpoint
from mdm_writing.judging import Judgement
from mdm_writing.questions import Question

KEY = "sk-a-secret-that-must-not-leak"
PAIR, SINGLE = Question(("x", 0), "a", "b", "?"), Question(("x", 0), "a", None, "?")
ESC = "\x1b[2J\x1b]0;owned\x07\x9b31m"


class Hostile:
    """A server on loopback that hands every connection to ``serve`` once it has read a request."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.serve, self.requests = serve, []
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (more := connection.recv(65536)):
                    return
                head += more
            self.requests.append(head)
            with contextlib.suppress(OSError):
                self.serve(connection)


def reply(body: bytes, status="200 OK", headers="") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Connection: close\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def completion(content, usage=None, **more) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 3} if usage is None else usage
    choices = [{"index": 0, "message": {"role": "assistant", "content": content}}]
    return json.dumps({"choices": choices, "usage": usage} | more).encode()


def drip(head: bytes, piece: bytes):
    def serve(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.1)

    return serve


def flood(head: bytes, piece: bytes):
    def serve(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return serve


def sends(data: bytes):
    return lambda connection: connection.sendall(data)


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    started = []

    def start(behave):
        started.append(Hostile(behave))
        return started[-1]

    yield start
    for server in started:
        server.socket.close()


@pytest.fixture
def runs(tmp_path):
    """Two runs of one example: two questions."""
    for name in "ab":
        (tmp_path / name).mkdir()
        line = {"id": "w", "prompt": "user: Write.\nassistant: ", "completion": f"text {name}"}
        (tmp_path / name / "results.jsonl").write_text(json.dumps(line) + "\n")
    return str(tmp_path / "a"), str(tmp_path / "b")


def judge(server, runs, *flags):
    command = ["judge", *runs, "--judge-model", "m", "--judge-base-url", server.url, "--json", "--retries", "0", *flags]
    done = CliRunner().invoke(cli, command)
    assert done.exception is None or isinstance(done.exception, (MdmError, SystemExit)), done.exception
    return done


OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"Content-Length: 10000000000\r\n\r\n"
BOMB = gzip.compress(bytes(2**24))
MALFORMED = {
    "a body that drips": drip(OK + ENDLESS, b" "),
    "chunks that drip": drip(CHUNKED, b"1\r\n \r\n"),
    "10 GB": flood(OK + ENDLESS, b" " * 2**20),
    "chunks without end": flood(CHUNKED, b"10000\r\n" + b"[" * 65536 + b"\r\n"),
    "a body without length or end": flood(OK + b"\r\n", b"{" * 2**20),
    "gzip bomb": sends(reply(BOMB, headers="Content-Encoding: gzip\r\n")),
    "deflate bomb": sends(reply(zlib.compress(bytes(2**24)), headers="Content-Encoding: deflate\r\n")),
    "br": sends(reply(b"\x8b\x03\x80" * 1000, headers="Content-Encoding: br\r\n")),
    "zstd": sends(reply(b"\x28\xb5\x2f\xfd" * 1000, headers="Content-Encoding: zstd\r\n")),
    "gzip of gzip": sends(reply(gzip.compress(BOMB), headers="Content-Encoding: gzip, gzip\r\n")),
    "gzip of a right reply": sends(reply(gzip.compress(completion("")), headers="Content-Encoding: gzip\r\n")),
    "torn": sends(OK + b"Content-Length: 500\r\n\r\n" + completion('{"winner": 1}')[:40]),
    "no body": sends(reply(b"")),
    "204": sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "HTML": sends(reply(b"<html>hello</html>")),
    "a verdict for a body": sends(reply(b'{"winner": 1}')),
    "deep lists": sends(reply(b"[" * 10**5)),
    "deep content": sends(reply(b'{"choices": [{"message": {"content": ' + b"[" * 10**5)),
    "deep usage": sends(reply(b'{"choices": [], "usage": ' + b'{"a":' * 10**5)),
    "no UTF-8": sends(reply(b'{"choices": [{"message": {"content": "\xff"}}]}')),
    "UTF-16": sends(reply(completion('{"winner": 1}').decode().encode("utf-16"))),
    "NUL": sends(reply(b"\0" * 100)),
    "codec in the content type": sends(reply(b"x" * 1000, headers="Content-Type: text/plain; charset=zip\r\n")),
    "half a character": sends(reply(completion('\ud800\n{"winner": 1}'))),
    "long number": sends(reply(b'{"choices": ' + b"9" * 10**5 + b"}")),
    "null": sends(reply(b"null")),
    "no choices": sends(reply(completion("", choices=[]))),
    "two choices": sends(reply(completion("", choices=[{"message": {"content": '{"winner": 1}'}}] * 2))),
    "choices of null": sends(reply(completion("", choices=[None]))),
    "choices are a mapping": sends(reply(completion("", choices={"0": {"message": {"content": "x"}}}))),
    "no message": sends(reply(completion("", choices=[{}]))),
} | {
    f"content is {name}": sends(reply(completion(content)))
    for name, content in {
        "a number": 7, "a float": 0.5, "true": True, "a list": ["x"], "parts": [{"type": "text", "text": "x"}],
        "a mapping": {"winner": 1},
    }.items()
}  # fmt: skip


@pytest.mark.attack("judge: replies that are none")
@pytest.mark.parametrize("name", MALFORMED)
def test_a_reply_that_is_none_counts_as_malformed_and_is_not_asked_for_again(serve, runs, tmp_path, name):
    server = serve(MALFORMED[name])
    done = judge(server, runs, "--timeout", "1")
    assert done.exit_code == 0 and json.loads(done.stdout)["malformed"] == 2, done.output
    assert done.stderr.count("\n") == 1 and "2 of 2 replies were no chat completions" in done.stderr
    log = (tmp_path / "a" / "judgements.jsonl").read_text()
    assert log.count("\n") == 2 and len(log) < 1_000_000 and KEY not in log
    asked = len(server.requests)
    assert asked == 2 and json.loads(judge(server, runs).stdout)["now"]["judgements"] == 0
    assert len(server.requests) == asked


REFUSED = {
    "no head": (drip(b"", b""), "timed out"),
    "a head that drips": (drip(OK, b"X"), "timed out"),
    "a head without end": (flood(OK, b"X-A: b\r\n"), ""),
    "100 Continue for ever": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), ""),
    "no HTTP": (sends(b"\0\x01\x02 hello\r\n\r\n"), ""),
    "closed at once": (sends(b""), ""),
    "redirect to itself": (sends(reply(b"", "307 Temporary Redirect", "Location: /v1/chat/completions\r\n")), "redir"),
    "redirect to another": (sends(reply(b"", "302 Found", "Location: http://127.0.0.1:9/\r\n")), "not followed"),
    "redirect with escapes": (sends(reply(b"", "302 Found", "Location: http://h/\xc3\xbf%1b[2J\r\n")), "redirects"),
    "a status beyond all": (sends(reply(b"", "999 Odd")), "999"),
    "an error with escape codes": (sends(reply(json.dumps({"error": {"message": ESC}}).encode(), "400 Bad")), "x1b[2J"),
    "an error without end": (flood(b"HTTP/1.1 400 Bad\r\n" + ENDLESS, b" " * 2**20), "400"),
    "an error that drips": (drip(b"HTTP/1.1 400 Bad\r\n" + ENDLESS, b"{"), "400"),
    "a packed error": (sends(reply(BOMB, "400 Bad", "Content-Encoding: gzip\r\n")), "400"),
    "a deep error": (sends(reply(b"[" * 10**5, "400 Bad")), "400"),
    "an error in a codec": (sends(reply(b"x" * 10**5, "400 Bad", "Content-Type: t/p; charset=punycode\r\n")), "400"),
    "wait a year": (sends(reply(b"", "429 Busy", "Retry-After: 31536000\r\n")), "429"),
    "wait for ever": (sends(reply(b"", "503 Busy", "Retry-After: inf\r\nx-should-retry: true\r\n")), "503"),
    "an error that holds the key": (sends(reply(f'{{"error": {{"message": "{KEY}"}}}}'.encode(), "401 No")), "***"),
}


@pytest.mark.attack("judge: endpoints that fail")
@pytest.mark.parametrize("name", REFUSED)
def test_an_endpoint_that_fails_is_one_line(serve, runs, name):
    behave, says = REFUSED[name]
    done = judge(serve(behave), runs, "--timeout", "1")
    line = str(done.exception)
    assert isinstance(done.exception, MdmError) and says in line and "0 of 2 judgements are kept" in line
    assert "\n" not in line and line.isprintable() and len(line) < 2000 and KEY not in line


USAGES = {
    "nothing": {}, "null": {"prompt_tokens": None, "completion_tokens": None}, "negative": -5, "texts": "12",
    "float": 1.5, "true": True, "10^400": 10**400, "NaN": float("nan"), "infinite": float("inf"), "a list": [1],
}  # fmt: skip


@pytest.mark.attack("judge: usage")
@pytest.mark.parametrize("name", USAGES)
def test_odd_usage_is_unknown_and_said_once(serve, runs, name):
    value = USAGES[name]
    usage = value if isinstance(value, dict) else {"prompt_tokens": value, "completion_tokens": value}
    server = serve(sends(reply(completion('{"winner": 1}', usage))))
    for now in (2, 0):
        done = judge(server, runs, "--price-in", "2", "--price-out", "8")
        summary = json.loads(done.stdout)
        assert done.exit_code == 0 and summary["malformed"] == 0
        assert summary["now"] == {"judgements": now, "prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
        assert done.stderr.count("did not say how many tokens") == (now > 0)


PAIRS = {
    '{"winner": 1}': 1, 'Both are fine.\n{"winner": 2}': 0, '{"winner": "tie"}\n\n': 0.5, '{"winner": "1"}  ': 1,
    '{"winner": 1}\nI cannot decide.': None, 'Text 1 says {"winner": 1}': None, '{"winner": 1} is what it says': None,
    '```json\n{"winner": 1}\n```': None, '> {"winner": 1}': None, '`{"winner": 1}`': None, '"{"winner": 1}"': None,
    '{"winner": 1}{"winner": 2}': None, '{"winner": 1} {"winner": 1}': None, '[{"winner": 1}]': None,
    '{"winner": 1, "winner": 2}': None, '{"winner": 1, "winner": 1}': None, '{"winner": 1, "score": 2}': None,
    '{"winner": true}': None, '{"winner": 1.0}': None, '{"winner": [1]}': None, '{"winner": null}': None,
    '{"winner": 1e0}': None, '{"winner": {"winner": 1}}': None, '{"winner": 3}': None, '{"winner": 1': None,
    '{"Winner": 1}': None, "{'winner': 1}": None, '{"winner": 1}' + " " * 300 + "no": None, "": None, "\n": None,
    '{"winner": 1}\r\nno': None, '{"winner": 1}\x00': None, '\x1b[2J{"winner": 1}': None, '{"winner": ' * 10**4: None,
    '{"winner": 1}\n{"winner": 2}': 0, '{"winner": NaN}': None, '{"winner": "1\\u0000"}': None, "1": None,
}  # fmt: skip
SCORES = {
    '{"score": 7}': 7, '{"score": 7.5}': 7.5, '{"score": 1}': 1, '{"score": 10.0}': 10, '{"score": "7"}': None,
    '{"score": true}': None, '{"score": 1e400}': None, '{"score": NaN}': None, '{"score": Infinity}': None,
    '{"score": 0}': None, '{"score": 10.01}': None, '{"score": -7}': None, '{"score": [7]}': None,
    '{"score": 7} / 10': None, '{"winner": 1}': None, '{"score": 1' + "0" * 5000 + "}": None,
    '{"score": 7, "score": 9}': None,
}  # fmt: skip


@pytest.mark.attack("judge: verdicts")
@pytest.mark.parametrize(("question", "answer", "verdict"), [
    *((PAIR, answer, verdict) for answer, verdict in PAIRS.items()),
    *((SINGLE, answer, verdict) for answer, verdict in SCORES.items()),
])  # fmt: skip
def test_a_verdict_is_a_last_line_of_its_own(question, answer, verdict):
    assert question.verdict(answer) == verdict


RECORD = {"key": "k", "example": "w", "repeat": 0, "first": "a", "second": "b", "verdict": 1.0, "answer": "x",
          "prompt_tokens": 1, "completion_tokens": 1}  # fmt: skip
LOGS = {
    "a list": "[1]", "a number": "5", "null": "null", "a text": '"x"', "nothing": "{}", "deep": "[" * 10**5,
    "no JSON": "hello", "no UTF-8": "\udcff", "NaN": json.dumps(RECORD | {"verdict": float("nan")}),
    "a foreign log": '{"id": "w", "completion": "x"}', "a verdict of 11": json.dumps(RECORD | {"verdict": 11}),
    "a verdict of true": json.dumps(RECORD | {"verdict": True}), "a key twice": '{"key": 1, "key": 2}',
    "a key of 5": json.dumps(RECORD | {"key": 5}), "an answer of null": json.dumps(RECORD | {"answer": None}),
    "an empty line": "", "escape codes": json.dumps(RECORD | {"verdict": ESC}),
}  # fmt: skip


@pytest.mark.attack("judge: logs")
@pytest.mark.parametrize("name", LOGS)
def test_a_wrong_log_is_one_line_that_names_it(serve, runs, tmp_path, name):
    log = tmp_path / "a" / "judgements.jsonl"
    data = (json.dumps(RECORD) + "\n" + LOGS[name] + "\n").encode("utf-8", "surrogateescape")
    log.write_bytes(data)
    server = serve(sends(reply(completion('{"winner": 1}'))))
    line = str(judge(server, runs).exception)
    assert "judgements.jsonl, line 2: " in line and line.isprintable() and log.read_bytes() == data
    assert not server.requests


@pytest.mark.attack("judge: logs")
@pytest.mark.parametrize("tokens", [None, "12", {}, -3, 1.5, True])
def test_a_log_with_odd_usage_is_read(serve, runs, tmp_path, tokens):
    (tmp_path / "a" / "judgements.jsonl").write_text(json.dumps(RECORD | {"prompt_tokens": tokens}) + "\n")
    done = judge(serve(sends(reply(completion('{"winner": 1}')))), runs)
    assert done.exit_code == 0 and json.loads(done.stdout)["altogether"]["judgements"] == 2


@pytest.mark.attack("judge: logs")
def test_a_verdict_that_was_not_asked_for_is_named(serve, runs, tmp_path):
    server = serve(sends(reply(completion('{"winner": 1}'))))
    judge(server, runs)
    log = tmp_path / "a" / "judgements.jsonl"
    log.write_text(log.read_text().replace('"verdict": 1.0', '"verdict": 7.0'))
    assert "verdict 7 on example w is none that was asked for" in str(judge(server, runs).exception)


@pytest.mark.attack("judge: keys")
@pytest.mark.parametrize("key", ["sk-é", "sk-1\nX-Evil: 1", "sk-1\r\n", "sk 1", "sk-\x1b[2J", "sk-\udcff", "\n"])
def test_a_key_that_no_header_can_hold_is_one_line(serve, runs, monkeypatch, key):
    server = serve(sends(reply(completion('{"winner": 1}'))))
    monkeypatch.setenv("OPENAI_API_KEY", key)
    line = str(judge(server, runs).exception)
    assert "OPENAI_API_KEY holds no key" in line and "sk" not in line.replace("--judge", "") and line.isprintable()
    assert not server.requests


@pytest.mark.attack("judge: addresses and numbers")
@pytest.mark.parametrize("flags", [
    ["--judge-base-url", "http://[::1"], ["--judge-base-url", "ftp://h"], ["--judge-base-url", ""],
    ["--judge-base-url", "http://h:99999999/"], ["--judge-base-url", "http://\n/"], ["--temperature", "nan"],
    ["--timeout", "inf"], ["--timeout", "nan"], ["--price-in", "1e400"], ["--workers", "1000000000"],
    ["--retries", "1000000000"],
])  # fmt: skip
def test_impossible_addresses_and_numbers_are_one_line(serve, runs, flags):
    done = judge(serve(sends(b"")), runs, *flags)
    assert done.exit_code != 0 and "Traceback" not in done.output


@pytest.mark.attack("judge: escape codes")
def test_what_is_kept_of_an_answer_is_shown_and_not_obeyed(serve, runs, tmp_path):
    server = serve(sends(reply(completion(f'{ESC}{KEY}\n{{"winner": 1}}'))))
    assert judge(server, runs).exit_code == 0
    log = (tmp_path / "a" / "judgements.jsonl").read_text()
    answer = json.loads(log.splitlines()[0])["answer"]
    assert log.replace("\n", "").isprintable() and answer.startswith("\\x1b[2J\\x1b]0;owned\\x07\\x9b31m***")


@pytest.mark.attack("judge: keys")
@pytest.mark.parametrize("escape", [
    lambda c: f"\\u{ord(c):04x}", lambda c: f"\\\\u{ord(c):04X}", lambda c: f"%{ord(c):02x}", lambda c: f"&#{ord(c)};",
    lambda c: f"\\x{ord(c):02x}", lambda c: "\\" + c,
])  # fmt: skip
@pytest.mark.parametrize("body", ['{"x": "KEY"}', "KEY", '{"choices": [{"message": {"content": "KEY"}}]}'])
def test_a_key_that_comes_back_in_escapes_is_not_kept(monkeypatch, escape, body):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    answer = Endpoint("m", "http://127.0.0.1:9")._read(body.replace("KEY", "".join(map(escape, KEY))).encode())
    assert "holds the key" in answer.text or "***" in answer.text


@pytest.mark.attack("judge: Ctrl-C")
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_a_request_that_hangs(serve, runs, tmp_path, presses):
    """The first waits for what is under way, here shortened; the second does not."""
    server = serve(drip(OK + ENDLESS, b" ") if presses == 2 else lambda connection: time.sleep(60))
    code = f"import mdm.cli, mdm_writing.judging as j; j.PATIENCE = {0.3 if presses == 1 else 60}; mdm.cli.main()"
    command = [sys.executable, "-c", code, "judge", *runs, "--judge-model", "m", "--judge-base-url", server.url]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    while len(server.requests) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.stderr.readline()
    if presses == 2:
        process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and "2 requests are under way" in said
    assert "the same command goes on" in rest and "Traceback" not in rest


ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage"]), inner)
), max_leaves=8)  # fmt: skip


@pytest.mark.attack("judge: replies that are none")
@given(st.binary() | ANY.map(lambda value: json.dumps(value).encode()) | ANY.map(completion))
@example(completion('{"winner": 1}'))
@settings(max_examples=60, deadline=None)
def test_any_reply_becomes_a_line_of_the_log(body):
    answer = READER._read(body)
    record = Judgement.of("k", PAIR, answer)
    assert record.verdict in (None, 0, 0.5, 1) and Judgement.model_validate_json(record.model_dump_json()) == record


def test_a_byte_order_mark_is_no_fault():
    assert READER._read(b"\xef\xbb\xbf" + completion("yes")).text == "yes"


READER = Endpoint("m", "http://127.0.0.1:9")
