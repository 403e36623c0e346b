"""Many requests at a server, some taken back: none is lost, none mixed up, and how long they take.

    PYTHONPATH=tests/support python docs/serve_load.py --sampler confidence --sampler mixed

Each sampler has a set of requests: prompts, lengths, seeds, temperatures and stop texts drawn by ``--seed``; half of
them stream, and a share is abandoned on the way. The set is sent with 16 requests open at a time, then with one, and
what was not abandoned is decoded here, prompt by prompt, by ``mdm.decode``: the server's answers must be these.
Needs httpx and the model's packages; ``--url`` asks a server that runs already with the same model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
import mdm
from live_server import LiveServer

MIXED = ("confidence", "entropy", "fastdllm-threshold", "info-gain")
BLOCK = 8
"""Tokens of a block, so that an answer comes in several chunks."""


@dataclass(frozen=True)
class Ask:
    """A request of the load, and when it is abandoned."""

    prompt: str
    options: dict[str, Any]
    """What the server and ``mdm.decode`` are both told, in the words of ``mdm.decode``."""
    stream: bool
    patience: int | None
    """After so many chunks a stream is abandoned, or a plain request after so many hundredths of a second; None: it
    is waited for."""

    @property
    def body(self) -> dict[str, Any]:
        body = {"prompt": self.prompt, "stream": self.stream} | self.options
        body["max_tokens"] = body.pop("gen_length")
        return body | ({"stream_options": {"include_usage": True}} if self.stream else {})


@dataclass
class Answer:
    """What came of one; without a text where it was abandoned or refused."""

    seconds: float = 0.0
    text: str | None = None
    tokens: int = 0
    abandoned: bool = False
    fault: str = ""


@dataclass
class Row:
    """A line of the table."""

    sampler: str
    how: str
    answers: int
    abandoned: int
    lost: int
    mixed_up: int
    seconds: float
    requests_per_second: float
    tokens_per_second: float
    p50: float
    p95: float
    cpu_seconds: float | None = None
    """Of the server, where this is its parent."""
    times_one_at_a_time: float | None = None


def asks(count: int, sampler: str, draw: random.Random, cancel: float, longest: Sequence[int]) -> list[Ask]:
    """A set of requests by ``sampler``, or by one of ``MIXED`` each; ``longest``: tokens of prompts and of answers."""
    made = []
    for _ in range(count):
        prompt = "".join(draw.choices("01234", k=draw.randint(4, longest[0]))) + ":"
        options: dict[str, Any] = {
            "gen_length": draw.randint(4, longest[1]),
            "seed": draw.randrange(2**31),
            "temperature": draw.choice((0.0, 0.0, 0.7, 1.0)),
            "sampler": draw.choice(MIXED) if sampler == "mixed" else sampler,
            "block_length": BLOCK,
        }
        if options["temperature"] and draw.random() < 0.3:
            options["top_p"] = 0.9
        if draw.random() < 0.2:
            options["stop"] = [draw.choice(("12", "4:", "00"))]
        stream = draw.random() < 0.5
        patience = draw.randint(1, 3) if draw.random() < cancel else None
        made.append(Ask(prompt, options, stream, patience))
    return made


async def answer(client: httpx.AsyncClient, ask: Ask) -> Answer:
    """Send one request; how it went."""
    begin, got = time.perf_counter(), Answer()
    try:
        if ask.stream:
            await _streamed(client, ask, got)
        else:
            patience = None if ask.patience is None else ask.patience / 100
            async with asyncio.timeout(patience):
                response = await client.post("/v1/completions", json=ask.body)
            _check(response, response.text)
            whole = response.json()
            got.text, got.tokens = whole["choices"][0]["text"], whole["usage"]["completion_tokens"]
    except TimeoutError:
        got.abandoned = True
    except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
        got.fault = f"{type(error).__name__}: {error}"
    got.seconds = time.perf_counter() - begin
    return got


async def _streamed(client: httpx.AsyncClient, ask: Ask, got: Answer) -> None:
    texts, chunks, reason, usage = [], 0, None, None
    async with client.stream("POST", "/v1/completions", json=ask.body) as response:
        if response.status_code != 200:
            _check(response, (await response.aread()).decode())
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                break
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                raise ValueError(line)
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                texts.append(choice["text"])
                reason = choice["finish_reason"] or reason
                chunks += bool(choice["text"])
            if ask.patience is not None and chunks >= ask.patience and reason is None:
                got.abandoned = True
                return
        else:
            raise ValueError(f"a stream ended without [DONE] after {texts}")
    if reason not in ("stop", "length") or usage is None:
        raise ValueError(f"a stream ended with the reason {reason} and the usage {usage}")
    got.text, got.tokens = "".join(texts), usage["completion_tokens"]


def _check(response: httpx.Response, text: str) -> None:
    if response.status_code != 200:
        raise ValueError(f"{response.status_code}: {text}")


async def load(url: str, key: str | None, todo: Sequence[Ask], concurrency: int) -> tuple[list[Answer], float]:
    """All of ``todo``, so many at a time: their answers in order, and the seconds that they took together."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    got: list[Answer] = [Answer()] * len(todo)
    numbers = iter(range(len(todo)))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=600, limits=limits) as client:

        async def work() -> None:
            for number in numbers:
                got[number] = await answer(client, todo[number])
                if sys.stderr.isatty():
                    print(f"\r{number + 1}/{len(todo)} ", end="", file=sys.stderr)

        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrency)))
        return got, time.perf_counter() - begin


def decoded(model: Any, todo: Sequence[Ask], wanted: Sequence[bool]) -> tuple[list[Answer], float]:
    """What ``mdm.decode`` gives for each that is wanted, alone."""
    got = []
    begin = time.perf_counter()
    for ask, want in zip(todo, wanted, strict=True):
        start, one = time.perf_counter(), Answer(abandoned=not want)
        if want:
            [result] = mdm.decode(model, [ask.prompt], trace=False, **ask.options)
            one.text, one.seconds = result.text, time.perf_counter() - start
            one.tokens = getattr(result, "completion_tokens", len(result.tokens))
        got.append(one)
    return got, time.perf_counter() - begin


def row(sampler: str, how: str, got: Sequence[Answer], expected: Sequence[Answer], seconds: float) -> Row:
    """A line of the table; says what is wrong on stderr."""
    done = [one for one in got if one.text is not None]
    cuts = quantiles([one.seconds for one in done], n=20, method="inclusive") if len(done) > 1 else [0.0] * 19
    mixed = 0
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        if one.fault:
            print(f"{sampler}, {how}: request {number} is lost: {one.fault}", file=sys.stderr)
        if one.text is not None and (one.text, one.tokens) != (other.text, other.tokens):
            mixed += 1
            print(f"{sampler}, {how}: request {number} got {one}, mdm.decode gives {other}", file=sys.stderr)
    return Row(
        sampler, how, len(done), sum(one.abandoned for one in got), sum(bool(one.fault) for one in got), mixed, seconds,
        len(done) / seconds, sum(one.tokens for one in done) / seconds, cuts[9], cuts[18],
    )  # fmt: skip


def measure(
    url: str, key: str | None, model: Any, sampler: str, args: argparse.Namespace, server: LiveServer | None
) -> list[Row]:  # fmt: skip
    """The lines of one sampler."""
    todo = asks(args.requests, sampler, random.Random(f"{sampler}:{args.seed}"), args.cancel, args.longest)
    asyncio.run(load(url, key, todo[: args.concurrency], args.concurrency))  # whatever is slow the first time
    used = [server.cpu_seconds() if server else 0.0]
    many, many_seconds = asyncio.run(load(url, key, todo, args.concurrency))
    used.append(server.cpu_seconds() if server else 0.0)
    single, single_seconds = asyncio.run(load(url, key, todo, 1))
    used.append(server.cpu_seconds() if server else 0.0)
    wanted = [one.text is not None or other.text is not None for one, other in zip(many, single, strict=True)]
    expected, decode_seconds = decoded(model, todo, wanted)
    rows = [
        row(sampler, f"{args.concurrency} at a time", many, expected, many_seconds),
        row(sampler, "one at a time", single, expected, single_seconds),
        row(sampler, "`mdm.decode`, one by one", expected, expected, decode_seconds),
    ]
    if server:
        rows[0].cpu_seconds, rows[1].cpu_seconds = used[1] - used[0], used[2] - used[1]
    for one in rows:
        one.times_one_at_a_time = one.tokens_per_second / rows[1].tokens_per_second
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown, as the documentation has it."""
    head = (
        "sampler",
        "requests",
        "answers",
        "abandoned",
        "lost",
        "mixed up",
        "tokens/s",
        "",
        "tokens per s of CPU",
        "p50",
        "p95",
    )
    lines = [head, ("---",) * len(head)]
    for r in rows:
        factor = f"{r.times_one_at_a_time:.2f} ×"
        counts = (str(n) for n in (r.answers, r.abandoned, r.lost, r.mixed_up))
        per_cpu = f"{r.tokens_per_second * r.seconds / r.cpu_seconds:,.0f}" if r.cpu_seconds else ""
        lines.append((r.sampler, r.how, *counts, f"{r.tokens_per_second:,.0f}", factor, per_cpu,
                      f"{r.p50:.2f} s", f"{r.p95:.2f} s"))  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that runs already, else one is started")
    parser.add_argument("--key", help="its key")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--sampler", action="append", help="a name, or mixed; may be repeated (confidence, mixed)")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--cancel", type=float, default=0.1, help="the share that is abandoned")
    parser.add_argument(
        "--longest", type=int, nargs=2, default=(16, 32), metavar=("PROMPT", "ANSWER"), help="in tokens"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("serve", nargs="*", help="further flags of mdm serve, behind --")
    args = parser.parse_args()
    model = mdm.load_model(args.model, device="cpu")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        own = None if args.url else LiveServer(args.model, args.serve, log=Path(folder) / "log", key=args.key)
        with own or nullcontext():
            url = args.url or own.url
            for sampler in args.sampler or ("confidence", "mixed"):
                rows += measure(url, args.key, model, sampler, args, own)
            if own:
                own.settle()
    print(json.dumps([asdict(one) for one in rows], indent=1) if args.json else table(rows))
    return int(any(one.lost or one.mixed_up for one in rows))


if __name__ == "__main__":
    sys.exit(main())
