"""Prophet (arXiv:2508.19982): stop as soon as the answer is known.

Low-confidence decoding by the schedule, and before each commit a look at the region that holds the answer: where the
likeliest tokens there lead the second likeliest by enough, all masks become their likeliest tokens at once. What is
enough falls as the decode goes on.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, top_k
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


class ProphetOptions(NoOptions):
    answer_start: int | None = Field(
        None, ge=0, description="where the region begins that is looked at, in the generation; none: all of it"
    )
    answer_length: int = Field(5, ge=1, description="positions of the region, from answer_start on")
    early: float = Field(7.5, ge=0, description="mean lead that ends the first third of the planned steps (nats)")
    mid: float = Field(5.0, ge=0, description="the same for the second third")
    late: float = Field(2.5, ge=0, description="the same for the last third")

    @model_validator(mode="after")
    def _a_length_has_a_start(self) -> ProphetOptions:
        if self.answer_start is None and self.answer_length != type(self).model_fields["answer_length"].default:
            raise ValueError("answer_length changes nothing without answer_start")
        return self


class Prophet(BaseSampler):
    """Commits the k most confident masks of the block, until the answer is sure; then all that is left, at once.

    The lead of a position is ln(p of the likeliest token / p of the second likeliest), masked or not; thirds begin at
    0.33 and 0.67 of the steps that are planned for all blocks. Under a cache, the lead is that of the positions which
    the step's forward computes, and what is committed at once are the masks among them.
    """

    Options: ClassVar[type[BaseModel]] = ProphetOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    sees: ClassVar[Literal["block", "canvas"]] = "canvas"
    reads: ClassVar[Literal["masked", "generated", "left-out"]] = "generated"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        masked = scores.valid & state.masked.gather(1, scores.positions)
        in_block = masked & state.in_block.gather(1, scores.positions)
        scheduled = top_k(scores.log_odds, in_block, state.budget)
        sure = self._lead(state, scores) >= self._enough(state)
        return Commit(torch.where(sure[:, None], masked, scheduled), scores.token)

    def _lead(self, state: State, scores: Scores) -> Tensor:
        """float32 ``[B]``: the mean lead over the region, in nats; nan where nothing of it is scored."""
        region = scores.valid
        if self.options.answer_start is not None:
            place = scores.positions - state.prompt_length[:, None] - self.options.answer_start
            region = region & (place >= 0) & (place < self.options.answer_length)
        lead = -scores.runner_up_odds.clamp_min(TINY).log()
        return lead.where(region, 0.0).sum(-1) / region.sum(-1)

    def _enough(self, state: State) -> Tensor:
        """float32 ``[B]``: the lead that ends the decode at this step, of as many in each block as in this one."""
        block = state.blocks.clamp(0, state.starts.shape[1] - 1)
        size = torch.zeros_like(state.starts).scatter_add(1, block, state.targets.long())
        progress = (state.step + 1) / (state.planned * (size > 0).sum(-1))
        options = self.options
        late = torch.where(progress < 0.67, options.mid, options.late)
        return torch.where(progress < 0.33, options.early, late)
