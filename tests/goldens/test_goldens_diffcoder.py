"""Stable-DiffCoder against the published code on the same tiny weights.

Where ours differs, by the names of the goldens' README: steps are those of all blocks together (S3); a thresholded
block goes on until no mask is left (S4); what lies behind an end token is filled at once, not when its block is
complete (S5). There is no prefill, and a block's storing call is the first one of the next: as many forwards as steps.
"""

from __future__ import annotations

from functools import partial

import mdm
import pytest
from goldens import ABSENT, cases, committed, folder, forwards, steps

FAMILY = "models2026/stable_diffcoder"


@pytest.fixture(scope="module")
def model():
    if not folder(FAMILY).is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder(FAMILY) / "checkpoint", dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["case0", "case1", "case2"])
@pytest.mark.parametrize(("mask", "block_length"), [("bc4", 4), ("bc8", 8)])
def test_forward(model, name, mask, block_length):
    forwards(partial(model.score_logits, block_length=block_length), FAMILY, name, mask)


def decoded(model, case, cache):
    """A case as it was published: the steps of a block are the even split of its masks, also of a short last one."""
    params, prompt = case["params"], case["prompt"][0]
    length, size, threshold = params["gen_length"], params["block_length"], params["threshold"]
    count = -(-(len(prompt) + length) // size) - len(prompt) // size
    of_block = params["steps"] // (length // size)
    sampler, options = ("confidence", {}) if threshold is None else ("fastdllm-threshold", {"threshold": threshold})
    ends = {"eos_token_id": params["eos_id"], "stop_at_eos": True} if "eos_id" in params else {}
    [result] = mdm.decode(
        model, [prompt], sampler, options, cache, gen_length=length, block_length=size, steps=of_block * count, **ends
    )
    return result


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", cases(FAMILY, "traces"))
def test_trace(model, case, cache):
    result = decoded(model, case, cache)
    assert committed(result.trace) == steps(case)
    assert {line["kind"] for line in result.trace} == ({"commit", "fill"} if "eos_id" in case["params"] else {"commit"})
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=1e-4)
    assert result.forwards == len({step["nfe"] for step in case["steps"]})
    # Theirs makes a prefill, and a storing call for each block but one that holds an end token.
    assert result.forwards == case["forwards"] - len(case["forward_calls"]) + ("eos_id" in case["params"])
    assert case["masks_left"] == 0
    [output], length = case["output"], len(case["prompt"][0]) + case["params"]["gen_length"]
    assert result.sequence[: len(output)] == output
    assert len(result.sequence) == length  # S3: the last block ends with the answer
    if "eos_id" in case["params"]:  # S5: theirs is cut at the end of the block that holds an end token
        assert set(result.sequence[len(output) :]) == {case["params"]["eos_id"]}


def test_a_thresholded_block_leaves_no_mask(model):
    """S4: theirs makes at most the planned steps of a block, so that masks may stay behind; ours goes on."""
    [result] = mdm.decode(model, [[7, 8, 9, 10]], "fastdllm-threshold", {"threshold": 1.0}, gen_length=8, steps=2)
    assert result.forwards == 8 and model.spec.mask_id not in result.tokens
