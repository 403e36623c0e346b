"""Prompts become requests: three ways to give one, and what is refused."""

from __future__ import annotations

import mdm
import pytest
from mdm.engine.requests import encode_prompts, open_requests
from mdm.errors import MdmError
from mdm.protocols import Message
from mdm_testing.toy import MASK, toy_model

CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_a_prompt_is_a_text_or_ids_or_a_chat(model):
    ids = model.encode("hello")
    chat = model.encode_chat([Message("user", "hello")])
    encoded = encode_prompts(model, ["hello", ids, CHAT, (Message("user", "hello"),), []])
    forms = [(layout.tokens, layout.form) for layout in encoded]
    assert forms == [(ids, "raw"), (ids, "ids"), (chat, "chat"), (chat, "chat"), ([], "ids")]
    results = mdm.decode(model, ["hello", ids, CHAT], "confidence", gen_length=2, row_ids=[0, 0, 0])
    assert [result.prompt_style for result in results] == ["raw", "ids", "chat"]
    assert results[0].tokens == results[1].tokens and results[2].sequence[:-2] == chat


def test_a_chat_may_end_with_the_beginning_of_the_answer(model):
    asked = model.encode_chat([Message("user", "hello")])
    begun = [*CHAT, {"role": "assistant", "content": "It is [MASK]"}]
    [layout] = encode_prompts(model, [begun])
    assert (layout.tokens, layout.form) == ([*asked, *model.encode("It is [MASK]")], "chat")
    [filled] = mdm.decode(model, [begun], "confidence", gen_length=0)
    assert len(filled.tokens) == 1 and filled.sequence[: len(asked)] == asked
    [longer] = mdm.decode(model, [[*CHAT, {"role": "assistant", "content": "It is"}]], "confidence", gen_length=3)
    assert longer.sequence[:-3] == [*asked, *model.encode("It is")] and len(longer.tokens) == 3


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("hello", "prompts is one text: give a list of prompts"),
        (7, "prompts is 7: give a list of prompts"),
        (CHAT, "prompts is one chat: give a list of prompts, such as [chat]"),
        (["a", CHAT[0]], "prompt 1 is {'role': 'user', 'content': 'hello'}: it should be a text, a list of token ids,"),
        ([[CHAT[0], "hello"]], "prompt 0 holds {'role': 'user', 'content': 'hello'}: it should be a text, a list of"),
        (
            ["a", [{"role": "usr", "content": "b"}]],
            "prompt 1: the role 'usr' is none of system, user, assistant. Did you",
        ),
        (
            [[{"role": "assistant", "content": "a"}]],
            "prompt 0: the assistant's message at the end is the beginning of a",
        ),
        ([[{"role": "user", "content": [{"type": "text", "text": "a"}]}]], "prompt 0: a chat message is"),
        ([3, 4], "prompt 0 is 3: it should be a text"),
        (["a", ["b"]], "prompt 1 holds 'b': it should be a text, a list of token ids, a list of"),
        ([[1.5]], "prompt 0 holds 1.5: it should be"),
        ([[{"role": "user", "text": "hello"}]], 'prompt 0: a chat message is {"role": …, "content": …}'),
        ([[{"role": "user", "content": 3}]], "prompt 0: a chat message is"),
        ([[1, 10**6]], "prompt 0: token id 1000000 is outside the vocabulary"),
    ],
)
def test_what_is_no_prompt(model, prompts, said):
    with pytest.raises(MdmError) as caught:
        mdm.decode(model, prompts, "confidence", gen_length=2)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"gen_length": [1, 2, 3]}, "gen_length has 3 numbers for 2 prompts: give one, or one each"),
        ({"row_ids": [1]}, "row_ids has 1 numbers for 2 prompts: give one each"),
        ({"row_ids": [1, 2**63]}, "row_ids: 9223372036854775808 does not fit into 64 bits"),
        ({"row_ids": ["a", "b"]}, "row_ids should be integers, one a prompt"),
        ({"row_ids": 5}, "row_ids should be integers, one a prompt"),
        ({"gen_length": 0}, "prompt 0: gen_length is 0 and the prompt holds no mask: there is nothing to decode"),
    ],
)
def test_lists_that_do_not_fit_the_prompts(model, call, said):
    with pytest.raises(MdmError) as caught:
        mdm.decode(model, ["hi", "ho"], "confidence", **{"gen_length": 2, **call})
    assert str(caught.value) == said


def test_each_prompt_has_its_length_and_key(model):
    encoded = encode_prompts(model, [[5], [6, MASK]])
    requests = open_requests(model.spec, encoded, [3, 0], [-(2**63), 9], (8,), guidance=False)
    assert [(r.index, r.tokens, r.gen_length, r.row_id, r.suffix) for r in requests] == [
        (0, [5], 3, -(2**63), (8,)),
        (1, [6, MASK], 0, 9, (8,)),
    ]
    with pytest.raises(MdmError, match="prompt 1: guidance compares with a masked prompt"):
        open_requests(model.spec, encoded, [3, 3], None, None, guidance=True)
