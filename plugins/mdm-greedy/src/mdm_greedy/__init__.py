"""Samplers that commit the k best-scored masks of the block, k from the schedule.

They differ only in the score: confidence (LLaDA's low-confidence remasking, arXiv:2502.09992), negative entropy and
margin (Dream, arXiv:2508.15487), noise (LLaDA's random remasking), the position itself, or confidence with a noise that
falls from step to step (MaskGIT, arXiv:2202.04200), by which MMaDA draws pictures.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from mdm.protocols import BaseSampler, Commit, Draws, Scores, State, top_k
from torch import Tensor


class _Greedy(BaseSampler):
    @abstractmethod
    def key(self, scores: Scores, draws: Draws) -> Tensor:
        """float32 ``[B, K]``: what ranks the masks, larger is better."""
        raise NotImplementedError

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        return Commit(top_k(self.key(scores, draws), scores.valid, state.budget), scores.token)


class Confidence(_Greedy):
    """Commits the k most confident masks: those with the largest p(x̂)."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return scores.log_odds


class Entropy(_Greedy):
    """Commits the k least uncertain masks: those with the smallest entropy."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return -scores.entropy


class Margin(_Greedy):
    """Commits the k masks with the largest margin between their two most probable tokens."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return scores.margin_rank


class Random(_Greedy):
    """Commits k masks at random, keyed by seed, row, step and position."""

    ranks_by_certainty: ClassVar[bool] = False

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return draws.uniform("position", scores.positions)


class LeftToRight(_Greedy):
    """Commits the first k masks."""

    ranks_by_certainty: ClassVar[bool] = False

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return -scores.positions.float()
