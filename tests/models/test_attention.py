"""Masks: a bidirectional body makes none, one that is given counts, and a causal body stays causal."""

from __future__ import annotations

import mdm
import pytest
import tiny_families
import torch
from mdm.errors import MdmError
from mdm.models import Model, attention, compiled
from transformers import LlamaConfig, LlamaForCausalLM, masking_utils

TOKENS, POSITIONS = torch.arange(24).view(3, 8), torch.arange(8).expand(3, -1)
BLOCKS = torch.where(POSITIONS[:1, :, None] // 4 >= POSITIONS[:1, None] // 4, 0.0, torch.finfo(torch.float32).min)
"""A block sees itself and those before it: additive ``[1, 8, 8]``."""


@pytest.fixture(params=tiny_families.CONFIGS)
def model(tmp_path, request):
    return mdm.load_model(tiny_families.save(tmp_path, request.param), device="cpu", dtype="float32")


@pytest.fixture
def masks(monkeypatch):
    """The masks that layers get."""
    seen = []
    whole = attention.sdpa_attention_forward

    def seeing(module, query, key, value, mask, **more):
        seen.append(mask)
        return whole(module, query, key, value, mask, **more)

    monkeypatch.setattr(attention, "sdpa_attention_forward", seeing)
    return seen


@pytest.mark.parametrize("tracing", [False, True])
def test_a_bidirectional_body_makes_no_mask_whether_traced_or_captured(model, masks, monkeypatch, tracing):
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *_: tracing)
    model.hidden(TOKENS, POSITIONS)
    assert masks == [None] * tiny_families.LAYERS


def test_a_mask_that_is_given_counts(model, masks):
    mask = BLOCKS.expand(3, 1, 8, 8)
    plain = model.hidden(TOKENS, POSITIONS, mask=mask)
    assert all(each is mask for each in masks)
    first = model.hidden(TOKENS[:, :4], POSITIONS[:, :4])
    torch.testing.assert_close(plain[:, :4], first)
    assert not torch.allclose(plain, model.hidden(TOKENS, POSITIONS))


def causal_model(model):
    """A body that nobody made bidirectional, under this attention."""
    network = LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        attn_implementation="sdpa",
    )).eval()  # fmt: skip
    return Model(model.spec, network.model, network.lm_head, name="causal")


def test_a_causal_body_stays_causal(model):
    causal = causal_model(model)
    assert attention.is_installed(causal.body)
    later = TOKENS.clone()
    later[:, 5:] += 30
    padded = torch.ones_like(TOKENS)
    padded[:, 0] = 0
    with torch.inference_mode():
        for keys in (None, torch.ones_like(TOKENS), padded):
            first, second = (causal.hidden(tokens, POSITIONS, mask=keys) for tokens in (TOKENS, later))
            torch.testing.assert_close(first[:, 1:5], second[:, 1:5])
            assert not torch.allclose(first[:, 5:], second[:, 5:])


@pytest.mark.usefixtures("compiler")
def test_a_causal_body_is_not_compiled(model):
    causal = causal_model(model)
    with torch.inference_mode(), compiled.forwards(causal), pytest.raises(MdmError, match="cannot be compiled"):
        causal.hidden(TOKENS, POSITIONS)
