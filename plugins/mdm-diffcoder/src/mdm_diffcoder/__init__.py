"""Stable-DiffCoder (arXiv:2601.15892) on transformers' own Llama: block diffusion in blocks of four."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model

MASK_TOKEN, MASK_ID = "<[MASK_TOKEN]>", 5
"""The mask of the published ``generate``, which config.json does not name."""
BLOCK_LENGTH = 4


class DiffCoder(BaseFamily):
    """Stable-DiffCoder on transformers' Llama, block by block; the last block ends with the answer."""

    name = "diffcoder"

    def claims(self, config: Mapping[str, Any]) -> bool:
        # Its model_type is "llama", as that of any Llama is.
        return "StableDiffcoderForCausalLM" in (config.get("architectures") or ())

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import Model, affixes, end_tokens, load_network, load_tokenizer, mask_token
        from mdm.protocols import ModelSpec
        from transformers import LlamaConfig, LlamaForCausalLM

        from mdm_diffcoder.layout import as_llama

        llama = LlamaConfig(**as_llama(config, source))
        tokenizer = load_tokenizer(source)
        names = [name for name in (getattr(tokenizer, "mask_token", None), MASK_TOKEN) if name is not None]
        spec = ModelSpec(
            family=self.name,
            vocab_size=llama.vocab_size,
            mask_id=mask_token(config, source, tokenizer, *names, published=MASK_ID),
            eos_ids=end_tokens(config, source, llama.vocab_size, tokenizer),
            pad_id=config.get("pad_token_id"),
            prefix=affixes(tokenizer)[0],
            attention="block-causal",
            block_length=BLOCK_LENGTH,
            rounds_up=False,
            default_cache="block",
        )
        network = load_network(LlamaForCausalLM, source, llama, device=device, dtype=dtype, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source)


FAMILY = DiffCoder()
