"""Fast-dLLM v2's published layout, which is Qwen2's: config keys, the mask token and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.models import check_network, network_sizes

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
    "helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5's chat template, for a checkpoint that carries none."""
END_OF_TURN = "<|im_end|>"
MASK_TOKEN, MASK_ID = "|<MASK>|", 151665
"""The mask token, and its id in the published ``generate``, for a checkpoint without a tokenizer."""


def as_qwen(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``Qwen2Config`` that a Fast-dLLM v2 config.json amounts to; keys not known here are left out.

    Raises:
        MdmError: a key is missing, or asks for what Qwen2 does not do.
    """
    check_network(config, source)
    return network_sizes(config, source) | {"use_sliding_window": False}
