"""Fast-dLLM v2 against the published code on the same tiny weights.

Where ours differs, by the names of the goldens' README:

* F2: there is no sub-block cache here, so the cases with ``blockcache`` do not bind. Its plan would run a sub-block
  only, and the engine scores all masks of the block, whose positions a plan has to run. It also runs the position
  before each that is run, afresh, where the published cache keeps that one's keys: the numbers would be others.
* F3: an answer is as long as it was asked to be, and its last block is filled up: theirs counts blocks, so an unaligned
  prompt gets fewer tokens, and one token of the next block hangs over. A prompt of exactly one block is read.
* F4: a block's first token is committed alone, from the forward that stores the block before: the kind ``ar`` there is
  a commit here. A prefill and the storing call of the last block are not made.
"""

from __future__ import annotations

import json
from pathlib import Path

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, folder, tensors

FAMILY = "models2026/fast_dllm_v2"
MASK = 250
"""The mask of the tiny checkpoint; the published one is out of its vocabulary."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if not folder(FAMILY).is_dir():
        pytest.skip(ABSENT)
    published = folder(FAMILY) / "checkpoint"
    here = tmp_path_factory.mktemp("fast_dllm_v2")
    for path in published.iterdir():
        (here / path.name).symlink_to(path)
    (here / "config.json").unlink()
    config = json.loads(Path(published / "config.json").read_text())
    (here / "config.json").write_text(json.dumps(config | {"mask_token_id": MASK}))
    return mdm.load_model(here, dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["case0", "case1", "case2"])
@pytest.mark.parametrize("size", [8, 32])
def test_forward(model, name, size):
    """The goldens are raw logits, of which those at i predict position i + 1."""
    golden = tensors(FAMILY, "forward")
    ids, raw = golden[f"{name}.input_ids"], golden[f"{name}.bc{size}"]
    block = torch.arange(ids.shape[1]) // size
    mask = torch.where(block[:, None] >= block, 0.0, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        at = torch.arange(ids.shape[1]).expand(ids.shape)
        own = model.head(model.hidden(ids, at, mask=mask.expand(len(ids), -1, -1, -1)))
    torch.testing.assert_close(own, raw, atol=1e-4, rtol=0)
    ours = model.score_logits(ids, size)
    torch.testing.assert_close(ours[:, 1:], raw[:, :-1], atol=1e-4, rtol=0)


PLAIN = [case for case in cases(FAMILY, "traces") if "blockcache" not in case.id]


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", PLAIN)
def test_trace(model, case, cache):
    params, [prompt], [output] = case["params"], case["prompt"], case["output"]
    size, stops = params["block_size"], params["stop_token"] in output
    end = -(-len(output) // size) * size if stops else len(output) - 1  # F3: one token hangs over
    options = {"threshold": params["threshold"], "sub_block": params["small_block_size"]}
    [result] = mdm.decode(
        model, [prompt], "fastdllm-v2", options, cache, gen_length=end - len(prompt),
        block_length=size, eos_token_id=params["stop_token"], stop_at_eos=True,
    )  # fmt: skip
    records, paid = case["steps"], case["cumulative_entropy_blockcausal"]
    assert {record["kind"] for record in records} == {"decode", "ar"}
    if not stops:
        *records, hanging = records
        assert (hanging["kind"], hanging["positions"]) == ("ar", [end])
        paid -= sum(hanging["entropy"])
    assert committed(result.trace) == [(record["positions"], record["tokens"]) for record in records]
    assert {line["kind"] for line in result.trace} == ({"commit", "fill"} if stops else {"commit"})
    assert result.cumulative_entropy == pytest.approx(paid, abs=1e-4)
    assert result.sequence[: len(output)] == output[:end]
    prefills = len(prompt) > size and len(prompt) % size > 0  # F4: where the prompt ends a block it gives a first token
    assert result.forwards == case["forwards"] - prefills - (not stops)


def test_a_prompt_of_one_block_is_read(model):
    """F3: theirs ignores it."""
    settings = {"gen_length": 8, "block_length": 8}
    one, other = mdm.decode(model, [list(range(8)), list(range(8, 16))], "fastdllm-v2", **settings)
    assert one.tokens != other.tokens
