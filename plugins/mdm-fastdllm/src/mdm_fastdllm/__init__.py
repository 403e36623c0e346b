"""Samplers that commit as many tokens as the model is sure of, instead of a fixed number.

Fast-dLLM's threshold and factor (arXiv:2505.22618, section 3.3), Fast-dLLM v2's sub-blocks (arXiv:2509.26328), and the
static and dynamic low-confidence remasking of SDAR (arXiv:2510.06303), which TraDo shares.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, ranks, top_k
from pydantic import BaseModel, Field


class ThresholdOptions(NoOptions):
    threshold: float = Field(0.9, ge=0, le=1, description="probability from which a token is committed")


class FactorOptions(NoOptions):
    factor: float = Field(1.0, gt=0, description="f: the n-th most confident token needs 1 - f / (n + 1)")
    accept_last: bool = Field(
        False, description="also commit the first token that misses its bound where it is the block's last"
    )


class DynamicOptions(NoOptions):
    threshold: float = Field(0.85, ge=0, le=1, description="probability above which tokens are committed together")


class Threshold(BaseSampler):
    """Commits all masks of the block with conf >= threshold, and at least the most confident one.

    The schedule is ignored.
    """

    Options: ClassVar[type[BaseModel]] = ThresholdOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        sure = scores.valid & (scores.confidence >= self.options.threshold)
        best = scores.valid & (ranks(scores.log_odds, scores.valid) == 0)
        return Commit(sure | best, scores.token)


class Factor(BaseSampler):
    """Commits the n most confident masks of the block, n the largest with conf_(n) >= 1 - factor / (n + 1) up to it.

    At least one; the schedule is ignored. With f = 1 this is where committing them together and one by one provably
    agree (Fast-dLLM, theorem 1).
    """

    Options: ClassVar[type[BaseModel]] = FactorOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        place = ranks(scores.log_odds, scores.valid)
        enough = scores.confidence >= 1 - self.options.factor / (place + 2)
        misses = scores.valid & ~enough & (place > 0)
        masks = scores.valid.sum(-1)
        first = place.where(misses, masks[:, None]).amin(-1)
        if self.options.accept_last:
            first = torch.where(first == masks - 1, masks, first)
        return Commit(scores.valid & (place < first[:, None]), scores.token)


class SdarStatic(BaseSampler):
    """Commits the k most confident masks of the block, k from a schedule over the block's size.

    On a grid a first block that holds the prompt's tail thus ends early, instead of committing fewer tokens a step.
    """

    budgets: ClassVar[Literal["masks", "size"]] = "size"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)


class SdarDynamic(SdarStatic):
    """Commits all masks of the block with conf > threshold if at least the scheduled k, else as ``sdar-static``."""

    Options: ClassVar[type[BaseModel]] = DynamicOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        sure = scores.valid & (scores.confidence > self.options.threshold)
        plain = top_k(scores.log_odds, scores.valid, state.budget)
        return Commit(torch.where((sure.sum(-1) >= state.budget)[:, None], sure, plain), scores.token)
