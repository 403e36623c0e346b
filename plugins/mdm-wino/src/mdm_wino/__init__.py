"""WINO, wide in and narrow out (arXiv:2507.18578).

Wide in: every step commits the masks of the block whose confidence is above ``threshold``: where there are too many,
the most confident 70 % (5 to 20 of them); where there is none, the most confident one. Narrow out: committed tokens of
the block whose probability, given all of the canvas but themselves, has fallen below ``threshold_back`` are masks
again, the least probable first. A step takes back at most what the last one gave, less one: so a block ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor

SHARE, FEWEST, MOST = 70, 5, 20
"""Percent of the block's masks that a step commits at most, and the bounds of that number."""
FIRST_LAST = 30
"""What the step before a block's first is taken to have committed."""


class WINOOptions(NoOptions):
    threshold: float = Field(
        0.6,
        ge=0,
        le=1,
        description="probability above which a mask is committed; published: gsm8k 0.6, math500 and humaneval 0.7, "
        "mbpp 0.8, arc and countdown 0.5",
    )
    threshold_back: float = Field(
        0.9, ge=0, le=1, description="leave-one-out probability below which a committed token is taken back"
    )


@dataclass(frozen=True)
class Last(Rowwise):
    """What the last step of each row's block committed."""

    count: Tensor
    """int64 ``[B]``"""


class WINO(BaseSampler):
    """Commits above ``threshold``, and takes back what falls below ``threshold_back`` once it is left out.

    The schedule is ignored. One forward a step, as wide as the canvas and the block together.
    """

    Options: ClassVar[type[BaseModel]] = WINOOptions
    reads: ClassVar[Literal["masked", "generated", "left-out"]] = "left-out"
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def begin(self, state: State) -> Last:
        return Last(torch.zeros_like(state.step))

    def decide(self, state: State, scores: Scores, memory: Last, draws: Draws) -> Commit:
        assert scores.held is not None
        masked = scores.valid & state.masked.gather(1, scores.positions)
        committed = scores.valid & ~masked
        last = torch.where(state.block_step == 0, FIRST_LAST, memory.count)
        most = (masked.sum(-1) * SHARE // 100).clamp(FEWEST, MOST)
        sure = (masked & (scores.confidence > self.options.threshold)).sum(-1)
        wide = top_k(scores.log_odds, masked, torch.minimum(sure, most).clamp_min(1))
        given = wide.sum(-1)
        doubted = committed & (scores.held < self.options.threshold_back)
        back = torch.minimum(doubted.sum(-1), (last - 1).clamp_min(0)).where(given > 1, 0)
        narrow = top_k(-scores.held, committed, back)
        tokens = torch.where(narrow, state.mask_id, scores.token)
        return Commit(wide | narrow, tokens, memory=Last(given))
