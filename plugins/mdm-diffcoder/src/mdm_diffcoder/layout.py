"""Stable-DiffCoder's published config keys, which are Llama's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.models import check_network, network_sizes


def as_llama(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments of ``LlamaConfig`` that a Stable-DiffCoder config.json amounts to; other keys are left out.

    Raises:
        MdmError: a key is missing, or asks for what is not published of the family.
    """
    check_network(config, source, {"attention_bias": (False, None)})
    return network_sizes(config, source, rope=500000.0)
