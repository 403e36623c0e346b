"""Candidate actions for samplers that look ahead. Each sampler compares them by a criterion of its own.

How they are drawn, and the options of it, are those of the Info-Gain sampler (arXiv:2602.18176).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from mdm.protocols.draws import Draws
from mdm.protocols.options import NoOptions
from mdm.protocols.rowwise import select_candidate
from mdm.protocols.sampler import BaseSampler
from mdm.protocols.scores import Scores, top_k
from mdm.protocols.state import State
from pydantic import Field
from torch import Tensor


class LookaheadOptions(NoOptions):
    """Options of the draw of candidates."""

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
        "open",
        description="masks whose uncertainty counts: of the whole canvas, or of the block (a block-causal model sees "
        "no later one, so there it is the block)",
    )
    heuristic: Literal["confidence", "margin", "neg_entropy"] = Field(
        "confidence", description="what the draw of positions prefers"
    )


@dataclass(frozen=True)
class Actions:
    """The N candidate actions of each row: positions to commit, and their tokens."""

    where: Tensor
    """bool ``[B, N, K]``: the positions that each action commits"""
    tokens: Tensor
    """int64 ``[B, N, K]``: their tokens"""
    valid: Tensor
    """bool ``[B, N]``: which entries are actions of the row; at least one is"""
    bypass: Tensor | None
    """bool ``[B]``: rows whose only action is sure enough to need no lookahead (None: no row's is)"""

    def pick(self, choice: Tensor) -> tuple[Tensor, Tensor]:
        """``where`` and ``tokens`` ``[B, K]`` of action ``choice`` ``[B]`` of each row."""
        return select_candidate(self.where, choice), select_candidate(self.tokens, choice)


class Lookahead(BaseSampler):
    """Base class of samplers that compare candidate actions."""

    Options: ClassVar[type[LookaheadOptions]] = LookaheadOptions

    def step_bytes(self, positions: int, length: int) -> int:
        number = positions + 1 if self.options.candidates == "all" else self.options.candidates
        compared = 0 if self.options.candidates == "all" else number**2
        return int(number * (positions * 32 + length * 32) + compared * positions)

    def actions(self, state: State, scores: Scores, draws: Draws) -> Actions:
        """The actions of all rows. The first commits the k most confident masks, or those that bypass the lookahead.

        A row has no other where there is nothing to choose: k masks or fewer are left, it bypasses the lookahead, or
        there is one candidate only or no position temperature.
        """
        options = self.options
        every = options.candidates == "all"
        k = state.budget.clamp(max=1) if every else state.budget
        look = (scores.valid.sum(-1) > k) & (k > 0)
        bypass = sure = None
        if options.threshold is not None:
            bypass, sure = self._bypass(scores, k)
            look = look & ~bypass
        key, tokens = scores.log_odds[:, None], scores.token[:, None]
        if not every and options.candidates > 1 and options.position_temperature > 0:
            tokens, confidence = scores.draws(options.candidates)
            key = torch.cat([key, self.drawn(scores, confidence[:, 1:], draws, look)], 1)
        where = top_k(key, scores.valid[:, None], k[:, None])
        if bypass is not None and sure is not None:
            where[:, 0] = torch.where(bypass[:, None], sure, where[:, 0])
        if every:
            single = torch.eye(scores.positions.shape[1], dtype=torch.bool, device=where.device) & scores.valid[:, None]
            valid = torch.cat([~look[:, None], single.any(-1) & look[:, None]], 1)
            return Actions(torch.cat([where, single], 1), tokens.expand(-1, valid.shape[1], -1), valid, bypass)
        valid = ~_repeats(where, None if scores.redraw is None else tokens) & look[:, None]
        valid[:, 0].fill_(True)
        return Actions(where, tokens, valid, bypass)

    def drawn(self, scores: Scores, confidence: Tensor, draws: Draws, look: Tensor) -> Tensor:
        """Keys, float32 ``[B, N - 1, K]``, whose top k are a Gumbel draw of positions for each candidate but the first.

        ``confidence``, of the same shape, is of each candidate's own tokens. Keys of rows that do not ``look`` ahead
        (bool ``[B]``) are not used.
        """
        noise = draws.block_gumbel("candidate", scores.positions, range(1, confidence.shape[1] + 1))
        if self.options.heuristic != "confidence":  # that of the likeliest tokens is the same for all candidates
            confidence = (scores.margin if self.options.heuristic == "margin" else -scores.entropy)[:, None]
        return noise.add_(confidence / self.options.position_temperature)

    def _bypass(self, scores: Scores, k: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that commit without lookahead, bool ``[B]``, and where they commit, bool ``[B, K]``."""
        sure = scores.valid & (scores.confidence >= self.options.threshold)
        if self.options.bypass == "block":
            return (sure == scores.valid).all(-1) & scores.valid.any(-1), sure
        rows = sure.any(-1) & (k > 0)
        return rows, sure if self.options.bypass == "all" else top_k(scores.log_odds, sure, k)


def _repeats(where: Tensor, tokens: Tensor | None) -> Tensor:
    """bool ``[B, N]``: actions that commit the same tokens at the same positions as an earlier one of the row.

    ``tokens`` is None where all candidates have the same tokens.
    """
    committed = where if tokens is None else torch.where(where, tokens, -1)
    return (committed[:, :, None] == committed[:, None]).all(-1).tril(-1).any(-1)
