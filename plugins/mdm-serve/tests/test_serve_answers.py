"""What the real OpenAI client gets is what ``mdm.decode`` gives, alone and among others."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mdm
import openai
import pytest
from mdm.protocols.task import Message, Prompt

POLICY: dict[str, Any] = {"sampler": "confidence", "cache": "none"}
PROMPTS = ["2+3=", "12*3+4=", "(1,2,3)", "a sum of 3 numbers: 17+4+", "7"]


@pytest.fixture(scope="module")
def client(served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def decoded(model, prompt, n: int = 1, **settings) -> list[mdm.Result]:
    suffix = settings.pop("suffix", None)
    if suffix is not None:
        settings["suffix"] = model.encode(suffix, None)
    return mdm.decode(model, [prompt] * n, **(POLICY | settings), trace="full")


def texts(answer) -> list[str]:
    return [getattr(choice, "text", None) or choice.message.content for choice in answer.choices]


def joined(stream) -> tuple[list[str], list[str | None], list[Any]]:
    """Texts and ends of the choices of a stream, and its chunks."""
    said: dict[int, str] = {}
    ends: dict[int, str | None] = {}
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            text = choice.text if hasattr(choice, "text") else choice.delta.content
            said[choice.index] = said.get(choice.index, "") + (text or "")
            assert choice.index not in ends, "a chunk behind a choice's last"
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    return [said[i] for i in sorted(said)], [ends.get(i) for i in sorted(said)], chunks


@pytest.mark.parametrize("stream", [False, True])
def test_completions_are_what_decode_gives(client, model, stream):
    settings = {"temperature": 0.8, "seed": 7}
    expected = decoded(model, "12*3+4=", 3, gen_length=24, **settings)
    asked = {"model": "tiny", "prompt": "12*3+4=", "n": 3, "max_tokens": 24, **settings}
    if not stream:
        answer = client.completions.create(**asked)
        assert texts(answer) == [result.text for result in expected]
        assert answer.usage.prompt_tokens == 7
        written = answer.usage.completion_tokens
        costs = answer.mdm
    else:
        said, ends, chunks = joined(
            client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        )
        assert said == [result.text for result in expected] and set(ends) <= {"stop", "length"}
        assert chunks[-1].choices == [] and all(chunk.usage is None for chunk in chunks[:-1])
        written, costs = chunks[-1].usage.completion_tokens, chunks[-1].mdm
    eos = model.spec.eos_ids[0]
    assert written == sum([*result.tokens, eos].index(eos) for result in expected)
    assert costs["sampler"] == "confidence" and costs["cache"] == "none" and costs["steps"] > 0 and costs["seconds"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_what_decode_gives(client, model, stream):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+3="}]
    (expected,) = decoded(model, messages, gen_length=16)
    asked: dict[str, Any] = {"model": "tiny", "messages": messages, "max_completion_tokens": 16}
    if stream:
        (said,), (end,), chunks = joined(client.chat.completions.create(**asked, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
    else:
        answer = client.chat.completions.create(**asked)
        (said,), end = texts(answer), answer.choices[0].finish_reason
    assert said == expected.text and end in ("stop", "length")


def test_parts_of_a_content_and_the_developer(client, model):
    parts = [{"type": "text", "text": "2+3"}, {"type": "text", "text": "="}]
    chat = (Message("system", "sums"), Message("user", ("2+3", "=")))
    (expected,) = decoded(model, Prompt(chat), gen_length=8)
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "developer", "content": "sums"}, {"role": "user", "content": parts}],
        max_tokens=8,
    )
    assert texts(answer) == [expected.text]


@pytest.mark.parametrize("stream", [False, True])
def test_a_gap_is_filled(client, model, stream):
    (expected,) = decoded(model, "2+", suffix="=15", gen_length=4)
    answer = client.completions.create(model="tiny", prompt="2+", suffix="=15", max_tokens=4, stream=stream)
    assert (joined(answer)[0] if stream else texts(answer)) == [expected.text]


def test_masks_of_the_prompt_are_filled(client, model):
    (expected,) = decoded(model, "1+[MASK]=3[MASK]", gen_length=0)
    answer = client.completions.create(model="tiny", prompt="1+[MASK]=3[MASK]", max_tokens=0)
    assert texts(answer) == [expected.text] and answer.usage.completion_tokens == 2


def test_ids_and_lists_of_prompts(client, model):
    ids = [model.encode(prompt) for prompt in PROMPTS]
    expected = [decoded(model, prompt, 2, gen_length=8, temperature=1.0, seed=2) for prompt in ids]
    flat = [result.text for results in expected for result in results]
    settings = {"model": "tiny", "n": 2, "max_tokens": 8, "temperature": 1.0, "seed": 2}
    assert texts(client.completions.create(prompt=ids, **settings)) == flat
    of_texts = client.completions.create(prompt=PROMPTS, **settings)
    assert texts(of_texts) == flat and of_texts.usage.prompt_tokens == sum(map(len, ids))
    assert texts(client.completions.create(prompt=ids[1], **settings)) == flat[2:4]


EXTRAS: list[dict[str, Any]] = [
    {"sampler": "info-gain", "sampler_options": {"candidates": 3}},
    {"steps": 4},
    {"tokens_per_step": 2, "block_length": 8},
    {"temperature": 1.0, "top_p": 0.8, "top_k": 5, "seed": 4},
    {"guidance": 1.5},
    {"guidance": 1.5, "unconditional": "1"},
    {"suppressed_tokens": [3, 4], "eos_penalty": 5.0},
    {"allowed_tokens": [[0, 10]]},
    {"cache": "prefix", "block_length": 8},
    {"stop": "1", "temperature": 1.5},
    {"stop_at_eos": True, "eos_rank": "last"},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: ",".join(extra))
def test_settings_of_a_request(client, model, extra):
    (expected,) = decoded(model, "12*3+4=", gen_length=16, **extra)
    answer = client.completions.create(model="tiny", prompt="12*3+4=", max_tokens=16, extra_body=extra)
    assert texts(answer) == [expected.text]


def test_neutral_values_ask_for_nothing(client, model):
    (expected,) = decoded(model, PROMPTS[0], gen_length=8)
    answer = client.completions.create(
        model="tiny", prompt=PROMPTS[0], max_tokens=8, temperature=0, top_p=0.9, frequency_penalty=0,
        presence_penalty=0.0, best_of=1, echo=False, user="somebody", logit_bias={}, suffix="",
    )  # fmt: skip
    assert texts(answer) == [expected.text]
    client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "1"}], max_tokens=2, tools=[], tool_choice="none",
        top_logprobs=0, response_format={"type": "text"}, parallel_tool_calls=False, store=False,
        metadata={"a": "b"}, logprobs=False,
    )  # fmt: skip


def test_alone_and_among_fifteen_others(client, model):
    draw = random.Random(5)
    asked = []
    for number in range(16):
        settings: dict[str, Any] = {"temperature": draw.choice([0, 0.7, 1.2]), "seed": draw.randrange(100)}
        if number % 4 == 1:
            settings |= {"sampler": "info-gain", "sampler_options": {"candidates": 3}}
        if number % 4 == 2:
            settings |= {"steps": draw.choice([2, 5])}
        if number % 8 == 3:
            settings |= {"block_length": 8, "cache": "prefix"}
        asked.append((draw.choice(PROMPTS) * draw.randint(1, 3), draw.randint(4, 24), settings))

    def ask(request) -> str:
        prompt, length, settings = request
        extra = {name: value for name, value in settings.items() if name not in ("temperature", "seed")}
        answer = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=length, temperature=settings["temperature"], seed=settings["seed"],
            stream=length % 2 == 0, extra_body=extra,
        )  # fmt: skip
        return (joined(answer)[0] if length % 2 == 0 else texts(answer))[0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, asked))
    expected = [decoded(model, prompt, gen_length=length, **settings)[0].text for prompt, length, settings in asked]
    assert found == expected


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_the_chosen_tokens(client, model, stream):
    (expected,) = decoded(model, "12*3", gen_length=8)
    eos = model.spec.eos_ids[0]
    tokens = expected.tokens[: [*expected.tokens, eos].index(eos)]
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "stream": stream}
    answer = client.completions.create(prompt="12*3", logprobs=0, **asked)
    found = (list(answer)[-1] if stream else answer).choices[0].logprobs
    assert found.tokens == model.token_texts(tokens)
    assert found.token_logprobs == pytest.approx(expected.logprobs[: len(tokens)], abs=1e-4)
    assert found.text_offset == [sum(map(len, found.tokens[:i])) for i in range(len(tokens))]
    answer = client.chat.completions.create(messages=[{"role": "user", "content": "2+3="}], logprobs=True, **asked)
    content = (list(answer)[-1] if stream else answer).choices[0].logprobs.content
    assert content and all(item.logprob <= 0 and item.top_logprobs == [] for item in content)


def test_a_stream_comes_block_by_block(client, model):
    """What is given out is never taken back, and a stop text is found across blocks."""
    extra: dict[str, Any] = {"block_length": 4}
    settings: dict[str, Any] = {"temperature": 1.2, "seed": 11}
    whole = decoded(model, PROMPTS[1], 6, gen_length=32, **settings, **extra)
    settings["stop"] = [whole[0].text[7:9]]  # half of it in either block
    expected = decoded(model, PROMPTS[1], 6, gen_length=32, **settings, **extra)
    said, ends, chunks = joined(
        client.completions.create(
            model="tiny", prompt=PROMPTS[1], n=6, max_tokens=32, stream=True, **settings, extra_body=extra
        )
    )
    assert said == [result.text for result in expected] and ends[0] == "stop"
    assert len(said[0]) <= 7 and len(chunks) > 3 * 6, "a chunk a block"


@pytest.mark.parametrize("full", [True, "full"])
def test_the_canvas_of_every_step(served, client, model, full):
    (expected,) = decoded(model, "2+", suffix="=5", gen_length=4)
    body = {"prompt": "2+", "suffix": "=5", "max_tokens": 4, "mdm_trace": full}
    status, answer, _ = served.ask("/v1/completions", body)
    assert status == 200
    (shown,) = answer["mdm"]["trace"]
    assert shown["prompt_tokens"] == 2 and shown["texts"] == ["2", "+", *[None] * 4, "=", "5"]
    canvas = list(shown["texts"])
    for line in shown["lines"]:
        assert ("confidence" in line) is (full == "full")
        for at, text in zip(line["positions"], line["texts"], strict=True):
            canvas[at] = text
    assert canvas == model.token_texts(expected.sequence)

    _, stream, _ = served.ask("/v1/completions", body | {"stream": True, "model": "tiny", "n": 2})
    events = [
        dict(part.split(": ", 1) for part in event.split("\n")) for event in stream.decode().strip().split("\n\n")
    ]
    assert [event.get("event") for event in events[:2]] == ["canvas", "canvas"] and events[-1]["data"] == "[DONE]"
    drafts = [json.loads(event["data"]) for event in events if event.get("event") == "draft"]
    lines = [line for draft in drafts if draft["choice"] == 0 for line in draft["lines"]]
    order = [[(line["positions"], line["texts"], line["kind"]) for line in trace] for trace in (lines, shown["lines"])]
    assert order[0] == order[1]

    # OpenAI's own client takes named events for chunks, which are without choices then.
    said, _, _ = joined(
        client.completions.create(
            model="tiny", prompt="2+", suffix="=5", max_tokens=4, stream=True, extra_body={"mdm_trace": full}
        )
    )
    assert said == [expected.text]


def test_models_health_metrics_and_the_page(served, client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "mdm"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")
    assert served.ask("/health")[:2] == (200, {"status": "ok"})
    status, text, _ = served.ask("/metrics")
    names = [
        "requests_total",
        "request_seconds",
        "rows_waiting",
        "rows_running",
        "row_tokens",
        "forwards",
        "committed_tokens",
    ]
    assert status == 200 and all(f"mdm_{name}".encode() in text for name in [*names, "block_steps"])
    assert served.ask("/")[0] == 200
    about = served.ask("/mdm/describe")[1]
    assert (
        about["model"] == "tiny"
        and about["defaults"]["sampler"] == "confidence"
        and about["defaults"]["max_tokens"] == 64
    )
