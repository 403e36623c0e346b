"""SDAR and TraDo against the published code on the same tiny weights."""

from __future__ import annotations

from functools import partial

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, folder, forwards, steps, tensors
from mdm.models.kv_store import KVStore


@pytest.fixture(scope="module")
def model():
    if not folder("sdar").is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder("sdar") / "checkpoint", dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["case0", "case1"])
@pytest.mark.parametrize(("mask", "block_length"), [("bc4", 4), ("bc8", 8), ("full", 64)])
def test_forward(model, name, mask, block_length):
    forwards(partial(model.score_logits, block_length=block_length), "sdar", name, f"{mask}.logits")


@pytest.mark.parametrize("size", [4, 8])
def test_cached_forward(model, size):
    """The prompt's whole blocks are kept first, then every block: two reading calls and a keeping one."""
    golden = tensors("sdar", "cache_forward")
    total = golden[f"bl{size}.final_ids"].shape[1]
    store = KVStore(model, 1, total)

    def run(call, start, stop, *, keep):
        at = torch.arange(start, stop)[None]
        with torch.inference_mode():
            logits = model.head(
                model.hidden(
                    golden[f"bl{size}.{call}.input_ids"],
                    at,
                    cache=store.window([0], at, block_length=size, write=torch.ones_like(at).bool() if keep else None),
                )
            )
        torch.testing.assert_close(logits, golden[f"bl{size}.{call}.logits"], atol=1e-4, rtol=0)

    run("prefill", 0, 16, keep=True)
    for start in range(16, total, size):
        for n in range(3):
            run(f"block{start // size}.call{n}", start, start + size, keep=n == 2)
    final = model.score_logits(golden[f"bl{size}.final_ids"], block_length=size)
    torch.testing.assert_close(final, golden[f"bl{size}.final_full_logits"], atol=1e-4, rtol=0)


# Fixed schedules whose steps divide the block, which the plain samplers express; the others count their tokens from the
# block's size where ours count from its masks, or commit by a threshold.
STATIC = [
    c
    for c in cases("sdar", "traces")
    if c.values[0] is None
    or (
        ("dynamic" not in c.id and "overwrites" not in c.id)
        and c.values[0]["params"]["block_length"] % c.values[0]["params"]["denoising_steps"] == 0
    )
]


@pytest.mark.parametrize("cache", ["none", "block"])
@pytest.mark.parametrize("case", STATIC)
def test_trace(model, case, cache):
    params = case["params"]
    size, prompt = params["block_length"], case["prompt"][0]
    sampler = "left-to-right" if params["remasking_strategy"] == "sequential" else "confidence"
    [result] = mdm.decode(
        model, [prompt], sampler, cache=cache, gen_length=params["gen_length"], block_length=size,
        tokens_per_step=size // params["denoising_steps"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    assert len(result.sequence) == case["output_len"]
    assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_blockcausal"], abs=1e-4)
