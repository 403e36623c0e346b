"""LocalLeap (arXiv:2510.07081): tokens beside an anchor are committed at a lower confidence than elsewhere.

Of the k most confident masks, which the schedule commits, those that the model is sure of are anchors. What lies near
one of them is committed in the same step if it passes a second, lower threshold.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn.functional import pad


class LocalLeapOptions(NoOptions):
    anchor_threshold: float = Field(
        0.9, ge=0, le=1, description="probability from which a token that the schedule commits is an anchor"
    )
    neighbor_threshold: float = Field(
        0.75, ge=0, le=1, description="probability from which a token near an anchor is committed"
    )
    radius: int = Field(4, ge=0, le=4096, description="how many places from an anchor are near it, to either side")


class LocalLeap(BaseSampler):
    """Commits the k most confident masks of the block, and masks near a sure one of them with a lower confidence.

    k is from the schedule. Those of the k with conf >= anchor_threshold are anchors; masks of the block within
    ``radius`` places of one, with conf >= neighbor_threshold, are committed with them. The defaults are those published
    for LLaDA; for LLaDA-1.5 it is an anchor_threshold of 0.5.
    """

    Options: ClassVar[type[BaseModel]] = LocalLeapOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        due = top_k(scores.log_odds, scores.valid, state.budget)
        anchors = due & (scores.confidence >= self.options.anchor_threshold)
        near = _near(anchors, scores.positions, self.options.radius, state.tokens.shape[1])
        leaps = scores.valid & near & (scores.confidence >= self.options.neighbor_threshold)
        return Commit(due | leaps, scores.token)


def _near(marked: Tensor, positions: Tensor, radius: int, length: int) -> Tensor:
    """bool ``[B, K]``: the ``positions`` ``[B, K]`` of a canvas within ``radius`` places of a ``marked`` one."""
    at = positions.masked_fill(~marked, length)
    canvas = positions.new_zeros(len(at), length + 1).scatter(1, at, 1)[:, :length]
    before = pad(canvas.cumsum(1), (1, 0))  # how many are marked before each position
    first, stop = (positions - radius).clamp_min(0), (positions + radius + 1).clamp_max(length)
    return before.gather(1, stop) > before.gather(1, first)
