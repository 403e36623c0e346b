"""Which token is the mask, where config.json need not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.errors import MdmError
from mdm.models import check_mask


def mask_id(config: Mapping[str, Any], source: str, tokenizer: Any, name: str, published: int | None) -> int:
    """The mask token: the tokenizer's ``name``, else config.json's ``mask_token_id``, else the ``published`` id.

    Args:
        published: the id in the published model, where its vocabulary is this one.

    Raises:
        MdmError: nothing names the mask, two name others, or the network has no such token.
    """
    said = config.get("mask_token_id")
    known = None if tokenizer is None else tokenizer.get_vocab().get(name)
    if known is not None and said is not None and known != said:
        raise MdmError(f"{source}: config key 'mask_token_id' is {said}, and the tokenizer's {name} is {known}")
    mask: int | None = next((i for i in (known, said, published) if i is not None), None)
    if mask is None:
        raise MdmError(f"{source}: neither a token {name} nor config.json's 'mask_token_id' names the mask")
    check_mask(mask, config["vocab_size"], tokenizer, source)
    return mask
