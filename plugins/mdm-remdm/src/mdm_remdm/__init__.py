"""ReMDM (arXiv:2503.00307): masked diffusion that re-masks tokens it has committed.

The loop variant: fill a share of the canvas, then for some rounds re-mask the committed tokens that the model, seeing
the canvas as it is now, finds least probable, and decode as many anew; then fill the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class ReMDMOptions(NoOptions):
    init_unmask_ratio: float = Field(0.875, ge=0, le=1, description="share of the canvas that is filled first")
    unmask_k: int = Field(1, ge=1, description="tokens committed, or taken back, in one step")
    loop_steps: int = Field(8, ge=0, le=1000, description="rounds of taking back and decoding anew, two forwards each")


@dataclass(frozen=True)
class Rounds(Rowwise):
    """How many rounds each row has had."""

    turn: Tensor
    """int64 ``[B]``: half rounds; after an even number of them tokens are taken back, after an odd one decoded anew"""


class ReMDM(BaseSampler):
    """Fills a share of the canvas, then takes back and decodes anew for some rounds, then fills the rest.

    Tokens are committed most confident first, and taken back least probable first. The schedule and blocks are ignored;
    on a block-causal model the canvas is the grid's block, each with rounds of its own.
    """

    Options: ClassVar[type[BaseModel]] = ReMDMOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    works_on: ClassVar[Literal["block", "canvas"]] = "canvas"
    reads: ClassVar[Literal["masked", "generated"]] = "generated"

    def begin(self, state: State) -> Rounds:
        return Rounds(torch.zeros_like(state.step))

    def decide(self, state: State, scores: Scores, memory: Rounds, draws: Draws) -> Commit:
        options = self.options
        assert scores.held is not None
        masked = scores.valid & state.masked.gather(1, scores.positions)
        size, filled = scores.valid.sum(-1), (scores.valid & ~masked).sum(-1)
        missing = (size * options.init_unmask_ratio).long() - filled
        turn = torch.where(state.entered_block, 0, memory.turn)
        filling = (turn == 0) & (missing > 0)
        turn = turn + (~filling & (turn % 2 == 0) & (filled == 0))  # nothing is there to be taken back
        looping = ~filling & (turn < 2 * options.loop_steps)
        back = (looping & (turn % 2 == 0))[:, None]
        count = torch.full_like(size, options.unmask_k)
        removed = top_k(-scores.held, scores.valid & ~masked, count)
        filled_now = top_k(scores.log_odds, masked, torch.where(filling, count.minimum(missing), count))
        return Commit(
            where=torch.where(back, removed, filled_now),
            tokens=scores.token.masked_fill(back, state.mask_id),
            memory=Rounds(turn + looping),
        )

    def finished(self, state: State, memory: Rounds) -> Tensor:
        return ~state.masked.any(-1) & (memory.turn >= 2 * self.options.loop_steps)
