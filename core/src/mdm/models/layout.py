"""Layouts: what a prompt becomes on a model's canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PromptForm = Literal["raw", "ids", "chat", "image"]
"""How a prompt was given: as text, as token ids, as chat messages, or as what a picture is to show."""


@dataclass(frozen=True)
class Layout:
    """A prompt on a model's canvas: ids that may hold masks, masks behind them, and what stands behind these."""

    tokens: Sequence[int]
    form: PromptForm = "ids"
    context: int = 0
    """how many of ``tokens`` the model is only shown; the answer begins behind them"""
    gen_length: int | None = None
    """masks behind ``tokens``; None: the caller decides"""
    suffix: Sequence[int] | None = None
    """visible ids behind all masks; None: the caller decides"""
    unconditional: Sequence[int] | None = None
    """what guidance compares with, in the place of ``tokens`` and ending where they end; None: ``tokens`` masked"""
    grid: tuple[int, int] | None = None
    """rows and columns of a picture, whose codes are the last ids of ``tokens``, if they are there, and all masks"""
