"""Dream's published layout, which is Qwen2's: config keys and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.errors import MdmError
from mdm.models import check_network, rope_theta

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2's chat template, for a checkpoint that carries none."""
END_OF_TURN = "<|im_end|>"


def as_qwen(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Qwen2Config`` that a Dream config.json amounts to; keys not known here are left out.

    Raises:
        MdmError: a key is missing, or asks for what Qwen2 does not do.
    """
    check_network(config, source)
    try:
        needed = (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        )  # fmt: skip
        sizes = {key: config[key] for key in needed}
    except KeyError as error:
        raise MdmError(f"{source}: config.json lacks the key {error} of a Dream checkpoint") from None
    return sizes | {
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "max_position_embeddings": config.get("max_position_embeddings", 32768),
        "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta(config, 1000000.0)},
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "use_sliding_window": False,
    }
