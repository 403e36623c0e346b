"""Prefix and dual caches (Fast-dLLM, arXiv:2505.22618): what is recomputed inside a block.

Both refresh with a full forward when a row enters a block, and use that forward's own scores. On full-attention
models both are approximate: kept keys and values are those of the block's start.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mdm.protocols import ModelSpec, NoOptions
from mdm.state import Plan, State
from pydantic import BaseModel, Field
from torch import Tensor


class KVOptions(NoOptions):
    """How long kept keys and values are used."""

    refresh: int | None = Field(None, ge=1, description="also refresh after this many steps inside a block")


class _BlockCache:
    Options: ClassVar[type[BaseModel]] = KVOptions
    uses_kv: ClassVar[bool] = True

    def __init__(self, options: Any) -> None:
        self.options = options

    def window(self, state: State) -> Tensor:
        """bool ``[B, L]``: the positions recomputed inside a block."""
        raise AssertionError(f"{type(self).__name__} defines no window")

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        window = self.window(state)
        refresh = state.entered
        if self.options.refresh:
            refresh = refresh | (state.block_step % self.options.refresh == 0)
        whole = refresh[:, None]
        return Plan(query=(state.real & whole) | (window & ~whole), write=state.real & whole, window=window)


class Prefix(_BlockCache):
    """Keeps the keys and values before the block; recomputes from the block's start to the canvas's end."""

    def window(self, state: State) -> Tensor:
        return state.real & (state.positions >= state.span[:, :1])


class Dual(_BlockCache):
    """Keeps the keys and values before and behind the block; recomputes the block only."""

    def window(self, state: State) -> Tensor:
        return state.in_span
