"""SDAR (arXiv:2510.06303) and TraDo (arXiv:2509.06949) on transformers' own Qwen3, SDAR's mixtures of experts on its
Qwen3-MoE: block diffusion on a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model

MASK_TOKEN, END_OF_TURN = "<|MASK|>", "<|im_end|>"


class Sdar(BaseFamily):
    """SDAR and TraDo on transformers' Qwen3 and Qwen3-MoE, block by block."""

    name = "sdar"

    def claims(self, config: Mapping[str, Any]) -> bool:
        named = {"SDARForCausalLM", "SDARMoeForCausalLM"} & set(config.get("architectures") or ())
        return config.get("model_type") in ("sdar", "sdar_moe") or bool(named)

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm.models import Model, affixes, end_tokens, load_network, load_tokenizer, mask_token
        from mdm.protocols import ModelSpec
        from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

        from mdm_sdar.layout import CHAT, as_qwen, is_sparse

        sparse = is_sparse(config)
        qwen = (Qwen3MoeConfig if sparse else Qwen3Config)(**as_qwen(config, source))
        tokenizer = load_tokenizer(source, bpe="Qwen2Tokenizer")
        spec = ModelSpec(
            family=self.name,
            vocab_size=qwen.vocab_size,
            mask_id=mask_token(config, source, tokenizer, MASK_TOKEN),
            eos_ids=end_tokens(config, source, qwen.vocab_size, tokenizer, [END_OF_TURN]),
            pad_id=config.get("pad_token_id"),
            prefix=affixes(tokenizer)[0],
            attention="block-causal",
            block_length=config.get("block_size") or 4,
            default_cache="block",
        )
        module = Qwen3MoeForCausalLM if sparse else Qwen3ForCausalLM
        network = load_network(module, source, qwen, device=device, dtype=dtype, **options)
        return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)


FAMILY = Sdar()
