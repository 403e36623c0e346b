"""Fast-dLLM v2's own ways: logits that are shifted across blocks, its mask token, what it refuses."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm import registry
from mdm.protocols import Message
from mdm_fastdllm2 import FAMILY
from mdm_testing.probe import Watched, essence
from tiny_families import CONFIGS, EOS, MASK, save, save_bpe

PUBLISHED = {
    "attention_dropout": 0.0, "conplemenrary_mask": True, "layer_types": ["full_attention"] * 2, "use_cache": True,
    "max_window_layers": 2, "torch_dtype": "bfloat16",
    "auto_map": {"AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM"},
}  # fmt: skip
"""Keys of a published config.json beside Qwen2's."""
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5, 8, 9], [7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4]]
LENGTHS = [9, 8, 6]
SAMPLERS = {
    "confidence": {}, "entropy": {}, "left-to-right": {}, "eb": {}, "klass": {}, "remdm": {}, "beam": {},
    "info-gain": {"candidates": 4}, "fastdllm-threshold": {"threshold": 0.5}, "sdar-dynamic": {"threshold": 0.5},
    "fastdllm-v2": {"threshold": 0.5, "sub_block": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("fastdllm2"), "fastdllm2"), device="cpu", dtype="float32")


@pytest.mark.parametrize("key", [{"model_type": "Fast_dLLM_Qwen"}, {"architectures": ["Fast_dLLM_QwenForCausalLM"]}])
def test_it_claims_its_own(key):
    assert FAMILY.claims(key)


def test_it_claims_nothing_else():
    assert not any(FAMILY.claims(config) for family, config in CONFIGS.items() if family != "fastdllm2")


@pytest.mark.parametrize("size", [None, 8, 16])
def test_the_specification(tmp_path, size):
    spec = mdm.load_model(save(tmp_path, "fastdllm2", **PUBLISHED, bd_size=size), device="cpu").spec
    assert (spec.attention, spec.block_length, spec.default_cache) == ("block-causal", size or 32, "block")
    assert (spec.shift, spec.rounds_up, spec.mask_id) == (True, True, MASK)


@pytest.mark.parametrize("cache", ["none", "block", "prefix", "dual"])
def test_a_blocks_first_position_is_read_at_the_last_of_the_block_before(model, cache):
    """In the step that enters a block and in those after: what a sampler sees is the row before of a whole forward."""
    plugin = registry.resolve("sampler", "confidence")
    watched = Watched(plugin(plugin.Options()))
    mdm.decode(model, PROMPTS, watched, cache=cache, gen_length=LENGTHS)
    firsts = set()
    for seen in watched.decided:
        for row in range(len(seen.scores.valid)):
            length = int(seen.state.in_canvas[row].sum())
            logits = model.score_logits(seen.state.tokens[row : row + 1, :length])[0].clone()
            logits[:, MASK] = -torch.inf
            at = seen.scores.positions[row][seen.scores.valid[row]]
            assert torch.equal(seen.scores.token[row][seen.scores.valid[row]], logits[at].argmax(-1))
            firsts |= {(position, int(seen.state.block_step[row]) > 0) for position in at.tolist() if position % 8 == 0}
    assert {(8, False), (16, False)} <= firsts and any(later for _, later in firsts)


QUICK = {("confidence", "block"), ("info-gain", "block"), ("fastdllm-v2", "block"), ("fastdllm-v2", "dual")}


@pytest.mark.parametrize(
    ("sampler", "cache"),
    [
        pytest.param(sampler, cache, marks=() if (sampler, cache) in QUICK else pytest.mark.wide)
        for sampler in SAMPLERS
        for cache in ("block", "prefix", "dual")
    ],
)
def test_every_sampler_decides_the_same_under_every_cache(model, sampler, cache):
    """Finished blocks cannot change, shifted or not; a batch is its rows."""
    options = SAMPLERS[sampler]
    plain = mdm.decode(model, PROMPTS, sampler, options, "none", gen_length=LENGTHS)
    kept = mdm.decode(model, PROMPTS, sampler, options, cache, gen_length=LENGTHS, batch_size=2)
    assert [essence(one) for one in plain] == [essence(other) for other in kept]
    [alone] = mdm.decode(model, PROMPTS[2:], sampler, options, cache, gen_length=LENGTHS[2:], row_ids=[2])
    assert essence(alone) == essence(plain[2])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_sliding_window", True),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("num_experts", 8),
        ("hidden_act", "gelu"),
    ],
)
def test_what_the_adapter_does_not_do_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(mdm.MdmError, match=f"config key '{key}'"):
        mdm.load_model(save(tmp_path, "fastdllm2", **{key: value}), device="cpu")


def test_tied_embeddings_are_honoured(tmp_path):
    """The 7B has a head of its own; where the key says that there is none, the embedding is the head."""
    folder = save(tmp_path, "fastdllm2", tie_word_embeddings=True)
    model = mdm.load_model(folder, device="cpu", dtype="float32")
    assert model.lm_head.weight.data_ptr() == model.body.embed_tokens.weight.data_ptr()


def test_the_published_mask_is_out_of_a_small_vocabulary(tmp_path):
    with pytest.raises(mdm.MdmError, match="mask token is 151665"):
        mdm.load_model(save(tmp_path, "fastdllm2", mask_token_id=None), device="cpu")


def test_the_tokenizer_names_the_mask_and_the_turns(tmp_path):
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "|<MASK>|"]
    first = save_bpe(tmp_path, tokens, eos_token=tokens[2], pad_token=tokens[0])
    model = mdm.load_model(save(tmp_path, "fastdllm2", mask_token_id=None, vocab_size=320), device="cpu")
    assert model.spec.mask_id == first + 3
    assert model.spec.eos_ids == (EOS, first + 2)
    chat = model.tokenizer.decode(model.encode_chat([Message("user", "hello")]))
    assert chat.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")
    assert chat.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")


def test_a_tokenizer_without_the_mask_is_refused(tmp_path):
    """The published id would be some other token of it."""
    save_bpe(tmp_path, ["<|endoftext|>"])
    with pytest.raises(mdm.MdmError, match=r"nor a token \|<MASK>\| names the mask"):
        mdm.load_model(save(tmp_path, "fastdllm2", mask_token_id=None, vocab_size=320), device="cpu")
