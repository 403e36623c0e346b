"""Candidate actions for samplers that look ahead: drawn once here, weighed by each sampler as it likes.

The draw and its options are those of the Info-Gain sampler (arXiv:2602.18176).
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
        "open",
        description="masks whose uncertainty counts: of the whole canvas, or of the block (a block-causal model sees "
        "no later one, so there it is the block)",
    )
    heuristic: Literal["confidence", "margin", "neg_entropy"] = Field(
        "confidence", description="what the draw of positions prefers"
    )


@dataclass(frozen=True)
class Actions:
    """What each row may commit: ``where`` and ``tokens`` ``[B, N, K]``.

    ``valid`` ``[B, N]``: the actions of a row, at least one; ``bypass`` ``[B]``: rows whose only action is sure enough
    to need no lookahead (None: no row's is).
    """

    where: Tensor
    tokens: Tensor
    valid: Tensor
    bypass: Tensor | None

    def pick(self, choice: Tensor) -> tuple[Tensor, Tensor]:
        """Where action ``choice`` ``[B]`` of each row commits and what, ``[B, K]`` each."""
        return select_candidate(self.where, choice), select_candidate(self.tokens, choice)


class Lookahead(BaseSampler):
    """Base of samplers that weigh the actions they draw."""

    Options: ClassVar[type[LookaheadOptions]] = LookaheadOptions

    def actions(self, state: State, scores: Scores, draws: Draws) -> Actions:
        """The actions of all rows. The first is the plain one: the k most confident masks, or what bypasses.

        It is alone where there is no choice: k masks or fewer left, a bypass, one candidate or no temperature.
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
        """Keys ``[B, N - 1, K]`` whose top k are Gumbel draws of positions, for the rows that ``look`` ``[B]``.

        ``confidence`` ``[B, N - 1, K]`` is that of each candidate's own tokens.
        """
        noise = draws.block_gumbel("candidate", scores.positions, range(1, confidence.shape[1] + 1))
        key = confidence
        if self.options.heuristic == "margin":
            key = scores.margin[:, None]
        elif self.options.heuristic == "neg_entropy":
            key = -scores.entropy[:, None]
        return noise.add_(key / self.options.position_temperature)

    def _bypass(self, scores: Scores, k: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows commit without lookahead ``[B]``, and where they do ``[B, K]``."""
        sure = scores.valid & (scores.confidence >= self.options.threshold)
        if self.options.bypass == "block":
            return (sure == scores.valid).all(-1) & scores.valid.any(-1), sure
        rows = sure.any(-1) & (k > 0)
        return rows, sure if self.options.bypass == "all" else top_k(scores.log_odds, sure, k)


def _repeats(where: Tensor, tokens: Tensor | None) -> Tensor:
    """bool ``[B, N]``: actions that commit the same tokens to the same positions as an earlier one of the row.

    ``tokens`` are None where all have the same.
    """
    put = where if tokens is None else torch.where(where, tokens, -1)
    return (put[:, :, None] == put[:, None]).all(-1).tril(-1).any(-1)
