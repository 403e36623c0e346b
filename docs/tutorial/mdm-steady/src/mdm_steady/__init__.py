"""Remembers what the model said before: commits first what it has kept saying for some steps."""

from dataclasses import dataclass

import torch
from mdm.protocols import BaseSampler, Commit, NoOptions, Rowwise, top_k
from pydantic import Field
from torch import Tensor


class SteadyOptions(NoOptions):
    """When a mask counts as steady."""

    steps: int = Field(2, ge=1, description="steps in a row whose likeliest token is the same, from which a mask is")


@dataclass(frozen=True)
class Said(Rowwise):
    """What the model has said of each position: the first axis is of rows, so that the engine can move them."""

    token: Tensor
    """int64 [B, L]: the likeliest token of the last step that scored the position; -1 where none has"""
    times: Tensor
    """int64 [B, L]: for how many steps in a row it has been the likeliest"""


class Steady(BaseSampler):
    """Commits the most confident masks, k from the schedule, those before all others whose token is steady."""

    Options = SteadyOptions

    def begin(self, state):
        """Of the rows that join: at the start, and whenever one of the batch has ended and others wait."""
        return Said(torch.full_like(state.tokens, -1), torch.zeros_like(state.tokens))

    def listen(self, scores, memory):
        """The memory with what this step's scores say."""
        before = memory.token.gather(1, scores.positions)
        times = memory.times.gather(1, scores.positions).where(scores.token == before, 0) + 1
        return Said(put(memory.token, scores, scores.token), put(memory.times, scores, times))

    def key(self, scores, memory):
        """What ranks the masks, float [B, K]: steady ones first, and of each kind the most confident."""
        steady = memory.times.gather(1, scores.positions) >= self.options.steps
        confidence = scores.confidence  # in [0, 1]
        return confidence + steady

    def decide(self, state, scores, memory, draws):
        memory = self.listen(scores, memory)
        where = top_k(self.key(scores, memory), scores.valid, state.budget)
        return Commit(where, scores.token, memory=memory)


def put(canvas, scores, values):
    """``canvas`` [B, L] with ``values`` [B, K] where scores are valid; a new tensor, as the old one is not ours."""
    spare = torch.cat([canvas, canvas[:, :1]], 1)  # one column more, for what is not valid
    at = scores.positions.masked_fill(~scores.valid, canvas.shape[1])
    return spare.scatter(1, at, values)[:, :-1]
