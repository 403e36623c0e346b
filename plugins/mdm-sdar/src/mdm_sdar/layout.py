"""SDAR's published layouts, which are Qwen3's and Qwen3-MoE's: config keys and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.models import check_counts, check_network, network_sizes

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's chat template, for a checkpoint that carries none: no system turn unless one is given."""

SPARSE: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
}
"""Keys with which a mixture of experts selects code, beside the common ones, and the values that were compared."""

SIZES = ("moe_intermediate_size", "num_experts", "num_experts_per_tok")


def is_sparse(config: Mapping[str, Any]) -> bool:
    """Whether it is a mixture of experts, such as SDAR-30B-A3B."""
    return config.get("model_type") == "sdar_moe" or "SDARMoeForCausalLM" in (config.get("architectures") or ())


def as_qwen(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Qwen3Config``, or of a mixture's ``Qwen3MoeConfig``, that an SDAR config.json amounts to.

    Keys not known here are left out. They may select code of their own: SDAR's names an attention kernel that aborts on
    a CPU.

    Raises:
        MdmError: a key is missing, or asks for what Qwen3 does not do.
    """
    if sparse := is_sparse(config):
        check_network(config, source, SPARSE, heeded=(*SIZES, "norm_topk_prob"))
    else:
        check_network(config, source)
    return network_sizes(config, source) | (_experts(config, source) if sparse else {}) | {
        "use_sliding_window": False,
        "attention_bias": config.get("attention_bias", False),
    }  # fmt: skip


def _experts(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    if (lacking := next((key for key in SIZES if not config.get(key)), None)) is not None:
        raise MdmError(f"{source}: config.json lacks the key {lacking!r} of a mixture of experts")
    if (chosen := config["num_experts_per_tok"]) > config["num_experts"]:
        raise MdmError(f"{source}: config key 'num_experts_per_tok' is {chosen}, of {config['num_experts']} experts")
    check_counts(Path(source), config, {"num_hidden_layers": "layers", "num_experts": "experts"})
    routing = {"norm_topk_prob": bool(config.get("norm_topk_prob")), "decoder_sparse_step": 1, "mlp_only_layers": []}
    return {key: config[key] for key in SIZES} | routing
