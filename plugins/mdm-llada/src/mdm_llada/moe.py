"""LLaDA-MoE's published layout (arXiv:2509.24389): its config keys, as transformers' Qwen3-MoE.

The names of its weights are Qwen3-MoE's already. Keys are those of its configuration class, configuration_lladamoe.py
of inclusionAI/LLaDA-MoE-7B-A1B-Base at 2281a21; what the network does with them was read in modeling_lladamoe of
ZHZisZZ/dllm at ca17675.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.models import (
    Model,
    affixes,
    check_counts,
    check_network,
    end_tokens,
    load_network,
    load_tokenizer,
    mask_token,
    network_sizes,
)
from mdm.protocols import ModelSpec

MASK_TOKEN, MASK = "<|mask|>", 156895
END_OF_TURN, END = "<|role_end|>", 156892  # END is <|endoftext|>

ACCEPTED: dict[str, tuple[Any, ...]] = {
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
    "moe_router_enable_expert_bias": (False, None),
    "moe_router_score_function": ("softmax", None),
    "qk_layernorm": (True,),
    "routed_scaling_factor": (1, None),
    "router_num_group": (None, 0),
    "router_topk_group": (None, 0),
}
"""Config keys, beside the common ones, that select code, and the values that are Qwen3-MoE's."""

SIZES = ("expert_intermediate_size", "num_experts", "num_experts_per_tok")

CHAT = (
    "<role>SYSTEM</role>{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n{% endif %}"
    "detailed thinking off<|role_end|>{% for m in messages %}{% if m['role'] != 'system' %}"
    "<role>{{ 'ASSISTANT' if m['role'] == 'assistant' else 'HUMAN' }}</role>{{ m['content'] }}<|role_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)
"""How inclusionAI's dInfer asks the model, for a checkpoint that carries no template."""


def as_qwen(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Qwen3MoeConfig`` that a LLaDA-MoE config.json amounts to; only keys known here are taken.

    Raises:
        MdmError: a key is missing, or asks for what Qwen3-MoE does not do.
    """
    check_network(config, source, ACCEPTED, heeded=(*SIZES, "moe_layer_freq", "norm_topk_prob"))
    frequency = config.get("moe_layer_freq")
    if any(every != 1 for every in (frequency if isinstance(frequency, list) else [frequency]) if every is not None):
        raise MdmError(f"{source}: config key 'moe_layer_freq' is {frequency!r}, and this family runs only experts")
    if (lacking := next((key for key in SIZES if not config.get(key)), None)) is not None:
        raise MdmError(f"{source}: config.json lacks the key {lacking!r} of a LLaDA-MoE checkpoint")
    if (chosen := config["num_experts_per_tok"]) > config["num_experts"]:
        raise MdmError(f"{source}: config key 'num_experts_per_tok' is {chosen}, of {config['num_experts']} experts")
    # No layer has the dense width; the published network has it all the same.
    dense = config.get("dense_intermediate_size") or config["expert_intermediate_size"]
    own = {**config, "intermediate_size": dense, "rms_norm_eps": config.get("rms_norm_eps") or 1e-5}
    return network_sizes(own, source, rope=50000.0) | {
        "use_sliding_window": False,
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "attention_bias": config.get("attention_bias", False),
        "moe_intermediate_size": config["expert_intermediate_size"],
        "num_experts": config["num_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        # The published network never reads the key of this name: its experts' weights are never made to sum to one.
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def load(family: str, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
    """A LLaDA-MoE checkpoint on Qwen3-MoE. ``options`` go to ``load_network``.

    Raises:
        MdmError: a config key that is missing or cannot be honoured, a weight that does not fit.
    """
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    qwen = Qwen3MoeConfig(**as_qwen(config, source))
    check_counts(Path(source), config, {"num_hidden_layers": "layers", "num_experts": "experts"})
    tokenizer = load_tokenizer(source)
    published = qwen.vocab_size > MASK  # then it is the published vocabulary
    ends = end_tokens(config, source, qwen.vocab_size, tokenizer, [END_OF_TURN])
    spec = ModelSpec(
        family=family,
        vocab_size=qwen.vocab_size,
        mask_id=mask_token(config, source, tokenizer, MASK_TOKEN, published=MASK if published else None),
        eos_ids=ends or ((END,) if published else ()),
        pad_id=config.get("pad_token_id"),
        prefix=affixes(tokenizer)[0],
        prompt_style=config.get("prompt_style", "chat"),
    )
    network = load_network(Qwen3MoeForCausalLM, source, qwen, device=device, dtype=dtype, **options)
    return Model(spec, network.model, network.lm_head, tokenizer, name=source, chat_template=CHAT)
