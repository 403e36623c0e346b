"""MMaDA's canvases around a picture, and the special tokens that they are made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mdm.errors import MdmError, MdmWarning, suggest

MAX_TEXT_LENGTH = 512
"""Tokens of a picture's description, with those around it, that the published models were trained with."""

CONFIG_KEY = "special_token_ids"
"""The key of a config.json by which a checkpoint with another vocabulary names its special tokens."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that MMaDA gives a meaning. They are fixed numbers: its tokenizer calls most of them reserved."""

    start_of_text: int = 126080
    end_of_text: int = 126081
    start_of_image: int = 126084
    end_of_image: int = 126085
    text_to_image: int = 126088
    understand_image: int = 126089

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str) -> SpecialTokens:
        """The published ids, or those that a config.json names by their published names, such as ``<|t2i|>``.

        Raises:
            MdmError: a name is unknown, or an id is no number of a token.
        """
        given = config.get(CONFIG_KEY) or {}
        if not isinstance(given, Mapping):
            raise MdmError(f"{source}: config key {CONFIG_KEY!r} is no mapping from names of tokens to their ids")
        for name, token in given.items():
            if name not in NAMES:
                raise MdmError(
                    f"{source}: config key {CONFIG_KEY!r} names {name!r}.{suggest(name, NAMES)} "
                    f"There are: {', '.join(NAMES)}"
                )
            if not isinstance(token, int) or isinstance(token, bool) or token < 0:
                raise MdmError(f"{source}: config key {CONFIG_KEY!r}: {name} is {token!r}, which is no id of a token")
        return cls(**{NAMES[name]: token for name, token in given.items()})

    def checked(self, end: int, mask_id: int, source: str) -> SpecialTokens:
        """The same, as ids of a text vocabulary that ends at ``end``.

        Raises:
            MdmError: one lies behind it, is the mask, or is another one too.
        """
        seen = {mask_id: "the mask"}
        for name, field in NAMES.items():
            token = getattr(self, field)
            if token in seen:
                raise MdmError(f"{source}: the token {name} is {token}, and so is {seen[token]} ({CONFIG_KEY})")
            seen[token] = name
        for name, field in NAMES.items():
            if (token := getattr(self, field)) >= end:
                raise MdmError(
                    f"{source}: the token {name} is {token}, and the text ends at {end}: name the right one in "
                    f"config.json ({CONFIG_KEY})"
                )
        return self


NAMES = dict(
    zip(
        ("<|startoftext|>", "<|endoftext|>", "<|soi|>", "<|eoi|>", "<|t2i|>", "<|mmu|>"),
        (field.name for field in fields(SpecialTokens)),
        strict=True,
    )
)
"""The published names."""


def text_to_image(text: Sequence[int], special: SpecialTokens, max_text_length: int = MAX_TEXT_LENGTH) -> list[int]:
    """What stands before a picture's codes: ``<|t2i|> BOS text EOS <|soi|>``, without the published padding.

    A text that is too long is cut, as published, so that ``<|t2i|> BOS text EOS`` has ``max_text_length`` + 1 ids; a
    warning says so. Nothing is lost by leaving the padding out: no token sees it, and positions are relative.
    """
    begun = list(text) if text and text[0] == special.start_of_text else [special.start_of_text, *text]
    head = [special.text_to_image, *begun, special.end_of_text]
    if (surplus := len(head) - (max_text_length + 1)) > 0:
        warnings.warn(
            f"the description of a picture has {surplus} tokens more than the model was trained with: its end is cut",
            MdmWarning,
            stacklevel=2,
        )
        head = [*head[:max_text_length], special.end_of_text]
    return [*head, special.start_of_image]


def image_first(tokens: Sequence[int], chat: Sequence[int], special: SpecialTokens) -> list[int]:
    """What is asked of a picture, given as ``tokens``: ``<|mmu|> <|soi|> tokens <|eoi|>`` and the chat."""
    return [special.understand_image, special.start_of_image, *tokens, special.end_of_image, *chat]
