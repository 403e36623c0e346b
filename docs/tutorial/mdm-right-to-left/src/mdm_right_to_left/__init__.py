"""Commits the masks of the block from right to left."""

from mdm.protocols import BaseSampler, Commit, NoOptions, top_k
from pydantic import Field


class RightToLeftOptions(NoOptions):
    """How strict the order is."""

    sure: float = Field(1.0, ge=0, le=1, description="confidence above which a mask is committed out of turn")


class RightToLeft(BaseSampler):
    """Commits the last k masks of the block, k from the schedule, but those that are sure first."""

    Options = RightToLeftOptions

    def key(self, scores, draws):
        """What ranks the masks, float ``[B, K]``, the largest first."""
        sure = scores.valid & (scores.confidence > self.options.sure)
        return scores.positions + sure * (scores.positions.max() + 1.0)

    def decide(self, state, scores, memory, draws):
        return Commit(top_k(self.key(scores, draws), scores.valid, state.budget), scores.token)
