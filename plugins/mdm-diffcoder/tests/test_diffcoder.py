"""What Stable-DiffCoder's configurations become, and where its canvas ends."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.models.checkpoints import find_family
from mdm_diffcoder import FAMILY
from mdm_testing.probe import essence
from tiny_families import CONFIGS, MASK, save, save_bpe, save_causal

PUBLISHED = {
    "auto_map": {"AutoModelForCausalLM": "modeling_stable_diffcoder.StableDiffcoderForCausalLM"},
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "pretraining_tp": 1, "bos_token_id": 0,
    "rope_theta": None, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "dtype": "bfloat16",
}  # fmt: skip
"""Keys of a published config.json beside Llama's."""
PROMPTS = [[3, 1, 4, 1, 5, 9], [2, 7, 1, 8], [1, 6, 1, 8, 0, 3, 3]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("diffcoder"), "diffcoder"), device="cpu", dtype="float32")


def test_it_claims_its_own():
    assert FAMILY.claims({"model_type": "llama", "architectures": ["StableDiffcoderForCausalLM"]})


def test_it_claims_nothing_else():
    assert not any(FAMILY.claims(config) for family, config in CONFIGS.items() if family != "diffcoder")
    assert not FAMILY.claims({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})


def test_no_llama_is_taken_for_it_nor_it_for_a_llama(tmp_path):
    """Both say model_type llama: the one is a baseline, the other is not."""
    pytest.importorskip("mdm_ar")
    assert find_family(CONFIGS["diffcoder"], None, tmp_path).name == "diffcoder"
    assert mdm.load_model(save_causal(tmp_path), device="cpu").spec.family == "ar"


def test_the_specification(tmp_path):
    spec = mdm.load_model(save(tmp_path, "diffcoder", **PUBLISHED), device="cpu").spec
    assert (spec.attention, spec.block_length, spec.default_cache) == ("block-causal", 4, "block")
    assert (spec.shift, spec.rounds_up, spec.mask_id) == (False, False, MASK)


def test_the_mask_is_the_tokenizers_or_the_published_one(tmp_path):
    """The published config.json does not name it."""
    plain = save(tmp_path / "plain", "diffcoder", mask_token_id=None)
    assert mdm.load_model(plain, device="cpu").spec.mask_id == 5
    save(tmp_path / "named", "diffcoder", mask_token_id=None, vocab_size=320)
    first = save_bpe(tmp_path / "named", ["<e>", "<m>"], whole=True, eos_token="<e>", mask_token="<m>")
    spec = mdm.load_model(tmp_path / "named", device="cpu").spec
    assert spec.mask_id == first + 1 and first in spec.eos_ids


@pytest.mark.parametrize("gen_length", [1, 5, 8])
def test_the_canvas_ends_with_the_answer(model, gen_length):
    for prompt, result in zip(PROMPTS, mdm.decode(model, PROMPTS, gen_length=gen_length), strict=True):
        assert len(result.sequence) == len(prompt) + gen_length and len(result.tokens) == gen_length


@pytest.mark.parametrize(
    ("sampler", "cache"), [("confidence", "block"), ("confidence", "dual"), ("info-gain", "block")]
)
def test_short_last_blocks_decode_alike_alone_and_under_every_cache(model, sampler, cache):
    lengths = [5, 6, 3]
    plain = mdm.decode(model, PROMPTS, sampler, cache="none", gen_length=lengths)
    kept = mdm.decode(model, PROMPTS, sampler, cache=cache, gen_length=lengths, batch_size=2)
    assert [essence(one) for one in plain] == [essence(other) for other in kept]
    [alone] = mdm.decode(model, PROMPTS[2:], sampler, cache=cache, gen_length=lengths[2:], row_ids=[2])
    assert essence(alone) == essence(plain[2])


def test_an_infill_ends_with_its_text(model):
    [result] = mdm.decode(model, [[3, MASK, 4, 1, 5, MASK, 2]], gen_length=0)
    assert len(result.sequence) == 7 and MASK not in result.sequence
    [longer] = mdm.decode(model, [[3, MASK, 4, 1, 5, MASK, 2]], gen_length=2)
    assert len(longer.sequence) == 9 and MASK not in longer.sequence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_bias", True),
        ("mlp_bias", True),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("num_local_experts", 8),
    ],
)
def test_what_is_not_published_of_it_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(mdm.MdmError, match=f"config key '{key}'"):
        mdm.load_model(save(tmp_path, "diffcoder", **{key: value}), device="cpu")


def test_a_forgotten_mask_would_show(model):
    """Blocks do not see what comes later: the logits of a prefix are its own."""
    canvas = torch.tensor([[3, 1, 4, 1, 5, MASK, 2, 6, 5, 3]])
    torch.testing.assert_close(model.score_logits(canvas)[:, :4], model.score_logits(canvas[:, :4]))
