"""Token editing: the joint threshold of LLaDA2.1 (arXiv:2602.08676).

Every step commits the masks of the block whose likeliest token has a probability above ``threshold``, and in the same
step replaces tokens that it committed before, where another one has a probability above ``edit_threshold``. A block
without masks is edited on until a step changes nothing, or ``max_post_steps`` steps have been spent on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class JointThresholdOptions(NoOptions):
    threshold: float = Field(0.7, ge=0, le=1, description="probability above which a mask is committed")
    edit_threshold: float = Field(
        0.5, ge=0, le=1, description="probability above which another token replaces a committed one; 1: none ever does"
    )
    max_post_steps: int = Field(16, ge=0, le=100, description="steps spent on a block after its last mask, at most")
    min_tokens: int = Field(1, ge=1, description="masks that a step commits at least, the most confident ones")


@dataclass(frozen=True)
class Editing(Rowwise):
    """What each row has done since the last mask of its block."""

    post: Tensor
    """int64 ``[B]``: steps that began without a mask"""
    settled: Tensor
    """bool ``[B]``: the last of them changed nothing"""


class JointThreshold(BaseSampler):
    """Commits the masks of the block with conf > threshold, and replaces committed tokens where conf > edit_threshold.

    conf is that of the likeliest token, which for an edit is another one than stands there; with a temperature, of the
    token that was drawn. A step commits at least the ``min_tokens`` most confident masks; the schedule is ignored. Only
    tokens of the answer are edited, in the block that the row works on, and what a step commits from the next one on.
    Published settings of LLaDA2.1: 0.7 and 0.5 (quality, the default here), 0.5 and 0.0 (speed).
    """

    Options: ClassVar[type[BaseModel]] = JointThresholdOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    reads: ClassVar[Literal["masked", "generated"]] = "generated"

    def begin(self, state: State) -> Editing:
        return Editing(torch.zeros_like(state.step), torch.zeros_like(state.entered_block))

    def decide(self, state: State, scores: Scores, memory: Editing, draws: Draws) -> Commit:
        options = self.options
        masked = scores.valid & state.masked.gather(1, scores.positions)
        sure = masked & (scores.confidence > options.threshold)
        least = top_k(scores.log_odds, masked, torch.full_like(state.step, options.min_tokens))
        other = scores.token != state.tokens.gather(1, scores.positions)
        edits = scores.valid & ~masked & other & (scores.confidence > options.edit_threshold)
        finishing = ~masked.any(1)
        post = memory.post.masked_fill(state.entered_block, 0) + finishing
        return Commit(sure | least | edits, scores.token, memory=Editing(post, finishing & ~edits.any(1)))

    def lingers(self, state: State, memory: Editing) -> Tensor:
        return ~memory.settled & (memory.post < self.options.max_post_steps)
