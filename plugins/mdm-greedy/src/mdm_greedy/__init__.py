"""Samplers that commit the k best-scored masks of the block, k from the schedule.

They differ in the score alone: confidence (LLaDA's low-confidence remasking, arXiv:2502.09992), negative entropy and
margin (Dream, arXiv:2508.15487), noise (LLaDA's random remasking), or the position itself.
"""

from __future__ import annotations

from abc import abstractmethod

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
    """The k most confident: largest p(x̂)."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return scores.log_odds


class Entropy(_Greedy):
    """The k least uncertain: smallest entropy."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return -scores.entropy


class Margin(_Greedy):
    """The k with the largest margin between the two most probable tokens."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return scores.margin_rank


class Random(_Greedy):
    """k at random, keyed by seed, row, step and position."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return draws.uniform("position", scores.positions)


class LeftToRight(_Greedy):
    """The first k."""

    def key(self, scores: Scores, draws: Draws) -> Tensor:
        return -scores.positions.float()
