"""Fast-dLLM v2's decoding of a block by sub-blocks (arXiv:2509.26328, section 3.3 and the published ``generate``)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, ranks
from pydantic import BaseModel, Field


class SubBlockOptions(NoOptions):
    threshold: float = Field(0.9, ge=0, le=1, description="probability above which tokens are committed together")
    sub_block: int = Field(8, ge=1, le=4096, description="tokens of a sub-block, counted from the block's first")


class SubBlocks(BaseSampler):
    """Finishes the sub-blocks of a block from left to right, while the model sees the whole block.

    A step commits the masks of the leftmost unfinished sub-block with conf > threshold, and always the most confident
    one of it; the schedule is ignored. Where logits are shifted, a block's first position is read before the block:
    while it is a mask it is committed first, alone. (The published code takes its argmax even at a temperature.)
    """

    Options: ClassVar[type[BaseModel]] = SubBlockOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        at = scores.positions - state.block_bounds[:, :1]
        number = torch.where(scores.valid, at // self.options.sub_block, torch.iinfo(torch.int64).max)
        current = scores.valid & (number == number.amin(-1, keepdim=True))
        best = current & (ranks(scores.log_odds, current) == 0)
        where = best | (current & (scores.confidence > self.options.threshold))
        if state.shift:
            first = scores.valid & (at == 0)
            where = torch.where(first.any(-1, keepdim=True), first, where)
        return Commit(where, scores.token)
