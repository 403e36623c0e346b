"""What is refused, and how: OpenAI's shape, one line, the culprit's name, and a server that serves on."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from typing import Any

import openai
import pytest
from hypothesis import given, settings, strategies as st
from mdm_serve.limits import Limits

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "1"}], "max_tokens": 2}
ONE = {"prompt": "1", "max_tokens": 2}


def message(**fields: Any) -> dict[str, Any]:
    return HI | {"messages": [{"role": "user", "content": "1"} | fields]}


# Path, what is changed in a good body, the culprit (param), and a word of the line.
FIELDS: list[tuple[str, dict[str, Any], str | None, str]] = [
    (CHAT, HI | {"tools": [{"type": "function"}]}, "tools", "calls no tools"),
    (CHAT, HI | {"tool_choice": "required"}, "tool_choice", "cannot be honoured"),
    (CHAT, HI | {"functions": [{}]}, "functions", "cannot be honoured"),
    (CHAT, HI | {"response_format": {"type": "json_object"}}, "response_format", "answer is text"),
    (CHAT, HI | {"logit_bias": {"5": 1}}, "logit_bias", "allowed_tokens"),
    (CHAT, HI | {"frequency_penalty": 0.5}, "frequency_penalty", "cannot be honoured"),
    (CHAT, HI | {"frequency_penalty": False}, "frequency_penalty", "cannot be honoured"),
    (TEXT, ONE | {"presence_penalty": -1}, "presence_penalty", "cannot be honoured"),
    (CHAT, HI | {"top_logprobs": 2, "logprobs": True}, "top_logprobs", "chosen token"),
    (CHAT, HI | {"modalities": ["audio"]}, "modalities", "text"),
    (CHAT, HI | {"reasoning_effort": "high"}, "reasoning_effort", "no such setting"),
    (CHAT, HI | {"store": True}, "store", "nothing is stored"),
    (CHAT, HI | {"logprobs": 1}, "logprobs", "boolean"),
    (CHAT, HI | {"suffix": "1"}, "suffix", "no such name"),
    (CHAT, HI | {"prompt": "1"}, "prompt", "no such name"),
    (CHAT, HI | {"max_completion_tokens": 3}, "max_tokens", "differ"),
    (CHAT, HI | {"messages": []}, "messages", "at least 1"),
    (CHAT, {"max_tokens": 2}, "messages", "missing"),
    (CHAT, message(role="tool"), "messages", "'assistant'"),
    (CHAT, message(name="me"), "messages", "name"),
    (CHAT, message(content=None), "messages", "valid string"),
    (CHAT, message(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages", "content[0]"),
    (CHAT, message(content=[{"type": "text", "text": 5}]), "messages", "content[0]"),
    (CHAT, message(tool_calls=[{}]), "messages", "tool_calls"),
    (TEXT, ONE | {"echo": True}, "echo", "cannot be honoured"),
    (TEXT, ONE | {"best_of": 3}, "best_of", "cannot be honoured"),
    (TEXT, ONE | {"logprobs": 2}, "logprobs", "logprobs=0"),
    (TEXT, ONE | {"messages": []}, "messages", "no such name"),
    (TEXT, {"max_tokens": 2}, "prompt", "missing"),
    (TEXT, ONE | {"prompt": []}, "prompt", ""),
    (TEXT, ONE | {"prompt": [1, "a"]}, "prompt", ""),
    (TEXT, ONE | {"prompt": [[]]}, "prompt", ""),
    (TEXT, ONE | {"prompt": [-1]}, None, "outside the vocabulary"),
    (TEXT, ONE | {"prompt": "1" * 255}, None, "257 tokens, its answer included, and this server decodes at most 256"),
    (TEXT, ONE | {"max_tokens": 250, "suffix": "123456"}, None, "--max-length"),
    (TEXT, ONE | {"prompt": [10**30]}, None, "outside the vocabulary"),
    (TEXT, ONE | {"prompt": ["1"] * 200, "n": 2}, "n", "at most"),
    (TEXT, ONE | {"suffix": [64]}, "suffix", "outside the vocabulary"),
    (TEXT, ONE | {"temprature": 0.5}, "temprature", "'temperature'"),
    (TEXT, ONE | {"temperature": "hot"}, "temperature", "number"),
    (TEXT, ONE | {"temperature": "0.5"}, "temperature", "number"),
    (TEXT, ONE | {"temperature": True}, "temperature", "number"),
    (TEXT, ONE | {"temperature": -1}, "temperature", "greater"),
    (TEXT, ONE | {"temperature": 1e300}, "temperature", "magnitude"),
    (TEXT, ONE | {"top_p": 0}, "top_p", "greater"),
    (TEXT, ONE | {"top_p": 0.5}, "top_p", "temperature 0"),
    (TEXT, ONE | {"seed": 2**63}, "seed", "64 bits"),
    (TEXT, ONE | {"seed": 0.5}, "seed", "integer"),
    (TEXT, ONE | {"n": 0}, "n", "greater"),
    (TEXT, ONE | {"n": True}, "n", "integer"),
    (TEXT, ONE | {"n": 10**6}, "n", "less"),
    (TEXT, ONE | {"max_tokens": 0}, "max_tokens", "nothing to decode"),
    (TEXT, ONE | {"max_tokens": -1}, "max_tokens", "greater"),
    (TEXT, ONE | {"max_tokens": 10**9}, "max_tokens", "less"),
    (TEXT, ONE | {"stop": ["1"] * 17}, "stop", "at most 16"),
    (TEXT, ONE | {"stop": [""]}, "stop", "at least 1"),
    (TEXT, ONE | {"stop": 5}, "stop", "list"),
    (TEXT, ONE | {"stream": "yes"}, "stream", "boolean"),
    (TEXT, ONE | {"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    (TEXT, ONE | {"stream": True, "stream_options": {"everything": True}}, "stream_options", ""),
    (TEXT, ONE | {"model": 5}, "model", "string"),
    (TEXT, ONE | {"sampler": "confidenc"}, "sampler", "'confidence'"),
    (TEXT, ONE | {"sampler": "info-gain", "sampler_options": {"candidate": 3}}, None, "'candidates'"),
    (TEXT, ONE | {"sampler": "pc", "sampler_options": {"baseline": "/etc/passwd"}}, "sampler_options", "file of the"),
    (TEXT, ONE | {"sampler_options": [3]}, "sampler_options", "dictionary"),
    (TEXT, ONE | {"cache": "no-such"}, "cache", "no-such"),
    (TEXT, ONE | {"steps": 2, "tokens_per_step": 1}, "steps", "either steps or tokens_per_step"),
    (TEXT, ONE | {"steps": 0}, "steps", "greater"),
    (TEXT, ONE | {"unconditional": "1"}, "unconditional", "guidance"),
    (TEXT, ONE | {"allowed_tokens": [[5, 500]]}, "allowed_tokens", "vocabulary"),
    (TEXT, ONE | {"batch_size": 4}, "batch_size", "no such name"),
    (TEXT, ONE | {"gen_length": 4}, "gen_length", "no such name"),
    (TEXT, ONE | {"mdm_trace": "most"}, "mdm_trace", "'full'"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [{}, {"stream": True}], ids=["whole", "stream"])
def test_a_field_that_cannot_be_honoured_is_named(served, stream):
    for path, body, param, word in FIELDS:
        asked = body if "stream_options" in body or "stream" in body else stream | body
        status, answer, _ = served.ask(path, asked)
        shown = json.dumps(body)[:200]
        assert status == 400 and set(answer["error"]) == {"message", "type", "param", "code"}, (shown, status, answer)
        error = answer["error"]
        assert (error["param"], error["type"]) == (param, "invalid_request_error"), (shown, error)
        assert word in error["message"] and "\n" not in error["message"], (shown, error)
    assert served.settled()


BODIES = [
    b"", b"null", b"[]", b"5", b'"text"', b"{", b'{"prompt": "1",}', b"{'prompt': '1'}", b'\xff\xfe{"prompt": "1"}',
    b'{"prompt": "\xff"}', b'{"prompt": "1", "prompt": "2"}', b'{"prompt": "1", "temperature": NaN}',
    b'{"prompt": "1", "temperature": Infinity}', b'{"prompt": "1", "temperature": 1e999}',
    b'{"prompt": "1", "seed": ' + b"9" * 5000 + b"}", b'{"sampler_options": ' + b"[" * 70 + b"]" * 70 + b"}",
    b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt": "1"} {}', b'{"prompt": "1"}\x00', b"prompt=1&max_tokens=2",
    b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n1\r\n--x--', b"\x1f\x8b\x08\x00",
]  # fmt: skip
"""Bodies that are no request."""


def test_bodies_that_are_no_request(served):
    for body in BODIES:
        for path in (CHAT, TEXT):
            status, answer, _ = served.ask(path, body)
            assert status == 400 and "\n" not in answer["error"]["message"], (body[:40], status, answer)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5,
)  # fmt: skip
NAMES = sorted({name for _, body, _, _ in FIELDS for name in body} | {"user", "top_k", "guidance", "stop"})


@settings(max_examples=60)
@given(
    st.sampled_from([CHAT, TEXT]), st.dictionaries(st.sampled_from(NAMES), json_values, max_size=3),
    st.binary(max_size=3), st.integers(0, 100),
)  # fmt: skip
def test_no_body_harms_the_server(served, path, changes, noise, at):
    data = json.dumps((HI if path == CHAT else ONE) | changes).encode()
    status, answer, _ = served.ask(path, data[:at] + noise + data[at:] if noise else data)
    assert status in (200, 400, 404), answer
    if status != 200:
        assert answer["error"]["message"] and "Traceback" not in json.dumps(answer)


def test_paths_methods_and_models(served):
    for path, method, body, status, kind in [
        ("/v1/nothing", "GET", None, 404, "not_found_error"),
        ("/v1/chat/completions/", "POST", HI, 404, "not_found_error"),
        (TEXT, "GET", None, 405, "invalid_request_error"),
        ("/health", "DELETE", None, 405, "invalid_request_error"),
        ("/docs", "GET", None, 404, "not_found_error"),
        ("/openapi.json", "GET", None, 404, "not_found_error"),
        ("/site/../errors.py", "GET", None, 404, "not_found_error"),
        ("/site/%2e%2e%2ferrors.py", "GET", None, 404, "not_found_error"),
        (TEXT, "POST", ONE | {"model": "gpt-5"}, 404, "not_found_error"),
    ]:
        found, answer, _ = served.ask(path, body, method)
        assert (found, answer["error"]["type"]) == (status, kind), (path, found, answer)


def test_pages_of_other_sites_may_not_ask(served):
    for headers, status in [
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://127.0.0.1:{served.port + 1}"}, 403),
        ({"Origin": served.url}, 200),
        ({"Host": "localhost:9"}, 200),
        ({"Host": "[::1]:9"}, 200),
    ]:
        found, _, answered = served.ask("/v1/models", headers=headers)
        assert found == status, headers
        assert not any(name.startswith("access-control") for name in answered)


def raw(port: int, data: bytes) -> bytes:
    """What a server says to some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_keys_and_sizes(model, serving):
    limits = Limits(key="abc-1", max_body=500)
    with serving(model, limits) as up:
        for headers, status in [
            ({}, 401), ({"Authorization": "Bearer"}, 401), ({"Authorization": "Bearer abc-"}, 401),
            ({"Authorization": "Bearer abc-12"}, 401), ({"Authorization": "Basic abc-1"}, 401),
            ({"Authorization": "Bearer \xe4bc"}, 401), ({"Authorization": "Bearer abc-1"}, 200),
            ({"authorization": "bearer abc-1"}, 200),
        ]:  # fmt: skip
            for path in ("/v1/models", "/metrics", "/mdm/describe"):
                found, answer, _ = up.ask(path, headers=headers)
                assert found == status, (headers, path)
                assert status == 200 or answer["error"]["type"] == "authentication_error"
            assert up.ask("/health", headers=headers)[0] == 200 and up.ask("/", headers=headers)[0] == 200
        assert up.ask(TEXT, ONE)[0] == 401
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{up.url}/v1", api_key="abc", max_retries=0).models.list()
        with openai.OpenAI(base_url=f"{up.url}/v1", api_key="abc-1", max_retries=0) as client:
            assert client.models.list().data[0].id == "tiny"
            with pytest.raises(openai.APIStatusError) as refused:
                client.completions.create(model="tiny", prompt="1" * 600)
            assert refused.value.status_code == 413 and "500 bytes" in refused.value.message

        head = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abc-1\r\n".encode()
        chunk = b"%x\r\n%s\r\n" % (300, b"1" * 300)
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        assert b" 413 " in raw(up.port, chunked + chunk * 4 + b"0\r\n\r\n").partition(b"\r\n")[0]
        assert b" 413 " in raw(up.port, chunked + chunk * 100).partition(b"\r\n")[0]
        # Half a body, and no HTTP at all.
        raw(up.port, head + b"Content-Length: 400\r\n\r\n{")
        raw(up.port, chunked + chunk + b"zz\r\n")
        assert b" 400 " in raw(up.port, b"\x16\x03\x01\x02\x00\x01\x00").partition(b"\r\n")[0]
        assert up.ask("/health")[0] == 200 and up.settled()


def test_a_full_queue(model, serving):
    with serving(model, Limits(queue=3), batch_size=1) as up:
        with openai.OpenAI(base_url=f"{up.url}/v1", api_key="-", max_retries=0) as client:
            first = client.completions.create(model="tiny", prompt="1", n=4, max_tokens=200, stream=True)
            status, answer, headers = up.ask(TEXT, ONE)
            assert status == 429 and answer["error"]["code"] == "queue_full" and headers["retry-after"] == "1"
            first.close()
        assert up.settled()
        assert up.ask(TEXT, ONE)[0] == 200


def test_time_runs_out(model, serving):
    with serving(model, Limits(timeout=0.2), batch_size=1) as up:
        asked = {"prompt": "1", "max_tokens": 240, "n": 8}
        status, answer, _ = up.ask(TEXT, asked)
        assert status == 504 and answer["error"]["code"] == "timeout" and "0.2 s" in answer["error"]["message"]
        status, stream, _ = up.ask(TEXT, asked | {"stream": True})
        last = json.loads(stream.decode().strip().split("\n\n")[-1].removeprefix("data: "))
        assert status == 200 and last["error"]["code"] == "timeout"
        assert up.settled()


def test_a_client_that_goes_away_frees_its_rows(served):
    for stream in (False, True):
        body = json.dumps({"prompt": "1", "max_tokens": 250, "n": 16, "stream": stream}).encode()
        head = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head + body)
            while not served.service.worker.state.running:
                time.sleep(0.01)
        assert served.settled()
    assert served.ask(TEXT, ONE)[0] == 200


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second"])
def test_half_a_head_is_not_waited_for(served, monkeypatch, before):
    monkeypatch.setattr("mdm_serve.server.HEAD_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(before)
        if before:
            assert b"200 OK" in connection.recv(65536)
        for byte in b"GET /health HTTP":  # one at a time keeps nobody waiting either
            time.sleep(0.05)
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
    assert served.ask(TEXT, ONE)[0] == 200


@pytest.mark.parametrize("kind", ["memory", "mistake"])
def test_a_failure_ends_its_request_and_no_other(served, monkeypatch, kind):
    session = served.service.worker._session
    step = session.step

    def fail() -> list:
        updates = step()
        if not updates:
            return updates
        monkeypatch.undo()
        if kind == "mistake":
            raise ZeroDivisionError("a secret of the server")
        failed = {"finish": "error", "error": ValueError("no memory for 3 rows"), "out_of_memory": True, "result": None}
        return [replace(update, **failed) for update in updates[:1]]

    monkeypatch.setattr(session, "step", fail)
    status, answer, headers = served.ask(TEXT, ONE | {"max_tokens": 40})
    if kind == "mistake":
        assert status == 500 and "secret" not in answer["error"]["message"]
    else:
        assert status == 503 and answer["error"]["code"] == "out_of_memory" and headers["retry-after"]
    assert served.ask(TEXT, ONE)[0] == 200 and served.settled()
