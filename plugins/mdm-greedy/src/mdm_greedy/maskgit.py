"""MaskGIT's sampler (arXiv:2202.04200), by which MMaDA draws pictures: certainty and a noise that is let down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn.functional import logsigmoid


class MaskGITOptions(NoOptions):
    rank_temperature: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="factor of the Gumbel noise that positions are ranked with"
    )
    anneal: Literal["published", "linear", "none"] = Field(
        "published",
        description="how the factor falls from step to step to 0: each step multiplies it by the share of steps that "
        "are left (published), it is in proportion to that share (linear), or it stays (none)",
    )


@dataclass(frozen=True)
class Annealed(Rowwise):
    """What is left of the noise of each row."""

    share: Tensor
    """float32 ``[B]``: t of the last step of the block, over t at its start"""


class MaskGIT(BaseSampler):
    """Commits the k masks with the largest log p(x̂) + t · Gumbel noise, where t falls to 0 within the block.

    In step i of T, the first being 1, t is t₀ · (1 − 1/T) (1 − 2/T) … (1 − i/T) as MMaDA has it, or MaskGIT's
    t₀ · (1 − i/T). Where t is 0 masks are ranked as by ``confidence``. MMaDA calls t₀ ``temperature``; the setting of
    that name is the temperature of the token draw, which its pictures have at 1. From t₀ = 4.3 or so the published code
    may also take tokens back; this sampler never does.
    """

    Options: ClassVar[type[BaseModel]] = MaskGITOptions

    def begin(self, state: State) -> Annealed:
        return Annealed(torch.ones_like(state.step, dtype=torch.float32))

    def decide(self, state: State, scores: Scores, memory: Annealed, draws: Draws) -> Commit:
        share = self._share(state, memory)
        key = self._key(share * self.options.rank_temperature, scores, draws)
        return Commit(top_k(key, scores.valid, state.budget), scores.token, memory=Annealed(share))

    def _share(self, state: State, memory: Annealed) -> Tensor:
        """float32 ``[B]``: t in this step, over t₀."""
        if self.options.anneal == "none":
            return memory.share
        left = (state.planned - state.block_step - 1).clamp_min(0) / state.planned
        return left if self.options.anneal == "linear" else torch.where(state.block_step == 0, 1.0, memory.share) * left

    def _key(self, factor: Tensor, scores: Scores, draws: Draws) -> Tensor:
        """float32 ``[B, K]``: what ranks the masks, larger is better, with t ``[B]``."""
        if not self.options.rank_temperature:
            return scores.log_odds
        # From the log-odds, since p has lost its resolution near certainty. A token that counts as without any
        # certainty stays last, whatever the noise.
        log_p = logsigmoid(scores.log_odds).where(scores.confidence > 0, -torch.inf)
        noisy = log_p + factor[:, None] * draws.gumbel("rank", scores.positions)
        return torch.where(factor[:, None] > 0, noisy, scores.log_odds)
