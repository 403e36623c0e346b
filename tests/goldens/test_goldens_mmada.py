"""MMaDA's text side against the published code on the same tiny weights."""

from __future__ import annotations

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, folder, forwards, steps, tensors


@pytest.fixture(scope="module")
def model():
    if not folder("mmada").is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder("mmada") / "checkpoint", dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["case0", "case1"])
def test_forward(model, name):
    forwards(model.score_logits, "mmada", name)


def test_forward_of_a_padded_row(model):
    """As the generators pad; given as an attention_mask, the published file turns causal, which nobody means."""
    golden = tensors("mmada", "forward")
    for row, real in enumerate(golden["padded.attention_mask"].bool()):
        alone = golden["padded.input_ids"][row : row + 1, real]
        expected = golden["padded.logits_attention_bias"][row, real]
        torch.testing.assert_close(model.score_logits(alone)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cache", ["none", "prefix"])
@pytest.mark.parametrize("case", cases("mmada", "traces_text"))
def test_text_trace(model, case, cache):
    """``mmu_generate_fast`` stops at its end token after a block and leaves masks: a prefix of ours."""
    params = case["params"]
    refreshed = {"cache": cache, "cache_options": {"refresh": 1}} if cache == "prefix" else {}
    [result] = mdm.decode(
        model, case["prompt"], "confidence", gen_length=params["max_new_tokens"], steps=params["steps"],
        block_length=params["block_length"], **refreshed,
    )  # fmt: skip
    golden = steps(case)
    assert committed(result.trace)[: len(golden)] == golden
    assert sum(line["forwards"] for line in result.trace[: len(golden)]) == case["forwards"]
    paid = sum(sum(line["entropy"]) for line in result.trace[: len(golden)])
    assert paid == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)
    assert len(golden) == len(result.trace) or case["masks_left"]
