"""Prefix and dual caches (Fast-dLLM, arXiv:2505.22618): what is recomputed inside a block.

Both refresh with a full forward when a row enters a block, and decide by that forward's scores. On full-attention
models both are approximate, as the kept keys and values are those of the last refresh.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from mdm.protocols import BaseCache, ModelSpec, NoOptions, Plan, State
from pydantic import BaseModel, Field
from torch import Tensor


class KVOptions(NoOptions):
    """When kept keys and values are computed anew."""

    refresh: Annotated[int, Field(ge=1)] | Literal["block", "never"] = Field(
        "block",
        description="full forwards: 'block', one where each block begins; a number, also after so many steps inside a "
        "block; 'never', only the first, and where a block begins the block before it is recomputed beside it",
    )


class _BlockCache(BaseCache):
    Options: ClassVar[type[BaseModel]] = KVOptions

    @abstractmethod
    def window(self, state: State) -> Tensor:
        """bool ``[B, L]``: the positions recomputed inside a block."""
        raise NotImplementedError

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        window, refresh = self.window(state), self.options.refresh
        if refresh == "never":
            # The tokens of the block just left were never run as tokens: what is kept of them are masks.
            begins, due = (state.entered_block & (state.step == 0))[:, None], state.entered_block[:, None]
            anew = torch.where(begins, state.in_canvas, window | _previous_block(state)) & due
        else:
            due = state.entered_block if refresh == "block" else state.entered_block | (state.block_step % refresh == 0)
            due = due[:, None]
            anew = state.in_canvas & due
        return Plan(query=window | anew, write=anew, window=window)


def _previous_block(state: State) -> Tensor:
    """bool ``[B, L]``: the block that holds the last position decoded before the row's current block."""
    before = state.targets & (state.blocks < state.block[:, None])
    previous = torch.where(before, state.blocks, -1).amax(1, keepdim=True)
    return (state.blocks == previous) & (previous >= 0)


class Prefix(_BlockCache):
    """Keeps the keys and values before the block; recomputes from the block's start to the canvas's end."""

    def window(self, state: State) -> Tensor:
        return state.in_canvas & (state.blocks >= state.block[:, None])


class Dual(_BlockCache):
    """Keeps the keys and values before and behind the block; recomputes the block only."""

    def window(self, state: State) -> Tensor:
        return state.in_block
