"""What a LLaDA checkpoint's files become."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm_llada import FAMILY
from tiny_families import CONFIGS, EOS, MASK, save


@pytest.mark.parametrize("config", [{"model_type": "llada"}, {"architectures": ["LLaDAModelLM"]}])
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def test_it_claims_nothing_else():
    claimed = {family for family, config in CONFIGS.items() if FAMILY.claims(config)}
    assert claimed == {"llada", "llada-moe", "illada"}


def test_the_specification(tmp_path):
    model = mdm.load_model(save(tmp_path, "llada", prompt_style="compact"), device="cpu")
    spec = model.spec
    assert (spec.mask_id, spec.eos_ids, spec.vocab_size) == (MASK, (EOS,), 256)
    assert (spec.shift, spec.attention, spec.prompt_style) == (False, "full", "compact")


def test_attention_looks_both_ways(tmp_path):
    model = mdm.load_model(save(tmp_path, "llada"), device="cpu", dtype="float32")
    canvas = torch.tensor([[1, 2, MASK, 4, 5]])
    other = canvas.clone()
    other[0, 4] = 9
    assert (model.score_logits(canvas)[0, 0] - model.score_logits(other)[0, 0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("key", "value"), [("alibi", True), ("layer_norm_type", "default"), ("block_type", "sequential")]
)
def test_what_llama_has_not_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(mdm.MdmError, match=f"config key '{key}' is {value!r}"):
        mdm.load_model(save(tmp_path, "llada", **{key: value}), device="cpu")


DISTILLED = {
    "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "attention_dropout": 0.0,
    "attention_layer_norm": False, "attention_layer_norm_with_affine": True, "bias_for_layer_norm": False,
    "block_group_size": 1, "embedding_dropout": 0.0, "flash_attention": False, "include_bias": False,
    "include_qkv_bias": False, "init_device": "meta", "init_fn": "mitchell", "init_std": 0.02, "input_emb_norm": False,
    "layer_norm_type": "rms", "layer_norm_with_affine": True, "rope": True, "rope_full_precision": True,
    "scale_logits": False, "torch_dtype": "bfloat16", "use_cache": False,
    "auto_map": {"AutoModel": "GSAI-ML/LLaDA-8B-Instruct--modeling_llada.LLaDAModelLM"},
}  # fmt: skip
"""Keys of LLaDA-8B-Instruct's config.json (at 6059b30) as saving again keeps them.

dParallel-LLaDA-8B-instruct is that model with an adapter merged and saved (LLaDA/merge_lora.py of czg1225/dParallel at
57e1e68); d3LLM_LLaDA is loaded by LLaDA's own class, whose key ``flash_attention`` is set (chat/chat_d3llm_llada.py of
hao-ai-lab/d3LLM).
"""


def test_a_distilled_model_loads_as_what_it_was_distilled_from(tmp_path):
    folders = save(tmp_path / "base", "llada"), save(tmp_path / "distilled", "llada", **DISTILLED)
    base, distilled = (mdm.load_model(folder, device="cpu", dtype="float32") for folder in folders)
    canvas = torch.tensor([[1, 2, MASK, 4, 5]])
    assert distilled.spec == base.spec
    assert torch.equal(distilled.score_logits(canvas), base.score_logits(canvas))


def test_the_known_chat_template():
    model = mdm.load_model("tiny", device="cpu")
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": " hi "}],
        chat_template=model.chat_template, add_generation_prompt=True, tokenize=False,
    )  # fmt: skip
    assert text == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
