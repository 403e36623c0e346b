"""q, k and v as one product, gate and up as another: the same numbers from fewer products."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import mdm
import pytest
import tiny_families
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from mdm.models import products
from mdm_testing.counters import counting
from mdm_testing.probe import essence
from torch import nn


@pytest.fixture(params=["llada", "dream", "sdar", "llada2"])
def model(tmp_path, request):
    return mdm.load_model(tiny_families.save(tmp_path, request.param), device="cpu", dtype="float32")


def decoded(model):
    prompts = [[1, 2, 3, 4, 5], [7, 8], [9] * 8]
    cache = model.spec.default_cache
    return [essence(r) for r in mdm.decode(model, prompts, "info-gain", cache=cache, gen_length=8, block_length=4)]


def test_a_decode_is_the_same_in_fewer_operations(model):
    plain, tokens = decoded(model), torch.arange(12).view(2, 6)
    at = torch.arange(6).expand(2, -1)
    with counting(model) as before, torch.inference_mode():
        states = model.hidden(tokens, at)
    weights = sum(weight.numel() for weight in model.body.parameters())
    products.join(model.body)
    with counting(model) as after, torch.inference_mode():
        torch.testing.assert_close(model.hidden(tokens, at), states)
    assert after.model_operations < before.model_operations
    assert sum(weight.numel() for weight in model.body.parameters()) == weights
    assert decoded(model) == plain
    with ThreadPoolExecutor(3) as pool:
        assert [each.result() for each in [pool.submit(decoded, model) for _ in range(6)]] == [plain] * 6
    assert all(part._last is None for part in model.body.modules() if isinstance(part, products._Joined))


def test_what_is_no_plain_layer_stays_as_it_is(model):
    first, *others = model.body.layers
    experts = [
        (part, set(part.state_dict())) for part in model.body.modules() if type(part).__name__.endswith("Experts")
    ]
    add_hook_to_module(first.mlp.up_proj, ModelHook())
    first.self_attn.k_proj = nn.Sequential(first.self_attn.k_proj)
    products.join(model.body)
    assert type(first.mlp.gate_proj) is nn.Linear and type(first.self_attn.q_proj) is nn.Linear
    mlps = [getattr(layer.mlp, "shared_experts", layer.mlp) for layer in others]
    assert all(type(mlp.gate_proj) is products._Part for mlp in mlps)
    assert all(set(part.state_dict()) == names for part, names in experts)
    assert bool(experts) == (model.spec.family == "llada2")
