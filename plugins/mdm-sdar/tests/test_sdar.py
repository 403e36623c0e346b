"""What SDAR's and TraDo's configurations become."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.runs.config import DecodeConfig
from mdm.runs.decode_args import decode_settings
from mdm_sdar import FAMILY
from mdm_testing.counters import counting
from tiny_families import CONFIGS, MASK, save

TRADO = {
    "architectures": ["SDARForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM"},
    "attention_bias": False, "attention_dropout": 0.0, "max_window_layers": 2, "bos_token_id": None,
    "fuse_cross_entropy": True, "torch_dtype": "bfloat16", "use_cache": True,
}  # fmt: skip
"""Keys of a published config.json beside Qwen3's."""


@pytest.mark.parametrize("config", [{"model_type": "sdar"}, {"architectures": ["SDARForCausalLM"]}])
def test_it_claims_its_own(config):
    assert FAMILY.claims(config)


def test_it_claims_nothing_else():
    assert {family for family, config in CONFIGS.items() if FAMILY.claims(config)} == {"sdar", "sdar-moe"}


def test_the_specification(tmp_path):
    spec = mdm.load_model(save(tmp_path, "sdar", **TRADO), device="cpu").spec
    assert (spec.attention, spec.block_length, spec.default_cache, spec.shift) == ("block-causal", 4, "block", False)


def test_its_own_cache_is_the_default(tmp_path):
    """The block cache, in a run's settings as in ``mdm.decode``: fewer positions are run, and nothing else differs."""
    model = mdm.load_model(save(tmp_path, "sdar"), device="cpu", dtype="float32")
    settings = decode_settings(DecodeConfig(sampler=["confidence"]), model, "confidence")
    with counting(model) as own:
        [result] = mdm.decode(model, [[3, 1, 4, 1, 5, 9]], gen_length=10, **settings)
    with counting(model) as none:
        [plain] = mdm.decode(model, [[3, 1, 4, 1, 5, 9]], gen_length=10, **settings | {"cache": "none"})
    assert result.tokens == plain.tokens
    assert own.positions < none.positions


@pytest.mark.parametrize("size", [None, 8, 16])
def test_the_grid_is_the_checkpoints(tmp_path, size):
    model = mdm.load_model(save(tmp_path, "sdar", block_size=size), device="cpu", dtype="float32")
    assert model.spec.block_length == (size or 4)
    canvas = torch.tensor([[3, 1, 4, 1, 5, MASK, 2, 6, 5, 3]])
    torch.testing.assert_close(model.score_logits(canvas), model.score_logits(canvas, size or 4))


def test_experts_that_a_dense_checkpoint_asks_for_are_refused_by_name(tmp_path):
    with pytest.raises(mdm.MdmError, match="config key 'num_experts' is 4"):
        mdm.load_model(save(tmp_path, "sdar", num_experts=4), device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("hidden_act", "gelu"),
    ],
)
def test_what_the_adapter_does_not_do_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(mdm.MdmError, match=f"config key '{key}'"):
        mdm.load_model(save(tmp_path, "sdar", **{key: value}), device="cpu")


def test_rope_as_newer_configurations_write_it(tmp_path):
    """transformers 5 saves ``rope_parameters`` in place of ``rope_theta``: the same model, not a default."""
    rope = {"rope_type": "default", "rope_theta": 1e4}
    folders = (
        save(tmp_path / "old", "sdar", rope_theta=1e4),
        save(tmp_path / "new", "sdar", rope_theta=None, rope_parameters=rope),
    )
    canvas = torch.tensor([[3, 1, 4, 1, 5, MASK, 2, 6, 5, 3]])
    old, new = (mdm.load_model(f, device="cpu", dtype="float32").score_logits(canvas) for f in folders)
    assert torch.equal(old, new)
