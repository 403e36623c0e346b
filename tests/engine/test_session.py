"""A session decodes requests as they come, each as it would be decoded alone, and none of them harms another."""

from __future__ import annotations

import math
import random
import time

import mdm
import pytest
import torch
from mdm.api import open_session
from mdm.engine.engine import Engine
from mdm.protocols import BaseSampler, Commit
from pydantic import BaseModel

PROMPTS = ("78,82,55,51:", "82,59:", "0134002130032010", "[MASK]1343412[MASK][MASK]2")


@pytest.fixture(scope="module")
def model():
    return mdm.load_model("tiny", dtype="float32")


def run(session):
    """Step until nothing is left; the updates of each request, in their order."""
    updates = {}
    while session.waiting or session.running:
        for update in session.step():
            updates.setdefault(update.request, []).append(update)
    for update in session.step():
        updates.setdefault(update.request, []).append(update)
    return updates


def last(updates):
    assert [bool(update.finish) for update in updates] == [False] * (len(updates) - 1) + [True]
    return updates[-1]


def requests(seed, count):
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = draw.choice(PROMPTS)
        options = {
            "gen_length": draw.choice([5, 16, 40]), "temperature": draw.choice([0, 0, 0.7, 1.0]),
            "seed": draw.randint(0, 99), "block_length": draw.choice([8, 8, 32]),
            "sampler": draw.choice(["confidence", "info-gain", "entropy"]), "cache": draw.choice(["none", "dual"]),
        }  # fmt: skip
        if draw.random() < 0.25:
            options |= {"temperature": 0.8, "top_p": 0.9}
        if draw.random() < 0.2:
            options["eos_penalty"] = 2.0
        if draw.random() < 0.2 and "MASK" not in prompt:
            options["guidance"] = draw.choice([0.5, 1.0])
        if draw.random() < 0.2:
            options["tokens_per_step"] = 2
        if draw.random() < 0.2:
            options["stop"] = ["3"]
        found.append((prompt, options, draw.randint(0, 3)))
    return found


def test_each_request_is_decoded_as_alone(model):
    session = open_session(model)
    asked = requests(1, 16)
    numbers = [session.submit(prompt, row_id=row, trace="full", **options) for prompt, options, row in asked]
    updates = run(session)
    for number, (prompt, options, row) in zip(numbers, asked, strict=True):
        [alone] = mdm.decode(model, [prompt], row_ids=[row], trace="full", **options)
        result, mine = last(updates[number]).result, updates[number]
        count = len(result.tokens)
        assert result.tokens == alone.tokens[:count], options
        assert result.text == alone.text and "".join(update.text for update in mine) == alone.text
        assert [token for update in mine for token in update.tokens] == result.tokens
        order = [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in alone.trace]
        lines = [line for update in mine for line in update.lines]
        assert lines == result.trace
        assert [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in lines] == order[
            : len(lines)
        ]
        assert mine[-1].finish == ("stop" if alone.completion_tokens < len(alone.tokens) else "length")
        assert result.completion_tokens == alone.completion_tokens and result.prompt_tokens == alone.prompt_tokens
        assert count == len(alone.tokens) or mine[-1].finish == "stop"
    assert (session.waiting, session.running, session.row_tokens, session.engines) == (0, 0, 0, 0)


@pytest.mark.parametrize("stop", [[], ["="], ["7", "12-12"], ["none of it"]])
def test_a_row_ends_with_the_block_that_holds_its_end(model, stop):
    """The end token comes in the fourth block; a stop text may lie across two."""
    prompt, options = "78,82,55,51:", {"gen_length": 64, "block_length": 8, "stop": stop}
    [alone] = mdm.decode(model, [prompt], "confidence", **options)
    session = open_session(model, "confidence")
    session.submit(prompt, **options)
    [updates] = run(session).values()
    end = last(updates)
    assert end.finish == "stop" and "".join(update.text for update in updates) == end.result.text == alone.text
    assert end.result.forwards < alone.forwards and end.result.completion_tokens == alone.completion_tokens
    assert len(end.result.tokens) == 8 * (alone.completion_tokens // 8 + 1)


@pytest.mark.parametrize("sampler", ["remdm", "beam", "joint-threshold"])
def test_what_may_change_is_held_back(model, sampler):
    """A re-masker's one block is the canvas, beams may part, and an editing sampler is done with a block it left."""
    session = open_session(model, sampler, gen_length=24, block_length=8)
    numbers = [session.submit(PROMPTS[row], row_id=row, seed=3) for row in range(3)]
    every = run(session)
    for row, updates in enumerate(every[number] for number in numbers):
        [alone] = mdm.decode(
            model, [PROMPTS[row]], sampler, gen_length=24, block_length=8, row_ids=[row], seed=3
        )  # fmt: skip
        given = [token for update in updates for token in update.tokens]
        assert given == alone.tokens[: len(given)] and updates[-1].result.text == alone.text
        if sampler == "remdm":
            assert not any(update.tokens for update in updates[:-1])


def test_cancelled_and_late_requests_end_and_the_others_go_on(model):
    session = open_session(model, "confidence", gen_length=32, block_length=8, batch_size=2)
    kept, dropped, waiting, late = (
        session.submit("82,59:", row_id=row, timeout=0.0 if row == 3 else None) for row in range(4)
    )
    first = session.step()
    assert [(update.request, update.finish) for update in first if update.finish] == [(late, "timeout")]
    assert session.cancel(dropped) and session.cancel(waiting)
    updates = run(session)
    assert [last(updates[number]).finish for number in (dropped, waiting)] == ["cancelled", "cancelled"]
    [alone] = mdm.decode(model, ["82,59:"], "confidence", gen_length=32, block_length=8)
    assert last(updates[kept]).result.text == alone.text
    assert not session.cancel(kept) and (session.running, session.row_tokens) == (0, 0)


class Options(BaseModel):
    pass


class Picky(BaseSampler):
    """Commits the first mask, and raises where a row has the id 7."""

    Options = Options

    def decide(self, state, scores, memory, draws):
        if (state.row_id == 7).any() and (state.step > 2).any():
            raise RuntimeError("no sevens")
        first = torch.zeros_like(scores.valid)
        first[:, 0] = True
        return Commit(where=first & scores.valid, tokens=scores.token)


def test_a_row_that_makes_a_sampler_raise_ends_alone(model):
    sampler = Picky(Options())
    session = open_session(model, sampler, gen_length=12)
    numbers = [session.submit("82,59:", row_id=row) for row in (5, 7, 9)]
    updates = run(session)
    ends = [last(updates[number]) for number in numbers]
    assert [end.finish for end in ends] == ["length", "error", "length"]
    assert "no sevens" in str(ends[1].error) and not ends[1].out_of_memory
    [alone] = mdm.decode(model, ["82,59:"], sampler, gen_length=12)
    for end, number in zip(ends[::2], numbers[::2], strict=True):
        assert end.result.tokens == alone.tokens
        assert [token for update in updates[number] for token in update.tokens] == alone.tokens


class Nth(Picky):
    """Commits the mask of a number that is no option."""

    def __init__(self, number):
        super().__init__(Options())
        self.number = number

    def decide(self, state, scores, memory, draws):
        where = torch.zeros_like(scores.valid)
        where[:, min(self.number, where.shape[1] - 1)] = True
        where &= scores.valid
        where[~where.any(1), 0] = True
        return Commit(where=where & scores.valid, tokens=scores.token)


def test_objects_of_one_class_do_not_share_an_engine(model):
    session = open_session(model, gen_length=6)
    samplers = [Nth(0), Nth(2)]
    numbers = [session.submit("82,59:", sampler=sampler, trace=True) for sampler in samplers]
    updates = run(session)
    orders = [[line["positions"] for line in last(updates[number]).result.trace] for number in numbers]
    assert orders[0] != orders[1]
    for sampler, order in zip(samplers, orders, strict=True):
        [alone] = mdm.decode(model, ["82,59:"], sampler, gen_length=6)
        assert order == [line["positions"] for line in alone.trace]


def test_a_text_that_cannot_be_read_ends_its_request_alone(model, monkeypatch):
    decode, prompts = model.decode, ("2+2=", "82,59:", "78,82,55,51:")
    first = [mdm.decode(model, [prompt], "confidence", gen_length=3)[0].tokens[0] for prompt in prompts]
    monkeypatch.setattr(model, "decode", lambda ids, *rest: 1 / 0 if ids[:1] == first[:1] else decode(ids, *rest))
    session = open_session(model, "confidence", gen_length=3)
    numbers = [session.submit(prompt) for prompt in prompts]
    updates = run(session)
    ends = [last(updates[number]).finish for number in numbers]
    assert [end == "error" for end in ends] == [token == first[0] for token in first] and "length" in ends
    assert (session.running, session.engines) == (0, 0)


def test_where_memory_runs_out_the_batch_shrinks(model, monkeypatch):
    step, most = Engine.step, []

    def scarce(engine):
        if len(engine.rows) > 2 or any(row.length > 60 for row in engine.rows):
            raise torch.OutOfMemoryError("CUDA out of memory")
        most.append(len(engine.rows))
        return step(engine)

    monkeypatch.setattr(Engine, "step", scarce)
    session = open_session(model, "confidence", block_length=8)
    numbers = [session.submit("82,59:", row_id=row, gen_length=16) for row in range(6)]
    long = session.submit("82,59:", gen_length=80)
    updates = run(session)
    assert {last(updates[number]).finish for number in numbers} <= {"stop", "length"}
    assert last(updates[long]).finish == "error" and last(updates[long]).out_of_memory
    assert max(most) <= 2


def test_requests_begin_in_their_order_and_long_prompts_one_at_a_time(model, monkeypatch):
    monkeypatch.setattr("mdm.engine.session.PREFILL_TOKENS", 30)
    session = open_session(model, "confidence", gen_length=8, batch_size=8)
    for row in range(4):
        session.submit("0134002130032010", row_id=row)
    seen = []
    for _ in range(4):
        session.step()
        seen.append(session.running)
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 2}, "belongs to the whole session"),
        ({"compile": True}, "belongs to the whole session"),
        ({"temprature": 1}, "Did you mean 'temperature'?"),
        ({"sampler": "confidance"}, "confidence"),
        ({"trace": "all"}, 'True, False or "full"'),
        ({"gen_length": 0}, "nothing to decode"),
        ({"gen_length": 10**9}, "too long"),
        ({"gen_length": 2000}, "are decoded at one time"),
        ({"steps": 10**9}, "too many"),
        ({"timeout": "5"}, "a number of seconds"),
        ({"timeout": math.nan}, "a number of seconds"),
        ({"top_p": 0.5, "temperature": 0}, "changes nothing at temperature 0"),
    ],
)
def test_what_is_refused(model, options, said):
    session = open_session(model, row_tokens=1000)
    with pytest.raises(mdm.MdmError, match="(?s).*") as caught:
        session.submit("82,59:", **options)
    assert said in str(caught.value) and session.waiting == 0


def test_a_request_lays_its_options_over_the_sessions(model):
    session = open_session(
        model, "info-gain", {"candidates": 4}, temperature=0.7, top_p=0.9, tokens_per_step=2, gen_length=16
    )
    plain = [
        ({"temperature": 0}, ("info-gain", {"candidates": 4}), {"temperature": 0, "tokens_per_step": 2}),
        ({"steps": 4}, ("info-gain", {"candidates": 4}), {"temperature": 0.7, "top_p": 0.9, "steps": 4}),
        ({"sampler_options": {"candidates": 2}}, ("info-gain", {"candidates": 2}),
         {"temperature": 0.7, "top_p": 0.9, "tokens_per_step": 2}),
        ({"sampler": "info-gain"}, ("info-gain", {"candidates": 4}),
         {"temperature": 0.7, "top_p": 0.9, "tokens_per_step": 2}),
        ({"top_p": None}, ("info-gain", {"candidates": 4}), {"temperature": 0.7, "tokens_per_step": 2}),
        ({"sampler": "confidence"}, ("confidence", None), {"temperature": 0.7, "top_p": 0.9, "tokens_per_step": 2}),
    ]  # fmt: skip
    numbers = [session.submit("82,59:", **options) for options, _, _ in plain]
    updates = run(session)
    for number, (_, policy, settings) in zip(numbers, plain, strict=True):
        [alone] = mdm.decode(model, ["82,59:"], *policy, gen_length=16, **settings)
        assert last(updates[number]).result.text == alone.text


def test_what_is_valid_at_temperature_0_stays(model):
    session = open_session(model, "confidence", score_after="tempered", top_p=0.5, gen_length=8)
    numbers = [session.submit("82,59:"), session.submit("82,59:", temperature=0)]
    updates = run(session)
    assert last(updates[numbers[0]]).result.tokens == last(updates[numbers[1]]).result.tokens


def test_guidance_that_is_switched_off_needs_no_second_prompt(model):
    session = open_session(model, "confidence", guidance=1.0, unconditional="9", gen_length=8)
    number = session.submit("82,59:", guidance=0)
    [alone] = mdm.decode(model, ["82,59:"], "confidence", gen_length=8)
    assert last(run(session)[number]).result.tokens == alone.tokens


def test_defaults_are_refused_when_the_session_opens(model):
    with pytest.raises(mdm.MdmError, match="confidance"):
        open_session(model, "confidance")
    with pytest.raises(mdm.MdmError, match="no option 'sampelr'"):
        open_session(model, sampelr="x")
    for wrong in (0, -1, "x", 1.5, True):
        with pytest.raises(mdm.MdmError, match="row_tokens is"):
            open_session(model, row_tokens=wrong)


def test_steps_and_probabilities_at_commit_are_those_of_the_trace(model):
    [result] = mdm.decode(model, ["82,59:"], "remdm", gen_length=12, temperature=0.9, seed=4, trace="full")
    expected = {}
    for line in result.trace:
        for place, sure in zip(line["positions"], line["confidence"], strict=True):
            expected[place] = (line["step"], math.log(sure))
    at = [expected[result.prompt_tokens + i] for i in range(12)]
    assert result.step_map == [step for step, _ in at] and result.logprobs == [value for _, value in at]
    [plain] = mdm.decode(model, ["82,59:"], gen_length=4)
    assert len(plain.step_map) == 4
    with pytest.raises(mdm.MdmError, match='trace="full"'):
        _ = plain.logprobs


def test_closing_gives_all_up(model):
    session = open_session(model, "confidence", batch_size=1)
    for row in range(3):
        session.submit("82,59:", row_id=row)
    session.step()
    session.close()
    assert (session.waiting, session.running, session.engines, session.step()) == (0, 0, 0, [])


def test_time_that_is_over_ends_a_row_that_is_decoded(model):
    session = open_session(model, "confidence", gen_length=64)
    number = session.submit("82,59:", timeout=0.05)
    session.step()
    time.sleep(0.06)
    assert [(update.request, update.finish) for update in session.step() if update.finish] == [(number, "timeout")]
    assert session.running == 0


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_room_is_given_back_when_a_long_row_has_left(model, cache):
    session = open_session(model, "confidence", cache=cache, block_length=8, tokens_per_step=4)
    long = session.submit("0134002130032010" * 6, gen_length=8)
    short = [session.submit("82,59:", row_id=row, gen_length=40) for row in range(2)]
    sizes = []
    updates = {}
    while session.waiting or session.running:
        for update in session.step():
            updates.setdefault(update.request, []).append(update)
        sizes += [slot.engine.state.tokens.shape[1] for slot in session._slots.values()]
    assert max(sizes) > 100 and sizes[-1] < 50
    for row, number in enumerate(short):
        [alone] = mdm.decode(
            model, ["82,59:"], "confidence", cache=cache, block_length=8, tokens_per_step=4, gen_length=40,
            row_ids=[row],
        )  # fmt: skip
        assert last(updates[number]).result.text == alone.text
    assert last(updates[long]).finish == "length"
