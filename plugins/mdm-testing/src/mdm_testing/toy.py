"""A toy model made on the spot: random weights in transformers' Llama, a token for each byte."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from mdm.models import Model
from mdm.protocols import ModelSpec

BYTES = 256
MASK, EOS, PAD = BYTES, BYTES + 1, BYTES + 2
VOCABULARY = BYTES + 3
WIDTH, LAYERS, HEADS, KV_HEADS = 32, 2, 4, 2
BLOCK = 4
"""The grid of the block-causal toy, and the block length the checks decode with."""

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@lru_cache
def toy_model(attention: Literal["full", "block-causal"] = "full", *, shift: bool = False, kv: bool = True) -> Model:
    """A model of 259 tokens and two layers, float32 on the CPU; the same one at every call.

    Its weights are drawn so wide that no choice hangs on a rounding, and that some tokens are sure and others are not.
    Torch computes with one thread from here on: more would wait for each other longer than they compute.
    """
    torch.set_num_threads(1)
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=512,
        tie_word_embeddings=False,
    )  # fmt: skip
    config.is_causal = False
    with torch.random.fork_rng(devices=[]):  # transformers draws weights of its own before ours take their place
        network = LlamaForCausalLM(config).float().eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            weight.data = 0.3 * torch.randn(weight.shape, generator=random)
        elif name == "model.norm.weight":
            weight.data = torch.full_like(weight, 5.0)
    spec = ModelSpec(
        family="toy", vocab_size=VOCABULARY, mask_id=MASK, eos_ids=(EOS,), pad_id=PAD, shift=shift, attention=attention,
        block_length=BLOCK if attention == "block-causal" else None, has_kv=kv, prompt_style="compact",
    )  # fmt: skip
    return Model(spec, network.model, network.lm_head, _bytes(), name="toy", chat_template=CHAT)


def _bytes() -> Any:
    """A tokenizer whose ids are the bytes of a text in UTF-8 (in an order of its own), so that it knows every text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {"mask_token": "<mask>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in named.values()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
