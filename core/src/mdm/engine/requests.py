"""Prompts as the engine gets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One prompt to decode: ids that may hold masks, and how many masks follow them."""

    index: int
    tokens: Sequence[int]
    gen_length: int
    row_id: int
    suffix: Sequence[int] = ()
    """visible tokens behind all masks"""
