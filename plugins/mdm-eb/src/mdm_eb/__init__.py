"""EB-Sampler (arXiv:2505.24857): commit as many tokens as an entropy bound allows.

With masks sorted by entropy H, committing a set together instead of one by one errs by at most sum(H) - max(H) (a bound
on its mutual information, in nats). EB commits the longest prefix that keeps this within gamma.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, ranks
from pydantic import BaseModel, Field


class EBOptions(NoOptions):
    gamma: float = Field(0.1, ge=0, description="bound on sum(H) - max(H) of the tokens committed together (nats)")


class EB(BaseSampler):
    """Over the whole canvas, the longest prefix by entropy with sum(H) - max(H) <= gamma, at least one mask.

    Blocks and the schedule are ignored; on a block-causal model the canvas is the grid's block.
    """

    Options: ClassVar[type[BaseModel]] = EBOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    works_on: ClassVar[Literal["block", "canvas"]] = "canvas"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        place = ranks(-scores.entropy, scores.valid)
        entropy = scores.entropy.where(scores.valid, 0.0)
        # In sorted order the largest entropy of a prefix is its last: what counts is the sum of those before it.
        in_order = entropy.new_zeros(entropy.shape).scatter(1, place, entropy)
        ahead = in_order.cumsum(1) - in_order
        return Commit(scores.valid & (ahead.gather(1, place) <= self.options.gamma), scores.token)
