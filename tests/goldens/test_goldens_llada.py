"""LLaDA against the published code on the same tiny weights."""

from __future__ import annotations

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, facts, folder, forwards, steps, tensors
from mdm.engine.schedule import num_transfer_tokens
from mdm.models.kv_store import KVStore
from mdm.protocols import Scores
from mdm.scoring.statistics import statistics


@pytest.fixture(scope="module")
def model():
    if not folder("llada").is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder("llada") / "checkpoint", dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["case0", "case1"])
def test_forward(model, name):
    forwards(model.score_logits, "llada", name)


def test_forward_of_a_padded_row(model):
    """The golden pads on the left and keeps RoPE's positions; what counts is that padding is not attended to."""
    golden = tensors("llada", "forward")
    alone = golden["padded.input_ids"][1:, 5:]
    torch.testing.assert_close(model.score_logits(alone)[0], golden["padded.logits"][1, 5:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["prefix", "dual"])
@pytest.mark.parametrize("block", [0, 1])
def test_cached_forward(model, mode, block):
    golden = tensors("llada", "cache_forward")
    start, stop, total = 12 + 8 * block, 20 + 8 * block, 36
    at = torch.arange(start, total if mode == "prefix" else stop)[None]
    store = KVStore(model, 1, total)
    everywhere = torch.arange(total)[None]
    with torch.inference_mode():
        full = model.hidden(golden[f"{mode}.b{block}.full.input_ids"], everywhere, cache=store.full([0], write=True))
        torch.testing.assert_close(model.head(full), golden[f"{mode}.b{block}.full.logits"], atol=1e-4, rtol=0)
        for step in ("step1", "step2"):
            hidden = model.hidden(golden[f"{mode}.b{block}.{step}.input_ids"], at, cache=store.window([0], at))
            torch.testing.assert_close(model.head(hidden), golden[f"{mode}.b{block}.{step}.logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["prefix", "dual"])
def test_lookahead_on_one_kept_row(model, mode):
    golden = tensors("llada", "cache_forward")
    at = torch.arange(12, 36 if mode == "prefix" else 20).expand(3, -1)
    store = KVStore(model, 1, 36)
    with torch.inference_mode():
        model.hidden(golden["lookahead.base_ids"], torch.arange(36)[None], cache=store.full([0], write=True))
        kept = [layer.keys.clone() for layer in store.layers]
        hidden = model.hidden(golden["lookahead.cand_ids"].gather(1, at), at, cache=store.window([0, 0, 0], at))
    torch.testing.assert_close(model.head(hidden), golden[f"lookahead.{mode}_logits"], atol=1e-4, rtol=0)
    assert all(torch.equal(layer.keys, before) for layer, before in zip(store.layers, kept, strict=True))


@pytest.mark.parametrize("case", cases("llada", "traces_original"))
def test_original_trace(model, case):
    params = case["params"]
    batched = isinstance(case["prompt"][0], list) and len(case["prompt"]) > 1
    prompts = case["prompt"] if isinstance(case["prompt"][0], list) else [case["prompt"]]
    pads = [row.count(0) for row in params.get("attention_mask", [])] or [0] * len(prompts)
    results = mdm.decode(
        model, [p[n:] for p, n in zip(prompts, pads, strict=True)], sampler="confidence",
        gen_length=params["gen_length"], steps=params["steps"], block_length=params["block_length"],
    )  # fmt: skip
    for row, (result, n) in enumerate(zip(results, pads, strict=True)):
        golden = steps(case, row if batched else None)
        assert committed(result.trace) == [([p - n for p in at], tokens) for at, tokens in golden]
        assert result.forwards == case["forwards"]
    if not batched:
        assert results[0].cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)


@pytest.mark.parametrize("case", cases("llada", "traces_infogain_exhaustive"))
def test_exhaustive_trace(model, case):
    options = {}
    if case["eos_pad_penalty_4"]:
        options = {
            "eos_penalty": 4.0, "pad_penalty": 4.0, "eos_token_id": case["eos_id"], "pad_token_id": case["pad_id"],
            "stop_at_eos": "eosfill" in case["name"],
        }  # fmt: skip
    prompt = case["prompt"][0] if isinstance(case["prompt"][0], list) else case["prompt"]
    [result] = mdm.decode(
        model, [prompt], sampler=case["variant"].replace("_", "-"), sampler_options={"candidates": "all"},
        gen_length=case["gen_length"], block_length=case["block_size"], **options,
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    if not options:
        assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)


FIXED = [
    c for c in cases("llada", "traces_fastdllm") if c.values[0] is None or ("thr" not in c.id and "factor" not in c.id)
]


@pytest.mark.parametrize("case", FIXED)
def test_cached_trace(model, case):
    params = case["params"]
    cache = "prefix" if "prefix" in case["name"] else "dual" if "dual" in case["name"] else "none"
    prompt = case["prompt"][0] if isinstance(case["prompt"][0], list) else case["prompt"]
    [result] = mdm.decode(
        model, [prompt], sampler="confidence", cache=cache, steps=params["steps"],
        gen_length=params.get("gen_length") or params["max_new_tokens"],
        block_length=params.get("block_length") or params["block_size"],
    )  # fmt: skip
    assert committed(result.trace) == steps(case)


PURE = facts("llada", "pure_functions") or {"score": [], "schedules": []}


@pytest.mark.parametrize("case", PURE["score"], ids=lambda c: c["name"])
@pytest.mark.parametrize("variant", ["info_gain", "lookum"])
def test_c_h_and_j(case, variant):
    golden, name = tensors("llada", "pure_functions"), case["name"]
    actions, mask = golden[f"{name}.actions"], case["mask_id"]
    now = statistics(golden[f"{name}.logits"][0]).entropy
    cost = now[actions].sum(-1)
    after = golden[f"{name}.next_logits"]
    left = golden[f"{name}.x_batch"] == mask
    entropy = statistics(after.flatten(0, 1)).entropy.view(left.shape)
    zero = torch.zeros_like(entropy)
    numbers = torch.stack([zero, zero, entropy, zero, zero], -1)
    scores = Scores(
        positions=zero.long(), valid=left, token=zero.long(), numbers=numbers,
        unscored=torch.zeros(len(left), dtype=torch.long), vocab_size=1,
    )  # fmt: skip
    ahead = scores.uncertainty()
    value = -ahead if variant == "lookum" else -ahead - cost
    same = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ahead, golden[f"{name}.{variant}.H_next"], **same)
    if variant == "info_gain":
        torch.testing.assert_close(cost, golden[f"{name}.{variant}.C"], **same)
    # The golden's J carries the state's own uncertainty or not, the same for all candidates.
    mine, theirs = value - value[0], golden[f"{name}.{variant}.J"] - golden[f"{name}.{variant}.J"][0]
    torch.testing.assert_close(mine, theirs, **same)


@pytest.mark.parametrize("case", PURE["schedules"], ids=lambda c: f"m{c['masks']}-s{c['steps']}")
def test_schedule(case):
    masks, count = case["masks"], case["steps"]
    assert list(num_transfer_tokens("even", masks, count)) == [k for k in case["llada"] if k]
    assert list(num_transfer_tokens("linear", masks, count)) == case["dllm_linear"]
    assert list(num_transfer_tokens("cosine", masks, count)) == case["dllm_cosine"]
