"""Requests that no client should send, and what they must be answered with."""

from __future__ import annotations

import json
from typing import Any

KEY = "a-key-of-the-tests"
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "0123"}], "max_tokens": 8}
PLAIN: dict[str, Any] = {"model": "tiny", "prompt": "0123:", "max_tokens": 8}


def plain(**fields: Any) -> bytes:
    return json.dumps(PLAIN | fields).encode()


def chat(**fields: Any) -> bytes:
    return json.dumps(CHAT | fields).encode()


REFUSED: dict[str, tuple[str, bytes]] = {
    "no body": ("completions", b""),
    "no JSON": ("completions", b"prompt=hello"),
    "half a body": ("completions", b'{"prompt": "0123'),
    "two bodies": ("completions", b'{"prompt": "0"}{"prompt": "1"}'),
    "a list": ("completions", b'[{"prompt": "0"}]'),
    "a text": ("completions", b'"0123"'),
    "null": ("completions", b"null"),
    "a number": ("completions", b"1"),
    "an empty object": ("completions", b"{}"),
    "no UTF-8": ("completions", b'{"prompt": "\xff\xfe"}'),
    "a NUL in the JSON": ("completions", b'{"prompt":\x00 "0"}'),
    "half of a surrogate pair": ("completions", b'{"prompt": "\\ud800", "max_tokens": 4}'),
    "a number that is none": ("completions", b'{"prompt": "0", "temperature": NaN}'),
    "an endless number": ("completions", b'{"prompt": "0", "temperature": 1e999}'),
    "a number of 10,000 digits": ("completions", b'{"prompt": "0", "seed": ' + b"9" * 10_000 + b"}"),
    "depth": ("completions", b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "depth of objects": ("completions", b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a key twice": ("completions", b'{"prompt": "0", "max_tokens": 4, "max_tokens": 8}'),
    "an unknown key": ("completions", plain(max_tokns=4)),
    "100,000 unknown keys": ("completions", json.dumps(PLAIN | {f"k{i}": i for i in range(100_000)}).encode()),
    "a prompt that is a number": ("completions", plain(prompt=12)),
    "a prompt that is an object": ("completions", plain(prompt={"text": "0"})),
    "no prompts": ("completions", plain(prompt=[])),
    "a prompt of mixed kinds": ("completions", plain(prompt=["0", 1])),
    "negative ids": ("completions", plain(prompt=[1, -1])),
    "ids beyond the vocabulary": ("completions", plain(prompt=[1, 10**6])),
    "ids beyond 64 bits": ("completions", plain(prompt=[2**70])),
    "true as an id": ("completions", plain(prompt=[True, 3])),
    "a prompt that no memory holds": ("completions", plain(prompt="0" * 1_900_000)),
    "more prompts than the queue": ("completions", plain(prompt=["0"] * 50_000)),
    "max_tokens 0": ("completions", plain(max_tokens=0)),
    "max_tokens negative": ("completions", plain(max_tokens=-1)),
    "max_tokens huge": ("completions", plain(max_tokens=2**40)),
    "max_tokens beyond 64 bits": ("completions", plain(max_tokens=2**80)),
    "max_tokens with a part": ("completions", plain(max_tokens=1.5)),
    "max_tokens a text": ("completions", plain(max_tokens="many")),
    "temperature negative": ("completions", plain(temperature=-1)),
    "temperature huge": ("completions", plain(temperature=1e300)),
    "temperature a list": ("completions", plain(temperature=[1])),
    "top_p above 1": ("completions", plain(temperature=1, top_p=1.5)),
    "top_p 0": ("completions", plain(temperature=1, top_p=0)),
    "n 0": ("completions", plain(n=0)),
    "n huge": ("completions", plain(n=10**9)),
    "seed a text": ("completions", plain(seed="one")),
    "seed beyond 64 bits": ("completions", plain(seed=2**70)),
    "stop a number": ("completions", plain(stop=5)),
    "stop an empty text": ("completions", plain(stop="")),
    "10,000 stop texts": ("completions", plain(stop=[f"s{i}" for i in range(10_000)])),
    "stream a text": ("completions", plain(stream="yes please")),
    "logit_bias": ("completions", plain(logit_bias={"5": 100})),
    "response_format": ("chat/completions", chat(response_format={"type": "json_object"})),
    "tools": ("chat/completions", chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])),
    "echo": ("completions", plain(echo=True, logprobs=1)),
    "an unknown sampler": ("completions", plain(sampler="nobody's")),
    "a sampler that is a path": ("completions", plain(sampler="../../etc/passwd")),
    "unknown sampler options": ("completions", plain(sampler="confidence", sampler_options={"nothing": 1})),
    "sampler options that are no object": ("completions", plain(sampler_options=[1, 2])),
    "an unknown cache": ("completions", plain(cache="nobody's")),
    "steps 0": ("completions", plain(steps=0)),
    "steps negative": ("completions", plain(steps=-3)),
    "block_length 0": ("completions", plain(block_length=0)),
    "block_length negative": ("completions", plain(block_length=-8)),
    "another model": ("completions", plain(model="gpt-17")),
    "a model that is a list": ("completions", plain(model=["tiny"])),
    "a suffix that is a number": ("completions", plain(suffix=1)),
    "no messages": ("chat/completions", chat(messages=[])),
    "messages a text": ("chat/completions", chat(messages="hello")),
    "a message that is a text": ("chat/completions", chat(messages=["hello"])),
    "a message without a role": ("chat/completions", chat(messages=[{"content": "0"}])),
    "a message without content": ("chat/completions", chat(messages=[{"role": "user"}])),
    "a role of nobody": ("chat/completions", chat(messages=[{"role": "wizard", "content": "0"}])),
    "a role that is a number": ("chat/completions", chat(messages=[{"role": 1, "content": "0"}])),
    "an image": (
        "chat/completions",
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]),
    ),
    "audio": ("chat/completions", chat(modalities=["audio"])),
    "a body beyond the bound": ("completions", plain(prompt="0" * 3_000_000)),
    "a body far beyond the bound": ("completions", plain(prompt="0" * 50_000_000)),
}  # fmt: skip
"""By a name: the endpoint, and a body that is answered with a 4xx."""

POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"

RAW: dict[str, bytes] = {
    "nothing": b"",
    "blank lines": b"\r\n" * 1000,
    "a word": b"hello\r\n\r\n",
    "binary": bytes(range(256)) * 16,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9": b"GET /health HTTP/9.9\r\n\r\n",
    "no host": b"POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "half a head": POST + b"Content-Le",
    "a head without end": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Long: " + b"a" * 1_000_000,
    "10,000 headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"X-%d: 1\r\n" % i for i in range(10_000))
    + b"\r\n",
    "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path upwards": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path upwards, quoted": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body shorter than said": POST + b"Content-Length: 1000\r\n\r\n{}",
    "a length that is negative": POST + b"Content-Length: -5\r\n\r\n{}",
    "a length that is a word": POST + b"Content-Length: two\r\n\r\n{}",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "a chunk of a bad size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a chunk of a huge size": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n",
    "a length that is huge": POST + b"Content-Length: 99999999999999\r\n\r\n{}",
    "a body that waits to be asked for": POST + b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n",
    "a websocket": (
        b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ),
    "a method of nobody": b"BREW /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "headers that are not ASCII": (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\xfd\r\n\r\n"
    ),
}
"""By a name: bytes written to the server's socket, answered with a 4xx, with what anyone may see, or not at all."""
