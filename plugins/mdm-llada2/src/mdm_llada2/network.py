"""transformers' Glm4Moe under LLaDA2's names of weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Glm4MoeConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter

KEYS = {
    r"^model\.word_embeddings\.": "model.embed_tokens.",
    r"\.attention\.dense\.": ".self_attn.o_proj.",
    r"\.attention\.query_layernorm\.": ".self_attn.q_norm.",
    r"\.attention\.key_layernorm\.": ".self_attn.k_norm.",
    r"\.mlp\.gate\.expert_bias$": ".mlp.gate.e_score_correction_bias",
}
"""Published names of weights -> the stock class's, as regular expressions; all others but ``FUSED`` are the same."""

FUSED, PARTS = "attention.query_key_value.weight", [f"self_attn.{name}_proj.weight" for name in "qkv"]


class NetworkConfig(Glm4MoeConfig):
    """The stock configuration under a type of its own, by which transformers finds how its weights are converted."""

    model_type = "mdm_llada2"


class SplitHeads(ConversionOps):
    """Rows of the fused projection: all heads' queries, then keys, then values. transformers 5.17 has no such split."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        config: Any = None,
        **others: Any,
    ) -> dict[str, Tensor]:
        [fused] = input_dict.values()
        fused = fused[0] if isinstance(fused, list) else fused
        heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        parts = fused.split([count * config.head_dim for count in heads])
        return {name: part.clone() for name, part in zip(target_patterns, parts, strict=True)}


register_checkpoint_conversion_mapping(
    NetworkConfig.model_type,
    [
        *get_checkpoint_conversion_mapping(Glm4MoeConfig.model_type),
        WeightConverter(FUSED, PARTS, operations=[SplitHeads()]),
    ],
    overwrite=True,
)
