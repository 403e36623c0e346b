"""A server of its own process under clients that go away, read nothing, send nonsense or have no key.

Whatever they do, the others get the answers of ``mdm.decode``, and no row, no socket and no memory is left behind.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import mdm
import pytest
from hostile_requests import CHAT, KEY, PLAIN, RAW, REFUSED
from hypothesis import HealthCheck, given, settings, strategies as st
from live_server import LiveServer

LONG = {"max_tokens": 48, "block_length": 4, "sampler": "confidence", "temperature": 0.7}
"""A request that goes on for a while, in many chunks."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "key").write_text(KEY)
    with LiveServer("tiny", ["--api-key-file", str(folder / "key")], log=folder / "log", key=KEY) as server:
        with server.client() as client:  # from the first chat on, templates have a process and a socket to it
            client.post("/v1/chat/completions", json=CHAT)
        yield server
        log = (folder / "log").read_text()
        assert "Traceback" not in log and PLAIN["prompt"] not in log, log


@pytest.fixture(scope="module")
def model() -> mdm.Model:
    return mdm.load_model("tiny", device="cpu")


@contextmanager
def nothing_left(server: LiveServer) -> Iterator[None]:
    """What is done within leaves no row, no request and no socket, and the server still answers."""
    before = server.settle()
    yield
    server.settle(before)
    with server.client() as client:
        assert client.post("/v1/completions", json=PLAIN).status_code == 200


def check_refusal(response: httpx.Response) -> None:
    """One line in OpenAI's form, with nothing of the server's inside."""
    error = response.json()["error"]
    message = error["message"]
    assert isinstance(message, str) and message.strip() and "\n" not in message and len(message) < 2000
    assert not any(inside in response.text for inside in ("Traceback", 'File "', "site-packages"))


def test_what_no_client_should_send_is_refused_by_a_line(server):
    wrong = {}
    with nothing_left(server), server.client() as client:
        for name, (endpoint, body) in REFUSED.items():
            headers = {"Content-Type": "application/json"}
            try:
                response = client.post(f"/v1/{endpoint}", content=body, headers=headers)
            except httpx.TransportError as error:
                if name != "a body far beyond the bound":  # which the server need not read to its end
                    wrong[name] = repr(error)
                continue
            try:
                assert 400 <= response.status_code < 500
                check_refusal(response)
            except (AssertionError, ValueError, KeyError, TypeError) as error:
                wrong[name] = f"{response.status_code} {response.text[:300]} ({type(error).__name__})"
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
    assert len(REFUSED) >= 40


def written(server: LiveServer, data: bytes) -> bytes:
    """What the server answers to these bytes, as far as it comes in a moment."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while len(answer) < 100_000 and (part := connection.recv(65536)):
                answer += part
        except OSError:
            pass
        return answer


def check_bytes(answer: bytes) -> None:
    assert not any(inside in answer for inside in (b"Traceback", b'File "', b"site-packages", b"root:x:"))
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200", b"HTTP/1.1 100", b"HTTP/1.1 3")), answer


@pytest.mark.wide
def test_bytes_that_are_no_request_harm_nobody(server):
    with nothing_left(server):
        for data in RAW.values():
            check_bytes(written(server, data))


NUMBERS = st.one_of(st.integers(), st.integers(-3, 300), st.floats(), st.sampled_from([0, 1, 2**31, 2**63, -1, 1e308]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.sampled_from(["0123", "[MASK]", "<|mask|>"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "prompt", "messages", "suffix", "max_tokens", "max_completion_tokens", "stop", "seed", "temperature", "top_p",
    "top_k", "n", "stream", "stream_options", "logprobs", "top_logprobs", "echo", "best_of", "user", "sampler",
    "sampler_options", "steps", "block_length", "cache", "cache_options", "mdm_trace", "guidance", "timeout",
    "presence_penalty", "frequency_penalty", "logit_bias", "model", "tools", "response_format",
)  # fmt: skip
BODIES = st.one_of(
    ANYTHING,
    st.builds(lambda base, more: base | more, st.sampled_from([PLAIN, CHAT]),
              st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=3)),
)  # fmt: skip


def check_body(server: LiveServer, client: httpx.Client, endpoint: str, content: bytes) -> None:
    response = client.post(f"/v1/{endpoint}", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 200 or 400 <= response.status_code < 500, (response.status_code, response.text)
    if response.status_code != 200:
        check_refusal(response)
    assert server.process.poll() is None


def fuzz(server: LiveServer, examples: int) -> None:
    """So many bodies of JSON, and of bytes, that hypothesis makes up."""
    options = settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    with nothing_left(server), server.client() as client:

        @options
        @given(st.sampled_from(["completions", "chat/completions"]), BODIES)
        def values(endpoint: str, body: Any) -> None:
            check_body(server, client, endpoint, json.dumps(body).encode())

        @options
        @given(st.binary(max_size=200))
        def anything(data: bytes) -> None:
            check_body(server, client, "completions", data)

        @settings(options, max_examples=max(examples // 10, 5))
        @given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", b"POST /v1/completions HTTP/1.1\r\n"]))
        def raw(data: bytes, before: bytes) -> None:
            check_bytes(written(server, before + data))

        values()
        anything()
        raw()


@pytest.mark.wide
def test_whatever_a_fuzzer_makes_up_is_answered(server):
    fuzz(server, 60)


@pytest.mark.wide
def test_whatever_a_fuzzer_makes_up_is_answered_for_long(server):
    fuzz(server, 3000)


WRONG_KEYS = (
    None, "", "Bearer", "Bearer -", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY.upper()}", KEY,
    f"Basic {KEY}", f"Bearer {KEY} {KEY}", "Bearer ключ".encode(), b"Bearer \xff\xfe", "Bearer " + "k" * 50_000,
    "Bearer null",
)  # fmt: skip


def test_without_the_key_nothing_is_shown(server):
    asked = [("POST", "/v1/completions", PLAIN), ("POST", "/v1/chat/completions", CHAT), ("GET", "/v1/models", None)]
    with nothing_left(server), httpx.Client(base_url=server.url, timeout=30) as client:
        for key in WRONG_KEYS:
            for method, path, body in asked:
                headers = {} if key is None else {b"Authorization": key if isinstance(key, bytes) else key.encode()}
                response = client.request(method, path, json=body, headers=headers)
                assert response.status_code in (401, 403, 400 if len(key or "") > 1000 else 401, 431), (key, path)
                if response.status_code == 401:
                    check_refusal(response)
                assert KEY not in response.text
        assert client.get("/health").status_code == 200


def requests(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        PLAIN | LONG | {"prompt": "".join(draw.choices("01234", k=draw.randint(4, 12))) + ":", "seed": number,
                        "max_tokens": draw.randint(16, 48), "stream": True}
        for number in range(count)
    ]  # fmt: skip


def expected(model: mdm.Model, body: dict[str, Any]) -> str | None:
    """What ``mdm.decode`` gives for a body of ``requests``."""
    asked = {name: body[name] for name in ("block_length", "sampler", "temperature", "seed")}
    return mdm.decode(model, [body["prompt"]], gen_length=body["max_tokens"], trace=False, **asked)[0].text


async def read_all(client: httpx.AsyncClient, body: dict[str, Any]) -> str | None:
    """The text of a stream; None where it ends before its end."""
    text, done = "", False
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        try:
            async for line in response.aiter_lines():
                done = done or line == "data: [DONE]"
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    text += "".join(choice["text"] for choice in chunk.get("choices", ()))
        except httpx.RemoteProtocolError:
            return None
    return text if done else None


def head(server: LiveServer, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        + data
    )


async def killed(server: LiveServer, body: dict[str, Any], number: int) -> None:
    """A client that goes in mid-stream: after a chunk or at once, by a close or by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(server, body))
    await writer.drain()
    if number % 3:
        await reader.readuntil(b"data: ")
    if number % 2:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@contextmanager
def slow_readers(server: LiveServer, count: int) -> Iterator[None]:
    """Clients that ask for everything there is about a long answer, and read nothing of it."""
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect(("127.0.0.1", server.port))
            body = PLAIN | LONG | {"max_tokens": 64, "seed": number, "stream": True, "mdm_trace": "full"}
            connection.sendall(head(server, body))
        yield


def round_of_clients(server: LiveServer, model: mdm.Model, count: int, seed: int) -> None:
    """A quarter is killed in mid-stream while others read nothing; the rest are answered as ever."""
    bodies = requests(count, seed)

    async def all_of_them() -> list[str | None]:
        at_once = asyncio.Semaphore(24)

        async def one(client: httpx.AsyncClient, number: int, body: dict[str, Any]) -> str | None:
            async with at_once:
                if number % 4 == 0:
                    return await killed(server, body, number // 4)
                return await read_all(client, body)

        async with server.async_client() as client:
            return await asyncio.gather(*(one(client, number, body) for number, body in enumerate(bodies)))

    with nothing_left(server), slow_readers(server, 4):
        answers = asyncio.run(all_of_them())
        server.settle()  # no row waits for those who do not read
    wrong = [
        number for number, (body, text) in enumerate(zip(bodies, answers, strict=True))
        if number % 4 and text != expected(model, body)
    ]  # fmt: skip
    assert not wrong, wrong


@pytest.mark.wide
def test_clients_that_go_and_clients_that_do_not_read_harm_nobody(server, model):
    round_of_clients(server, model, 16, 0)


@pytest.mark.wide
def test_rounds_leave_nothing_behind(server, model):
    """Memory after the third such round is that after the second."""
    held = []
    for number in range(3):
        round_of_clients(server, model, 200, number)
        fuzz(server, 200)
        test_what_no_client_should_send_is_refused_by_a_line(server)
        test_bytes_that_are_no_request_harm_nobody(server)
        test_without_the_key_nothing_is_shown(server)
        held.append(server.resident())
    print("resident after each round:", ", ".join(f"{size / 2**20:.1f} MiB" for size in held))
    assert held[2] < 1.05 * held[1], held


def stopped_under_load(tmp_path, signals: int) -> tuple[int, list[str | None], list[dict[str, Any]]]:
    """Its exit status and what its clients got, where so many SIGTERMs come in the middle of 8 streams."""
    bodies = requests(8, 5)
    with LiveServer("tiny", log=tmp_path / "log") as server:

        async def streams() -> list[str | None]:
            async with server.async_client() as client:
                tasks = [asyncio.create_task(read_all(client, body)) for body in bodies]
                while server.gauges()["mdm_rows_running"] < 4:
                    await asyncio.sleep(0.02)
                for _ in range(signals):
                    server.process.send_signal(signal.SIGTERM)
                    await asyncio.sleep(0.1)
                return await asyncio.gather(*tasks)

        answers = asyncio.run(streams())
        status = server.process.wait(60)
    assert "Traceback" not in (tmp_path / "log").read_text()
    return status, answers, bodies


def test_sigterm_lets_answers_end(tmp_path, model):
    status, answers, bodies = stopped_under_load(tmp_path, 1)
    assert status == 0
    assert answers == [expected(model, body) for body in bodies]


@pytest.mark.wide
def test_a_second_sigterm_ends_at_once(tmp_path):
    status, answers, _ = stopped_under_load(tmp_path, 2)
    assert None in answers and status != 0
