"""LLaDA2.0 and LLaDA2.1 (arXiv:2512.15745, arXiv:2602.08676), mini and flash, on transformers' own Glm4Moe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model


class Llada2(BaseFamily):
    """LLaDA2.0 and LLaDA2.1 on transformers' Glm4Moe, block by block. The two share one config.json: what tells them
    apart is the sampler."""

    name = "llada2"

    def claims(self, config: Mapping[str, Any]) -> bool:
        named = "LLaDA2MoeModelLM" in (config.get("architectures") or ())
        return named or config.get("model_type") == "llada2_moe"

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import Model, affixes, load_network, load_tokenizer
        from mdm.protocols import ModelSpec
        from transformers import Glm4MoeForCausalLM

        from mdm_llada2.layout import BLOCK, CHAT, as_glm, ends, mask
        from mdm_llada2.network import KEYS, NetworkConfig

        glm = NetworkConfig(**as_glm(config, source))
        tokenizer = load_tokenizer(source)
        spec = ModelSpec(
            family=self.name,
            vocab_size=glm.vocab_size,
            mask_id=mask(config, source, tokenizer),
            eos_ids=ends(config, source, tokenizer),
            pad_id=config.get("pad_token_id"),
            prefix=affixes(tokenizer)[0],
            attention="block-causal",
            block_length=BLOCK,
            default_cache="block",
        )
        network = load_network(Glm4MoeForCausalLM, source, glm, device=device, dtype=dtype, key_mapping=KEYS, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)


FAMILY = Llada2()
