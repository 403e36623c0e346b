"""Dream against the published code on the same tiny weights."""

from __future__ import annotations

from functools import partial

import mdm
import pytest
import torch
from goldens import ABSENT, cases, committed, folder, forwards, steps, tensors
from mdm.models.kv_store import KVStore


@pytest.fixture(scope="module")
def model():
    if not folder("dream").is_dir():
        pytest.skip(ABSENT)
    return mdm.load_model(folder("dream") / "checkpoint", dtype="float32", device="cpu")


def raw(model, tokens):
    """Logits before the shift: row i predicts i + 1, as the published forward gives them."""
    at = torch.arange(tokens.shape[1]).expand_as(tokens)
    with torch.inference_mode():
        return model.head(model.hidden(tokens, at))


@pytest.mark.parametrize("name", ["case0", "case1"])
def test_forward(model, name):
    forwards(partial(raw, model), "dream", name)


@pytest.mark.parametrize("name", ["case0", "case1"])
def test_score_logits_are_shifted(model, name):
    canvas = tensors("dream", "forward")[f"{name}.input_ids"]
    torch.testing.assert_close(model.score_logits(canvas)[:, 1:], raw(model, canvas)[:, :-1])


def test_forward_of_a_padded_row(model):
    golden = tensors("dream", "forward")
    alone = golden["padded.input_ids"][1:, 5:]
    torch.testing.assert_close(raw(model, alone)[0], golden["padded.logits"][1, 5:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["prefix", "dual"])
@pytest.mark.parametrize("block", [0, 1])
def test_cached_forward(model, mode, block):
    golden = tensors("dream", "cache_forward")
    start, stop, total = 12 + 8 * block, 20 + 8 * block, 36
    at = torch.arange(start, total if mode == "prefix" else stop)[None]
    store = KVStore(model, 1, total)
    with torch.inference_mode():
        full = model.hidden(
            golden[f"{mode}.b{block}.full.input_ids"], torch.arange(total)[None], cache=store.full([0], write=True)
        )
        torch.testing.assert_close(model.head(full), golden[f"{mode}.b{block}.full.logits"], atol=1e-4, rtol=0)
        for step in ("step1", "step2"):
            hidden = model.hidden(golden[f"{mode}.b{block}.{step}.input_ids"], at, cache=store.window([0], at))
            torch.testing.assert_close(model.head(hidden), golden[f"{mode}.b{block}.{step}.logits"], atol=1e-4, rtol=0)


SAMPLERS = {"entropy": "entropy", "maskgit_plus": "confidence", "topk_margin": "margin"}
# "origin" commits at random from a stream of uniforms; ours are keyed, so only its distribution could agree.
ORIGINAL = [c for c in cases("dream", "traces_original") if c.values[0] is None or "origin_" not in c.id]


@pytest.mark.parametrize("case", ORIGINAL)
def test_original_trace(model, case):
    params = case["params"]
    pads = [row.count(0) for row in params.get("attention_mask", [])] or [0]
    results = mdm.decode(
        model, [p[n:] for p, n in zip(case["prompt"], pads, strict=True)], sampler=SAMPLERS[params["alg"]],
        schedule="dream", steps=params["steps"], gen_length=params["max_new_tokens"],
        block_length=params["max_new_tokens"],
    )  # fmt: skip
    for row, (result, n) in enumerate(zip(results, pads, strict=True)):
        golden = steps(case, row if len(pads) > 1 else None)
        assert committed(result.trace) == [([p - n for p in at], tokens) for at, tokens in golden]
        assert result.forwards == case["forwards"]
        if len(pads) == 1:
            assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)


# The published lookahead forgets the penalty: its "dllm" case binds because no choice there hangs on it.
EXHAUSTIVE = [c for c in cases("dream", "traces_infogain_exhaustive") if c.values[0] is None or "eosfill" not in c.id]


@pytest.mark.parametrize("case", EXHAUSTIVE)
def test_exhaustive_trace(model, case):
    options = {}
    if case["eos_pad_penalty_4_on_fresh_forwards"]:
        ids = {"eos_token_id": case["eos_id"], "pad_token_id": case["pad_id"]}
        options = {"eos_penalty": 4.0, "pad_penalty": 4.0, **ids}
    [result] = mdm.decode(
        model, case["prompt"], sampler="info-gain", sampler_options={"candidates": "all"},
        gen_length=case["gen_length"], block_length=case["block_size"], **options,
    )  # fmt: skip
    assert committed(result.trace) == steps(case)
    if not options:
        assert result.cumulative_entropy == pytest.approx(case["cumulative_entropy_fullforward"], abs=1e-4)
