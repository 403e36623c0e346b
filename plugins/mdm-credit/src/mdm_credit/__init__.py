"""CreditDecoding (arXiv:2510.06133): tokens that the model keeps predicting earn credit, and are committed earlier.

Each step gives credit to the likeliest token of every mask, and lets the credit of earlier steps fade. Logits are
raised by the logarithm of the credit, and what is sure under the raised logits is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, ranks
from pydantic import BaseModel, Field
from torch import Tensor

SLACK = 1e-5
"""How much less than the largest confidence is as good, where none reaches the threshold."""


class CreditOptions(NoOptions):
    threshold: float = Field(0.9, ge=0, le=1, description="probability from which a token is committed, with credit")
    credit_alpha: float = Field(0.7, ge=0, description="alpha: factor of log(1 + credit), which is added to the logit")
    boost_gamma: float = Field(0.2, ge=0, description="gamma: a step's credit is the token's probability to this power")
    decay_beta: float = Field(0.8, ge=0, le=1, description="beta: what is left of a credit a step later, as a share")


@dataclass(frozen=True)
class Credits(Rowwise):
    """The credits of the positions of each row's block, of which W is the longest.

    A position has given credit to one token a step, and a block takes W steps at most: so few of the tokens have any.
    """

    tokens: Tensor
    """int64 ``[B, W, W]``: for each position the tokens with credit, in order of the step that first gave some"""
    credits: Tensor
    """float32 ``[B, W, W]``: how much; 0 where there is no token"""


class Credit(BaseSampler):
    """Commits the masks of the block with conf' >= threshold, at least the most confident one.

    In each step the likeliest token of a mask gets its probability to the power of gamma as credit c, after the credits
    of the steps before were multiplied by beta; a block begins without any. conf' and the token that is committed are
    of the logits z + alpha log(1 + c); with a temperature, a drawn token that is not the likeliest stays as it was
    drawn, and earns the credit. The schedule is ignored.
    """

    Options: ClassVar[type[BaseModel]] = CreditOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    keeps_logits: ClassVar[bool] = True

    def step_bytes(self, positions: int, length: int) -> int:
        return 24 * positions**2  # the memory of 12 bytes an entry, and the next one

    def begin(self, state: State) -> Credits:
        stop = (state.targets * (state.positions + 1)).amax(1, keepdim=True)
        width = int(state.starts.minimum(stop).diff(dim=1).amax())  # the state is on the host
        shape = len(stop), width, width
        return Credits(torch.zeros(shape, dtype=torch.long), torch.zeros(shape))

    def decide(self, state: State, scores: Scores, memory: Credits, draws: Draws) -> Commit:
        assert scores.logits is not None
        width = memory.tokens.shape[1]
        at = (scores.positions - state.block_bounds[:, :1]).clamp(0, width - 1)[..., None].expand(-1, -1, width)
        tokens, credits = self._earned(state, scores, memory.tokens.gather(1, at), memory.credits.gather(1, at))
        raised = scores.logits.scatter_add(-1, tokens, self.options.credit_alpha * torch.log1p(credits))
        total = raised.logsumexp(-1)
        drawn = scores.token != _likeliest(scores.logits, state.mask_id)
        token = torch.where(drawn, scores.token, _likeliest(raised, state.mask_id))
        confidence = (raised.gather(-1, token[..., None])[..., 0] - total).exp().where(scores.valid, 0.0)
        bound = (confidence.amax(1, keepdim=True) - SLACK).clamp(max=self.options.threshold)
        best = ranks(confidence, scores.valid) == 0
        where = scores.valid & (best | ((confidence >= bound) & (confidence > 0)))
        written = torch.where(scores.valid, at[..., 0], width)[..., None].expand_as(tokens)
        return Commit(
            where, token, memory=Credits(_put(memory.tokens, written, tokens), _put(memory.credits, written, credits))
        )

    def _earned(self, state: State, scores: Scores, tokens: Tensor, credits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and credits ``[B, K, W]`` with those of this step."""
        credits = (credits * self.options.decay_beta).masked_fill(state.entered_block[:, None, None], 0.0)
        earned = scores.confidence[..., None] ** self.options.boost_gamma
        token = scores.token[..., None]
        again = (tokens == token) & (credits > 0)
        place = torch.arange(tokens.shape[-1], device=tokens.device) == state.block_step[:, None, None]
        new = place & ~again.any(-1, keepdim=True)
        return torch.where(new, token, tokens), torch.where(new | again, credits + earned, credits)


def _likeliest(logits: Tensor, mask_id: int) -> Tensor:
    """int64 ``[B, K]``: the token of the largest of ``logits`` ``[B, K, V]`` that is not the mask."""
    first, second = logits.topk(2).indices.unbind(-1)
    return torch.where(first == mask_id, second, first)


def _put(block: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """``block`` ``[B, W, W]`` with ``values`` at positions ``at``, both ``[B, K, W]``; those at W are not written."""
    spare = torch.cat([block, torch.zeros_like(block[:, :1])], 1)
    return spare.scatter(1, at, values)[:, :-1]
