"""Info-Gain and LookUM (arXiv:2602.18176): commit what leaves the rest of the canvas most certain.

With H_i the entropy of masked position i, the state's uncertainty is the mean of H over its masks. An action a commits
k positions at a cost C(a) = sum of H over them, and gains IG(a) = uncertainty(z) - uncertainty(z'). Info-Gain commits
argmax J, J = IG - C; as uncertainty(z) is the same for all actions, J = -uncertainty(z') - C(a). LookUM drops C.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
from mdm.protocols import NoOptions
from mdm.rng import Draws
from mdm.sampler import BaseSampler
from mdm.scoring import top_k
from mdm.state import Commit, Evaluate, Scores, State, Weighed
from pydantic import BaseModel, Field
from torch import Tensor


class InfoGainOptions(NoOptions):
    """How candidates are drawn and weighed."""

    candidates: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        8, description="candidate actions a step; 'all': every masked position of the block, one at a time, no draw"
    )
    position_temperature: float = Field(
        0.2, ge=0, description="temperature of the draw of positions; 0: no lookahead, the most confident positions"
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="top-1 probability from which a position is committed without lookahead"
    )
    bypass: Literal["capped", "block", "all"] = Field(
        "capped",
        description="what the threshold commits: at most k of the positions above it; the block, once all its masks "
        "are above it; or all that are above it",
    )
    reach: Literal["open", "span"] = Field(
        "open", description="masks whose uncertainty counts: of the whole canvas, or of the block"
    )
    heuristic: Literal["confidence", "margin", "neg_entropy"] = Field(
        "confidence", description="what the draw of positions prefers"
    )


class InfoGain(BaseSampler):
    """Commits the action with the largest J = information gain - cost.

    One forward a step: the winner's row of the lookahead is the next step's scores.
    """

    Options: ClassVar[type[BaseModel]] = InfoGainOptions
    counts_cost: ClassVar[bool] = True

    def decide(
        self, state: State, scores: Scores, memory: None, draws: Draws
    ) -> Commit | Generator[Evaluate, Scores, Commit]:
        return self._decide(state, scores, draws)

    def _decide(self, state: State, scores: Scores, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        options = self.options
        k = state.budget.clamp(max=1) if options.candidates == "all" else state.budget
        masks = scores.valid.sum(-1)
        plain = top_k(scores.log_odds, scores.valid, k)
        bypass = torch.zeros_like(masks, dtype=torch.bool)
        if options.threshold is not None:
            plain, bypass = self._bypass(scores, plain, k)
        greedy = Commit(plain, scores.token, bypass=bypass)
        one_candidate = options.candidates == 1 or (options.candidates != "all" and options.position_temperature == 0)
        if one_candidate:
            return greedy
        look = (masks > k) & (k > 0) & ~bypass
        where, tokens, valid = self._candidates(scores, k, plain, draws)
        valid = valid & look[:, None]
        # A lone candidate needs no comparison: it is the greedy commit, and the next step has its own forward.
        valid = valid & (valid.sum(-1, keepdim=True) > 1)
        candidates = Commit(where, tokens)
        ahead = yield Evaluate(candidates, valid, options.reach)
        uncertainty, cost = ahead.uncertainty(), scores.entropy[:, None].where(where, 0.0).sum(-1)
        value = -uncertainty - cost if self.counts_cost else -uncertainty
        best = value.masked_fill(~valid, -torch.inf).argmax(-1)
        chosen = valid.any(-1)
        row = torch.arange(best.shape[0], device=best.device)
        return replace(
            greedy,
            where=torch.where(chosen[:, None], where[row, best], greedy.where),
            tokens=torch.where(chosen[:, None], tokens[row, best], greedy.tokens),
            scores=ahead.pick(best),
            known=chosen,
            weighed=Weighed(where, valid, value, cost, uncertainty),
        )

    def _candidates(self, scores: Scores, k: Tensor, plain: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Actions to weigh: where and tokens ``[B, N, K]``, and which of them are worth a forward ``[B, N]``."""
        if self.options.candidates == "all":
            width = scores.at.shape[1]
            where = torch.eye(width, dtype=torch.bool, device=scores.at.device) & scores.valid[:, None]
            return where, scores.token[:, None].expand_as(where), where.any(-1)
        count = self.options.candidates
        tokens, confidence = scores.draws(count)
        drawn = slice(1, None)
        key = {
            "confidence": confidence[:, drawn],
            "margin": scores.margin[:, None],
            "neg_entropy": -scores.entropy[:, None],
        }[self.options.heuristic]
        number = torch.arange(1, count, device=scores.at.device)[:, None]
        at = scores.at[:, None].expand(-1, count - 1, -1)
        key = key / self.options.position_temperature + draws.gumbel("candidate", at, number)
        eligible = scores.valid[:, None].expand_as(key)
        where = torch.cat([plain[:, None], top_k(key, eligible, k[:, None].expand(-1, count - 1))], 1)
        # A candidate that commits the same tokens to the same positions as an earlier one is not weighed again.
        same = (where[:, :, None] == where[:, None]) & (~where[:, :, None] | (tokens[:, :, None] == tokens[:, None]))
        earlier = torch.ones(count, count, dtype=torch.bool, device=where.device).tril(-1)
        return where, tokens, ~(same.all(-1) & earlier).any(-1)

    def _bypass(self, scores: Scores, plain: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Commits without lookahead: where ``[B, K]`` (``plain`` for the other rows), and which rows bypass ``[B]``."""
        sure = scores.valid & (scores.confidence >= self.options.threshold)
        if self.options.bypass == "block":
            rows = (sure == scores.valid).all(-1) & scores.valid.any(-1)
            return torch.where(rows[:, None], sure, plain), rows
        rows = sure.any(-1) & (k > 0)
        chosen = sure if self.options.bypass == "all" else top_k(scores.log_odds, sure, k)
        return torch.where(rows[:, None], chosen, plain), rows


class LookUM(InfoGain):
    """Info-Gain without its cost: commits the action after which the state is least uncertain."""

    counts_cost: ClassVar[bool] = False
