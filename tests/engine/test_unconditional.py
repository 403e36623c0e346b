"""Guidance by a second prompt: what it compares with, alone and beside other rows, and what is refused."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.errors import MdmError
from mdm.protocols import Prompt
from mdm_testing.probe import essence, prompts
from mdm_testing.toy import MASK, toy_model

SHAPE = {"gen_length": 8, "block_length": 4, "guidance": 1.5}
LONG, SHORT, OTHER, LAST = prompts(avoid=[MASK])
SAMPLERS = ("confidence", "info-gain", "random", "lookum", "beam", "maskgit")


def decode(model, given, second, sampler="confidence", **settings):
    return mdm.decode(model, given, sampler, unconditional=second, **SHAPE | settings)


def by_hand(model, prompt, second, guidance=1.5):
    """Decoding one token a step, the surest first, from two plain forwards; the two prompts end together."""
    canvas, other = [*prompt, *[MASK] * 4], [*second, *[MASK] * 4]
    order = []
    for _ in range(4):
        masks = [p for p in range(len(prompt), len(canvas)) if canvas[p] == MASK]
        conditional, unconditional = (
            model.score_logits(torch.tensor([row]))[0, -4:].double() for row in (canvas, other)
        )  # fmt: skip
        logits = unconditional + (guidance + 1) * (conditional - unconditional)
        shares = logits.softmax(-1)
        shares[:, MASK] = -1.0  # it has its share, and is never written
        sure, tokens = shares.max(-1)
        best = max(masks, key=lambda p: float(sure[p - len(prompt)]))
        token = int(tokens[best - len(prompt)])
        canvas[best] = other[best - len(canvas)] = token
        order.append(([best], [token]))
    return order


@pytest.mark.parametrize(
    "second", [LONG[:2], LONG[3:], [], SHORT[: len(LONG)]], ids=["other", "end", "none", "as-long"]
)
def test_it_is_two_plain_forwards(second):
    model = toy_model()
    [result] = decode(model, [LONG], [second], gen_length=4)
    assert [(line["positions"], line["tokens"]) for line in result.trace] == by_hand(model, LONG, second)
    assert result.forwards == 4 and result.rows == 8


def test_the_prompt_masked_is_what_guidance_compares_with_by_default():
    model = toy_model()
    [default] = decode(model, [LONG], None)
    [same] = decode(model, [LONG], [[MASK] * len(LONG)])
    [other] = decode(model, [LONG], [[MASK] * (len(LONG) - 2)])
    assert essence(default) == essence(same) != essence(other)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_row_does_not_see_its_neighbours(sampler, cache):
    model = toy_model()
    given = [LONG, SHORT, OTHER, LAST]
    second = [LONG[:3], SHORT, [], LAST[1:4]]
    settings = {"cache": cache, "temperature": 0.7, "tokens_per_step": 2}
    together = decode(model, given, second, sampler, **settings)
    for row, (prompt, blind) in enumerate(zip(given, second, strict=True)):
        [alone] = decode(model, [prompt], [blind], sampler, row_ids=[row], **settings)
        assert essence(alone) == essence(together[row])
        assert alone.cumulative_entropy == pytest.approx(together[row].cumulative_entropy, abs=1e-4)
    few = decode(model, given, second, sampler, batch_size=2, max_rows=3, **settings)
    assert [essence(row) for row in few] == [essence(row) for row in together]


@pytest.mark.parametrize("attention", ["full", "block-causal"])
def test_a_cache_that_stores_all_anew_changes_nothing(attention):
    model = toy_model(attention)
    cache = {"cache": "dual", "cache_options": {"refresh": 1}} if attention == "full" else {"cache": "block"}
    given, second = [LONG, SHORT], [LONG[:3], SHORT[1:5]]
    sampler = "confidence" if attention == "full" else "info-gain"  # a lookahead runs over what is stored
    kept = decode(model, given, second, sampler, **cache)
    anew = decode(model, given, second, sampler, cache="none")
    assert [essence(row) for row in kept] == [essence(row) for row in anew]


def test_an_infill_is_guided_by_a_second_prompt():
    model = toy_model()
    prompt = [*LONG[:3], MASK, MASK, LONG[3], MASK]
    [result] = decode(model, [prompt], [[MASK, MASK, LONG[3], MASK]], gen_length=0)
    [free] = mdm.decode(model, [prompt], "confidence", gen_length=0, block_length=4)
    assert all(token != MASK for token in result.tokens) and result.tokens != free.tokens
    with pytest.raises(
        MdmError, match=r"an infill has none to mask: name the prompt to compare with \(unconditional\)"
    ):
        mdm.decode(model, [prompt], "confidence", **SHAPE | {"gen_length": 0})


def test_one_for_all_or_one_each_as_text_ids_or_chat():
    model = toy_model()
    given = ["a prompt", "a longer prompt"]
    [first, second] = decode(model, given, "x")
    assert [essence(row) for row in decode(model, given, model.encode("x"))] == [essence(first), essence(second)]
    assert [essence(row) for row in decode(model, given, ["x", "x"])] == [essence(first), essence(second)]
    [masked, other] = decode(model, given, [None, "y"])
    assert essence(masked) == essence(decode(model, given[:1], None)[0]) and essence(other) != essence(second)
    chat = [{"role": "user", "content": "a"}]
    assert len(decode(model, [[{"role": "user", "content": "abc"}]], chat)) == 1


@pytest.mark.parametrize(
    ("second", "settings", "said"),
    [
        ("x", {"guidance": 0.0}, "unconditional changes nothing without guidance: set guidance too"),
        (["x"] * 3, {}, "unconditional has 3 prompts for 2: give one, or one each"),
        ("x" * 40, {}, "prompt 0: the unconditional prompt has 40 tokens and the prompt 2: it cannot be longer"),
        ([[5, 10**6], [5]], {}, "prompt 0: token id 1000000 is outside the vocabulary"),
        (3.5, {}, "unconditional prompt 0 is 3.5: it should be a text"),
        ([5, 2.5], {}, "unconditional prompt 0 is 5: it should be a text"),
        (Prompt("x", kind="image"), {}, "draws no pictures"),
    ],
)
def test_second_prompts_that_are_refused(second, settings, said):
    with pytest.raises(MdmError) as caught:
        decode(toy_model(), ["hi", "hello"], second, **settings)
    assert said in str(caught.value)


def test_a_shifted_model_needs_a_token_before_the_first_mask():
    model = toy_model(shift=True)
    with pytest.raises(MdmError, match="needs at least one token before its first mask"):
        decode(model, [[97, 98, MASK, 99]], [[MASK, 109]], gen_length=0)
    with pytest.raises(MdmError, match="needs at least one token before its first mask"):
        decode(model, [[97, 98]], [[]])


def test_a_mask_that_the_second_prompt_lacks_is_named():
    for second, place in (([5, 6], 1), ([MASK, 6, 7, 8], 1)):
        with pytest.raises(MdmError, match=f"has no mask where the prompt has one at position {place}"):
            decode(toy_model(), [[4, MASK, 7, 8]], [second], gen_length=0)
