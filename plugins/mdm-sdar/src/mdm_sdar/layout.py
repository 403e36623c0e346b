"""SDAR's published layout, which is Qwen3's: config keys and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.models import check_network, network_sizes

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's chat template, for a checkpoint that carries none: no system turn unless one is given."""


def as_qwen(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Qwen3Config`` that an SDAR config.json amounts to; keys not known here are left out.

    They may select code of their own: SDAR's names an attention kernel that aborts on a CPU.

    Raises:
        MdmError: a key is missing, or asks for what Qwen3 does not do.
    """
    check_network(config, source)
    return network_sizes(config, source) | {
        "use_sliding_window": False,
        "head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        "attention_bias": config.get("attention_bias", False),
    }
