"""What a checkpoint of SDAR's mixtures of experts becomes. The goldens compare the network."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.models.config_json import parse_config
from mdm_sdar import FAMILY, MASK_TOKEN
from tiny_families import EOS, MASK, save, save_bpe

CANVAS = torch.tensor([[3, 1, 4, 1, 5, MASK, 2, 6, 5, 3]])


@pytest.mark.parametrize("config", [{"model_type": "sdar_moe"}, {"architectures": ["SDARMoeForCausalLM"]}])
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def test_the_specification(tmp_path):
    model = mdm.load_model(save(tmp_path, "sdar-moe"), device="cpu")
    spec = model.spec
    assert type(model.body).__name__ == "Qwen3MoeModel"
    assert (spec.family, spec.attention, spec.block_length, spec.default_cache) == ("sdar", "block-causal", 4, "block")


def test_the_block_is_four_unless_another_is_asked_for(tmp_path):
    """No published config.json names it: the variants for other blocks are told with ``block_length``."""
    model = mdm.load_model(save(tmp_path, "sdar-moe"), device="cpu", dtype="float32")
    torch.testing.assert_close(model.score_logits(CANVAS), model.score_logits(CANVAS, 4))
    assert (model.score_logits(CANVAS) - model.score_logits(CANVAS, 8)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_sliding_window", True),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("attention_bias", True),
        ("decoder_sparse_step", 2),
        ("mlp_only_layers", [1]),
        ("shared_expert_intermediate_size", 32),
        ("expert_routing_of_tomorrow", "hash"),
        ("num_experts", 3),
        ("num_experts", 128),
        ("num_experts_per_tok", 5),
        ("num_hidden_layers", 3),
    ],
)
def test_what_qwen_has_not_is_refused_by_name(tmp_path, key, value):
    folder = save(tmp_path, "sdar-moe")
    config = parse_config(folder / "config.json") | {key: value}
    with pytest.raises(mdm.MdmError) as caught:
        FAMILY.load(str(folder), config, device="cpu", dtype="float32")
    assert f"config key '{key}' is {value!r}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["moe_intermediate_size", "num_experts", "num_experts_per_tok"])
def test_a_key_that_is_missing_is_named(tmp_path, key):
    with pytest.raises(mdm.MdmError, match=f"lacks the key '{key}'"):
        mdm.load_model(save(tmp_path, "sdar-moe", **{key: None}), device="cpu")


def test_the_routing_sums_to_one_where_the_configuration_says_so(tmp_path):
    folders = (save(tmp_path / str(says), "sdar-moe", norm_topk_prob=says) for says in (True, False))
    one, other = (mdm.load_model(f, device="cpu", dtype="float32").score_logits(CANVAS) for f in folders)
    assert (one - other).abs().max() > 1e-3


def test_the_tokenizer_names_the_mask(tmp_path):
    folder = save(tmp_path, "sdar-moe", vocab_size=300, mask_token_id=None)
    first = save_bpe(folder, [MASK_TOKEN, "<|endoftext|>", "<|im_end|>"], eos_token="<|endoftext|>")
    spec = mdm.load_model(folder, device="cpu").spec
    assert (spec.mask_id, spec.eos_ids) == (first, (EOS, first + 1, first + 2))
