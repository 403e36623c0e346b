"""Saber (arXiv:2510.18165): adaptive speed, and backtracking.

A step commits what the model is surer of than it was, on average, of the tokens committed so far; so it speeds up where
the answer becomes clear. In the same step it takes back the tokens whose confidence has fallen most since the step
before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor

ONE = 1 << 30
"""The confidence 1 as an integer: sums of integers are the same in any order, and so in any batch."""


class SaberOptions(NoOptions):
    n: int = Field(2, ge=1, le=4096, description="tokens that a step commits at least, where so many masks are left")


@dataclass(frozen=True)
class Confidences(Rowwise):
    """What the model said of each position of the canvas."""

    last: Tensor
    """float32 ``[B, L]``: the confidence when it was last scored; 0 where it never was"""
    committed: Tensor
    """int64 ``[B, L]``: the confidence when it was last committed, in parts of ``ONE``; 0 where it never was"""


class Saber(BaseSampler):
    """Commits the masks of the block with conf > tau, at least the n most confident, and takes others back.

    tau is the mean confidence with which the tokens of this and earlier blocks were committed, of those that were taken
    back too; 1 before the first. Unless no mask is left, the b tokens of the block whose position has lost most
    confidence since the step before are masked again, with b = max(n / 2 rounded down, f / 8 rounded up), at most f -
    1, where f is the number of masks with conf > tau, or n if that is more. The confidence of a position is that of its
    likeliest token, whichever stands there. The schedule is ignored. Published with one block of the whole answer.
    """

    Options: ClassVar[type[BaseModel]] = SaberOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    reads: ClassVar[Literal["masked", "generated"]] = "generated"

    def begin(self, state: State) -> Confidences:
        return Confidences(torch.zeros(state.tokens.shape, device=state.device), torch.zeros_like(state.tokens))

    def decide(self, state: State, scores: Scores, memory: Confidences, draws: Draws) -> Commit:
        n, confidence = self.options.n, scores.confidence
        masked = scores.valid & state.masked.gather(1, scores.positions)
        parts = (confidence * ONE).round().long()
        count, total = (memory.committed > 0).sum(1, keepdim=True), memory.committed.sum(1, keepdim=True)
        sure = masked & (parts * count > total)  # the mean, without a division; none where there is no mean
        passing = sure.sum(1)
        least = top_k(scores.log_odds, masked, torch.full_like(passing, n))
        commits = torch.where((passing >= n)[:, None], sure, least)
        f = passing.clamp_min(n)
        b = ((f + 7) // 8).clamp_min(n // 2).minimum(f - 1) * (masked & ~commits).any(1)
        lost = memory.last.gather(1, scores.positions) - confidence
        back = top_k(lost, scores.valid & (commits | ~masked), b)
        return Commit(
            where=commits | back,
            tokens=scores.token.masked_fill(back, state.mask_id),
            memory=Confidences(
                last=_put(memory.last, scores.positions, scores.valid, confidence),
                committed=_put(memory.committed, scores.positions, commits, parts.clamp_min(1)),
            ),
        )


def _put(canvas: Tensor, positions: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """``canvas`` ``[B, L]`` with ``values`` at ``positions`` where ``where``, all ``[B, K]``."""
    length = canvas.shape[1]
    spare = torch.cat([canvas, canvas[:, :1]], 1)  # of what is not written
    return spare.scatter(1, positions.masked_fill(~where, length), values)[:, :length]
