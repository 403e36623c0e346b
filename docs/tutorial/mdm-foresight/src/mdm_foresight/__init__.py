"""Looks one step ahead: commits the tokens after which the model is least uncertain of the rest."""

import torch
from mdm.protocols import BaseSampler, Commit, Evaluate, NoOptions, ranks
from pydantic import Field


class ForesightOptions(NoOptions):
    """How far down the ranking it looks."""

    candidates: int = Field(4, ge=1, description="candidates a step; each begins one place lower in the ranking")


class Foresight(BaseSampler):
    """Of the most confident masks, commits those after which the mean entropy of the remaining masks is least.

    With k from the schedule, candidate n commits the k masks from place n of the ranking on. With k = 1 they are the
    ``candidates`` most confident masks, one each.
    """

    Options = ForesightOptions

    def decide(self, state, scores, memory, draws):
        place = ranks(scores.log_odds, scores.valid)[:, None]  # [B, 1, K]
        first = torch.arange(self.options.candidates, device=state.device)[:, None]  # [N, 1]
        k = state.budget[:, None, None]  # [B, 1, 1]
        where = scores.valid[:, None] & (place >= first) & (place < first + k)  # [B, N, K]
        tokens = scores.token[:, None].expand_as(where)

        # A row with fewer masks than candidates fills the first of them only, and one whose budget is 0 none.
        full = (where.sum(-1) == state.budget[:, None]) & (state.budget > 0)[:, None]  # [B, N]
        # Where there is no choice, there is nothing to look at: the row commits its first candidate.
        weighed = full & (full.sum(-1, keepdim=True) > 1)
        ahead = yield Evaluate(Commit(where, tokens), weighed, commits_a_candidate=True)

        best = ahead.uncertainty().masked_fill(~weighed, torch.inf).argmin(-1)  # [B]; 0 where none was weighed
        row = torch.arange(len(best), device=state.device)
        return Commit(where[row, best], scores.token, scores=ahead.pick(best), known=weighed.any(-1))
