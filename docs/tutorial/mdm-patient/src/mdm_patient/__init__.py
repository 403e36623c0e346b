"""Looks one step ahead among the masks of which the model has said the same for some steps."""

from dataclasses import dataclass

import torch
from mdm.protocols import BaseSampler, Commit, Evaluate, NoOptions, Rowwise, ranks
from pydantic import Field
from torch import Tensor


class PatientOptions(NoOptions):
    """How long it waits, and how far down the ranking it looks."""

    steps: int = Field(2, ge=1, description="steps in a row with the same likeliest token, from which a mask is steady")
    candidates: int = Field(4, ge=1, description="candidates a step; each begins one place lower in the ranking")


@dataclass(frozen=True)
class Said(Rowwise):
    """What the model has said of each position."""

    token: Tensor
    """int64 [B, L]: the likeliest token of the last step that scored the position; -1 where none has"""
    times: Tensor
    """int64 [B, L]: for how many steps in a row it has been the likeliest"""


class Patient(BaseSampler):
    """Of steady masks, the most confident first, commits those after which the rest is least uncertain.

    Masks are ranked by confidence, steady ones before all others; k are committed, k from the schedule: those of the
    candidate, n places down the ranking, that leaves the least mean entropy.
    """

    Options = PatientOptions

    def begin(self, state):
        return Said(torch.full_like(state.tokens, -1), torch.zeros_like(state.tokens))

    def decide(self, state, scores, memory, draws):
        memory = listen(memory, scores)
        steady = memory.times.gather(1, scores.positions) >= self.options.steps
        place = ranks(scores.confidence + steady, scores.valid)[:, None]  # [B, 1, K]

        first = torch.arange(self.options.candidates, device=state.device)[:, None]  # [N, 1]
        where = scores.valid[:, None] & (place >= first) & (place < first + state.budget[:, None, None])  # [B, N, K]
        tokens = scores.token[:, None].expand_as(where)
        full = (where.sum(-1) == state.budget[:, None]) & (state.budget > 0)[:, None]  # [B, N]
        weighed = full & (full.sum(-1, keepdim=True) > 1)
        ahead = yield Evaluate(Commit(where, tokens), weighed, commits_a_candidate=True)

        best = ahead.uncertainty().masked_fill(~weighed, torch.inf).argmin(-1)  # [B]
        row = torch.arange(len(best), device=state.device)
        return Commit(where[row, best], scores.token, ahead.pick(best), known=weighed.any(-1), memory=memory)


def listen(memory, scores):
    """The memory with what this step's scores say."""
    before = memory.token.gather(1, scores.positions)
    times = memory.times.gather(1, scores.positions).where(scores.token == before, 0) + 1
    return Said(put(memory.token, scores, scores.token), put(memory.times, scores, times))


def put(canvas, scores, values):
    """``canvas`` [B, L] with ``values`` [B, K] where scores are valid."""
    spare = torch.cat([canvas, canvas[:, :1]], 1)  # one column more, for what is not valid
    at = scores.positions.masked_fill(~scores.valid, canvas.shape[1])
    return spare.scatter(1, at, values)[:, :-1]
