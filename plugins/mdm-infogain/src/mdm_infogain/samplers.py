"""The samplers. What they maximise is said of the package."""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

import torch
from mdm.protocols import CandidateScores, Commit, Draws, Evaluate, Lookahead, Scores, State


class InfoGain(Lookahead):
    """Commits the action with the largest J = information gain - cost.

    One forward a step: the winner's row of the lookahead is the next step's scores.
    """

    counts_cost: ClassVar[bool] = True

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        actions = self.actions(state, scores, draws)
        # A lone action needs no comparison, and the next step has its own forward.
        weighed = actions.valid & (actions.valid.sum(-1, keepdim=True) > 1)
        if weighed.shape[1] == 1:
            return Commit(actions.where[:, 0], actions.tokens[:, 0], bypass=actions.bypass)
        ahead = yield Evaluate(
            Commit(actions.where, actions.tokens), weighed, self.options.reach, commits_a_candidate=True
        )
        uncertainty, cost = ahead.uncertainty(), scores.entropy[:, None].where(actions.where, 0.0).sum(-1)
        value = -uncertainty - cost if self.counts_cost else -uncertainty
        best = value.masked_fill(~weighed, -torch.inf).argmax(-1)
        return Commit(
            *actions.pick(best),
            scores=ahead.pick(best),
            known=weighed.any(-1),
            bypass=actions.bypass,
            candidate_scores=CandidateScores(actions.where, weighed, value, cost, uncertainty),
        )


class LookUM(InfoGain):
    """LookUM (arXiv:2511.05563): commits the action after which the state is least uncertain, whatever it costs."""

    counts_cost: ClassVar[bool] = False
