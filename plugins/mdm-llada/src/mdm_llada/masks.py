"""Which token is the mask, where config.json need not say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.errors import MdmError
from mdm.models import check_mask


def mask_id(
    config: Mapping[str, Any], source: str, vocabulary: int, tokenizer: Any, name: str, published: int
) -> int:
    """The mask token: the tokenizer's ``name``, else config.json's ``mask_token_id``, else the ``published`` id.

    Raises:
        MdmError: the tokenizer and config.json do not agree, or the network has no such token.
    """
    said = config.get("mask_token_id")
    known = None if tokenizer is None else tokenizer.get_vocab().get(name)
    if known is not None and said is not None and known != said:
        raise MdmError(f"{source}: config key 'mask_token_id' is {said}, and the tokenizer's {name} is {known}")
    if known is None and said is None and published >= vocabulary:
        raise MdmError(
            f"{source}: nothing names the mask: config.json has no 'mask_token_id', there is no token {name}, and the "
            f"published model's {published} is behind the vocabulary of {vocabulary}"
        )
    mask: int = next(i for i in (known, said, published) if i is not None)
    check_mask(mask, vocabulary, tokenizer, source)
    return mask
