"""iLLaDA's published layout (arXiv:2606.25331): a Llama's, with grouped queries and, in iLLaDA-8B, a tied head.

Keys, and what is done with them, are those of modeling_illada.py, the code that iLLaDA-8B names. Its config.json names
no mask: id 5 is of the README of ML-GSAI/LLaDA at 1ef4ead, and the tokenizer calls it <[MASK]>.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.models import (
    Model,
    affixes,
    check_network,
    end_tokens,
    load_network,
    load_tokenizer,
    mask_token,
    network_sizes,
)
from mdm.protocols import ModelSpec

MASK_TOKEN, MASK, VOCABULARY = "<[MASK]>", 5, 155136

ACCEPTED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "layer_norm_eps": (None,),  # a number makes LayerNorms of its RMSNorms
}
"""Config keys, beside the common ones, that select code, and the values that are Llama's."""


def as_llama(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``LlamaConfig`` that an iLLaDA config.json amounts to; only keys known here are taken.

    Raises:
        MdmError: a key is missing, or asks for what Llama does not do.
    """
    check_network(config, source, ACCEPTED)
    return network_sizes(config, source) | {"attention_bias": False}


def load(family: str, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
    """An iLLaDA checkpoint on Llama. ``options`` go to ``load_network``.

    Raises:
        MdmError: a config key that is missing or cannot be honoured, a weight that does not fit.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(**as_llama(config, source))
    tokenizer = load_tokenizer(source)
    spec = ModelSpec(
        family=family,
        vocab_size=llama.vocab_size,
        mask_id=mask_token(
            config, source, tokenizer, MASK_TOKEN, published=MASK if llama.vocab_size == VOCABULARY else None
        ),
        eos_ids=end_tokens(config, source, llama.vocab_size, tokenizer),
        pad_id=config.get("pad_token_id"),
        prefix=affixes(tokenizer)[0],
        prompt_style=config.get("prompt_style", "chat"),
    )
    network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, **options)
    return Model(spec, network.model, network.lm_head, tokenizer, name=source)
