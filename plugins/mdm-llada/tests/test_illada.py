"""What an iLLaDA checkpoint's files become, against what its published code computes, written out in plain torch."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm_llada import FAMILY
from safetensors.torch import load_file, save_file
from tiny_families import CONFIGS, MASK, save

CANVAS = torch.tensor([[3, 1, 4, MASK, 5, MASK, 2, 6], [7, 7, MASK, 8, MASK, 9, 1, 0]])


@pytest.mark.parametrize("config", [{"model_type": "illada"}, {"architectures": ["ILLaDAForCausalLM"]}])
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def norm(hidden, weight):
    return weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)


def turned(x, base):
    """Rotary positions of ``[R, H, L, D]``: each of the first half of a head turns with its fellow of the second."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * base ** -(torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1)


def published(weights, tokens, config):
    """Logits of the whole canvas: no mask, aligned, the embedding as the head."""
    rows, length = tokens.shape
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    hidden = weights["model.embed_tokens.weight"][tokens]
    for n in range(config["num_hidden_layers"]):
        part = {name.split(f"layers.{n}.")[1]: w for name, w in weights.items() if f".layers.{n}." in name}
        x = norm(hidden, part["input_layernorm.weight"])
        q, k, v = (
            (x @ part[f"self_attn.{name}_proj.weight"].T).view(rows, length, count, -1).transpose(1, 2)
            for name, count in (("q", heads), ("k", shared), ("v", shared))
        )
        q, k = turned(q, config["rope_theta"]), turned(k, config["rope_theta"])
        k, v = (each.repeat_interleave(heads // shared, dim=1) for each in (k, v))
        weight = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        hidden = hidden + (weight @ v).transpose(1, 2).flatten(2) @ part["self_attn.o_proj.weight"].T
        x = norm(hidden, part["post_attention_layernorm.weight"])
        gate, up = (x @ part[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        hidden = hidden + (torch.nn.functional.silu(gate) * up) @ part["mlp.down_proj.weight"].T
    return norm(hidden, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


@pytest.mark.parametrize("with_head", [False, True])
def test_it_is_a_llama_that_looks_both_ways(tmp_path, with_head):
    """The tied head may stand in the file once more."""
    path = save(tmp_path, "illada", tie_word_embeddings=True) / "model.safetensors"
    weights = load_file(path)
    head = {"lm_head.weight": weights["model.embed_tokens.weight"].clone()} if with_head else {}
    save_file(weights | head, path, metadata={"format": "pt"})
    model = mdm.load_model(tmp_path, device="cpu", dtype="float32")
    expected = published(weights, CANVAS, CONFIGS["illada"])
    torch.testing.assert_close(model.score_logits(CANVAS), expected, atol=1e-4, rtol=0)
    assert (model.spec.family, model.spec.attention, model.spec.shift) == ("llada", "full", False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_eps", 1e-5),
        ("mlp_bias", True),
        ("attention_bias", True),
        ("hidden_act", "gelu"),
        ("rope_scaling", {"rope_type": "default", "factor": 2.0}),
        ("num_experts", 4),
    ],
)
def test_what_llama_has_not_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(mdm.MdmError, match=f"config key '{key}' is"):
        mdm.load_model(save(tmp_path, "illada", **{key: value}), device="cpu")


def test_the_published_mask_is_known_of_the_published_vocabulary_alone(tmp_path):
    with pytest.raises(mdm.MdmError, match="names the mask"):
        mdm.load_model(save(tmp_path / "other", "illada", mask_token_id=None), device="cpu")
    folder = save(tmp_path / "published", "illada", mask_token_id=None, vocab_size=155136, tie_word_embeddings=True)
    assert mdm.load_model(folder, device="cpu").spec.mask_id == 5
