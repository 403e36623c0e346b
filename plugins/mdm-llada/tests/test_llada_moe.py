"""What a LLaDA-MoE checkpoint's files become. The goldens compare the network."""

from __future__ import annotations

import jinja2
import mdm
import pytest
import torch
from mdm.models import mask_token
from mdm_llada import FAMILY
from mdm_llada.moe import CHAT, END, MASK, MASK_TOKEN
from safetensors.torch import load_file, save_file
from tiny_families import EOS, MASK as TINY_MASK, save, save_bpe

CANVAS = torch.tensor([[3, 1, 4, TINY_MASK, 5, TINY_MASK, 2, 6]])


@pytest.mark.parametrize(
    "config", [{"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}, {"model_type": "lladamoe"}]
)
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


@pytest.mark.parametrize(("family", "body"), [("llada", "LlamaModel"), ("llada-moe", "Qwen3MoeModel")])
def test_two_that_call_themselves_llada_are_told_apart(tmp_path, family, body):
    model = mdm.load_model(save(tmp_path, family, model_type="llada"), device="cpu")
    assert type(model.body).__name__ == body


def test_the_specification(tmp_path):
    spec = mdm.load_model(save(tmp_path, "llada-moe", prompt_style="compact"), device="cpu").spec
    assert (spec.family, spec.mask_id, spec.eos_ids, spec.vocab_size) == ("llada", TINY_MASK, (EOS,), 256)
    assert (spec.shift, spec.attention, spec.prompt_style, spec.default_cache) == (False, "full", "compact", "none")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shared_expert_intermediate_size", 64),
        ("moe_router_enable_expert_bias", True),
        ("moe_router_score_function", "sigmoid"),
        ("qk_layernorm", False),
        ("clip_qkv", 8.0),
        ("partial_rotary_factor", 0.5),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("router_num_group", 4),
        ("router_topk_group", 2),
        ("routed_scaling_factor", 2.5),
        ("moe_layer_freq", [0, 1]),
        ("moe_layer_freq", 2),
        ("mlp_only_layers", [0]),
        ("decoder_sparse_step", 2),
        ("num_shared_experts", 1),
        ("moe_router_of_tomorrow", "hash"),
        ("num_experts", 3),
        ("num_experts", 5),
        ("num_experts_per_tok", 5),
        ("num_hidden_layers", 1),
    ],
)
def test_what_qwen_has_not_is_refused_by_name(tmp_path, key, value):
    folder = save(tmp_path, "llada-moe")
    written = folder / "config.json"
    config = mdm.models.config_json.parse_config(written) | {key: value}
    with pytest.raises(mdm.MdmError) as caught:
        FAMILY.load(str(folder), config, device="cpu", dtype="float32")
    assert f"config key '{key}' is {value!r}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["expert_intermediate_size", "num_experts_per_tok", "num_experts", "hidden_size"])
def test_a_key_that_is_missing_is_named(tmp_path, key):
    with pytest.raises(mdm.MdmError, match=f"lacks the key '{key}'"):
        mdm.load_model(save(tmp_path, "llada-moe", **{key: None}), device="cpu")


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ("layers.0.shared_expert.up_proj.weight", None),
        ("layers.1.mlp.expert_bias", None),
        ("layers.0.mlp.up_proj.weight", None),
        (None, "layers.1.mlp.experts.2.down_proj.weight"),
    ],
)
def test_a_weight_that_is_left_over_or_missing_is_refused(tmp_path, more, less):
    path = save(tmp_path, "llada-moe") / "model.safetensors"
    weights = load_file(path)
    if more is not None:
        weights[f"model.{more}"] = torch.ones(4)
    else:
        del weights[f"model.{less}"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(mdm.MdmError, match=more or r"experts") as caught:
        mdm.load_model(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_the_routing_is_never_made_to_sum_to_one(tmp_path):
    """The published network does not read the key, whatever it says."""
    folders = (save(tmp_path / str(says), "llada-moe", norm_topk_prob=says) for says in (None, True, False))
    first, *others = (mdm.load_model(f, device="cpu", dtype="float32").score_logits(CANVAS) for f in folders)
    assert all(torch.equal(first, other) for other in others)


def test_attention_looks_both_ways(tmp_path):
    model = mdm.load_model(save(tmp_path, "llada-moe"), device="cpu", dtype="float32")
    other = CANVAS.clone()
    other[0, -1] = 9
    assert (model.score_logits(CANVAS)[0, 0] - model.score_logits(other)[0, 0]).abs().max() > 1e-3


def test_the_tokenizer_names_the_mask(tmp_path):
    folder = save(tmp_path, "llada-moe", vocab_size=300, mask_token_id=None)
    first = save_bpe(folder, [MASK_TOKEN, "<|endoftext|>", "<|role_end|>"], whole=True, eos_token="<|endoftext|>")
    spec = mdm.load_model(folder, device="cpu").spec
    assert (spec.mask_id, spec.eos_ids) == (first, (EOS, first + 1, first + 2))
    save(tmp_path, "llada-moe", vocab_size=300, mask_token_id=7)
    with pytest.raises(mdm.MdmError, match=rf"'mask_token_id' is 7, and the tokenizer's <\|mask\|> is {first}"):
        mdm.load_model(folder, device="cpu")


def test_the_published_ids_are_known_of_a_vocabulary_that_holds_them(tmp_path):
    assert (MASK, END) == (156895, 156892)
    assert mask_token({"vocab_size": 157184}, "it", None, MASK_TOKEN, published=MASK) == MASK
    with pytest.raises(mdm.MdmError, match="neither config.json's 'mask_token_id' nor a token .* names the mask"):
        mdm.load_model(save(tmp_path, "llada-moe", mask_token_id=None), device="cpu")


def test_the_known_chat_template():
    asked = [{"role": "user", "content": "hi"}]
    text = jinja2.Template(CHAT).render(messages=asked, add_generation_prompt=True)
    assert text == (
        "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>hi<|role_end|><role>ASSISTANT</role>"
    )
    chat = [{"role": "system", "content": "Be kind."}, *asked, {"role": "assistant", "content": "ho"}]
    assert jinja2.Template(CHAT).render(messages=chat) == (
        "<role>SYSTEM</role>Be kind.\ndetailed thinking off<|role_end|><role>HUMAN</role>hi<|role_end|>"
        "<role>ASSISTANT</role>ho<|role_end|>"
    )


@pytest.mark.parametrize("changes", [{"architectures": ["LLaDAMoEModel"]}, {"architectures": None}])
def test_its_class_may_be_named_without_its_head(tmp_path, changes):
    """As the published config.json is reported to, or not at all: its experts' width tells it from the dense one."""
    model = mdm.load_model(save(tmp_path, "llada-moe", **changes), device="cpu", dtype="float32")
    assert model.body.config.num_experts
