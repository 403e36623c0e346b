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
    assert not any(FAMILY.claims(config) for family, config in CONFIGS.items() if family != "llada")


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
