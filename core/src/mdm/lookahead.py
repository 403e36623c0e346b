"""Candidate actions for samplers that look ahead: drawn once here, weighed by each sampler as it likes.

The draw and its options are those of the Info-Gain sampler (arXiv:2602.18176).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from mdm.protocols import NoOptions
from mdm.rng import Draws
from mdm.sampler import BaseSampler
from mdm.scoring import top_k
from mdm.state import Scores, State
from pydantic import Field
from torch import Tensor


class LookaheadOptions(NoOptions):
    """How candidates are drawn."""

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


@dataclass(frozen=True)
class Actions:
    """What each row may commit: ``where`` and ``tokens`` ``[B, N, K]``.

    ``valid`` ``[B, N]``: the actions of a row, at least one; ``bypass`` ``[B]``: rows whose only action is sure enough
    to need no lookahead.
    """

    where: Tensor
    tokens: Tensor
    valid: Tensor
    bypass: Tensor


class Lookahead(BaseSampler):
    """Base of samplers that weigh the actions they draw."""

    Options: ClassVar[type[LookaheadOptions]] = LookaheadOptions

    def actions(self, state: State, scores: Scores, draws: Draws) -> Actions:
        """The actions of all rows. The first is the plain one: the k most confident masks, or what bypasses.

        It is alone where there is no choice: k masks or fewer left, a bypass, one candidate or no temperature.
        """
        options = self.options
        k = state.budget.clamp(max=1) if options.candidates == "all" else state.budget
        masks = scores.valid.sum(-1)
        plain = top_k(scores.log_odds, scores.valid, k)
        bypass = torch.zeros_like(masks, dtype=torch.bool)
        if options.threshold is not None:
            plain, bypass = self._bypass(scores, plain, k)
        first = torch.ones_like(bypass)
        look = (masks > k) & (k > 0) & ~bypass
        if options.candidates == "all":
            where = torch.eye(scores.at.shape[1], dtype=torch.bool, device=scores.at.device) & scores.valid[:, None]
            valid, first = where.any(-1), ~look
            tokens = scores.token[:, None].expand(-1, where.shape[1] + 1, -1)
        elif options.candidates == 1 or options.position_temperature == 0:
            return Actions(plain[:, None], scores.token[:, None], first[:, None], bypass)
        else:
            tokens, confidence = scores.draws(options.candidates)
            where = self.drawn(scores, confidence[:, 1:], k, draws, look)
            valid = torch.ones_like(where[..., 0])
        where = torch.cat([plain[:, None], where], 1)
        valid = torch.cat([first[:, None], valid & look[:, None]], 1)
        if options.candidates != "all":
            valid = valid & ~_repeats(where, tokens)
        return Actions(where, tokens, valid, bypass)

    def drawn(self, scores: Scores, confidence: Tensor, k: Tensor, draws: Draws, look: Tensor) -> Tensor:
        """Gumbel top-k draws of positions, bool ``[B, N - 1, K]``; they count for the rows that ``look`` ``[B]``.

        ``confidence`` ``[B, N - 1, K]`` is that of each candidate's own tokens.
        """
        others = confidence.shape[1]
        key = {
            "confidence": confidence,
            "margin": scores.margin[:, None],
            "neg_entropy": -scores.entropy[:, None],
        }[self.options.heuristic]
        noise = draws.gumbel("candidate", scores.at[:, None], range(1, others + 1))
        key = key / self.options.position_temperature + noise
        return top_k(key, scores.valid[:, None].expand_as(key), k[:, None].expand(-1, others))

    def _bypass(self, scores: Scores, plain: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Commits without lookahead: where ``[B, K]`` (``plain`` for the other rows), and which rows bypass ``[B]``."""
        sure = scores.valid & (scores.confidence >= self.options.threshold)
        if self.options.bypass == "block":
            rows = (sure == scores.valid).all(-1) & scores.valid.any(-1)
            return torch.where(rows[:, None], sure, plain), rows
        rows = sure.any(-1) & (k > 0)
        chosen = sure if self.options.bypass == "all" else top_k(scores.log_odds, sure, k)
        return torch.where(rows[:, None], chosen, plain), rows


def _repeats(where: Tensor, tokens: Tensor) -> Tensor:
    """bool ``[B, N]``: actions that commit the same tokens to the same positions as an earlier one of the row."""
    same = (where[:, :, None] == where[:, None]) & (~where[:, :, None] | (tokens[:, :, None] == tokens[:, None]))
    earlier = torch.ones(where.shape[1], where.shape[1], dtype=torch.bool, device=where.device).tril(-1)
    return (same.all(-1) & earlier).any(-1)
