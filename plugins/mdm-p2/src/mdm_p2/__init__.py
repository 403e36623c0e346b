"""P2 (path planning, arXiv:2502.03540), with the model as its own planner.

After each step so many positions of the answer hold a token as the schedule has it by then: those of the best score,
whether they were masks before or not. All others are masks, also those that held a token.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, top_k
from pydantic import BaseModel, Field
from torch.nn.functional import logsigmoid

TINY = torch.finfo(torch.float32).tiny  # the smallest number that a logarithm is taken of


class P2Options(NoOptions):
    eta: float = Field(1.0, ge=0, le=1000, description="factor of a committed position's log p; 0 takes nothing back")
    committed: Literal["likeliest", "held"] = Field(
        "likeliest", description="whose log p that is: its likeliest token's, or the one's that stands there"
    )


class P2(BaseSampler):
    """Keeps the positions with the largest log p, that of committed ones times eta, and masks all others.

    How many it keeps grows by the k of the schedule in each step; with the ``even`` one this is kappa(t) = t, as
    published. Masks that are kept get their likeliest token (or the drawn one); committed ones stay as they are. Blocks
    are ignored; on a block-causal model the canvas is the grid's block.
    """

    Options: ClassVar[type[BaseModel]] = P2Options
    works_on: ClassVar[Literal["block", "canvas"]] = "canvas"
    reads: ClassVar[Literal["masked", "generated"]] = "generated"
    pace: ClassVar[Literal["schedule", "own"]] = "own"  # it commits more than k where it takes others back

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        assert scores.held is not None
        masked = scores.valid & state.masked.gather(1, scores.positions)
        log_p = logsigmoid(scores.log_odds)  # keeps the resolution that p has lost near certainty
        planned = log_p if self.options.committed == "likeliest" else scores.held.clamp_min(TINY).log()
        key = torch.where(masked, log_p, self.options.eta * planned)
        kept = top_k(key, scores.valid, (scores.valid & ~masked).sum(1) + state.budget)
        return Commit(scores.valid & (kept == masked), scores.token.masked_fill(~kept, state.mask_id))
