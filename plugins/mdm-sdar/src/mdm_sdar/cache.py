"""The block cache: on a block-causal model finished blocks never change, so keeping their keys and values is exact."""

from __future__ import annotations

from typing import ClassVar

import torch
from mdm.protocols import Attention, BaseCache, ModelSpec, Plan, State


class Block(BaseCache):
    """Runs the current block only.

    When a row enters a block, one forward runs the block it comes from as well (the whole prompt, when it begins) and
    keeps what is finished: the keys and values of a block are those of its final tokens.
    """

    attention: ClassVar[Attention | None] = "block-causal"

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        before = state.blocks < state.block[:, None]
        # Blocks without a mask are skipped: the last one that was entered is the last with a mask, or the prompt.
        previous = torch.where(state.targets & before, state.blocks, -1).amax(1, keepdim=True)
        new = before & (state.blocks >= previous) & state.entered_block[:, None]
        return Plan(query=new | state.in_block, write=new, window=state.in_block)
