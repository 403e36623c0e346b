"""KLASS (arXiv:2511.05664): KL-adaptive stability sampling.

A mask is stable at step t when the model is sure of it and has stopped changing its mind: its confidence is at least
``threshold`` and, over the last ``history`` steps, KL(p_t || p_{t-1}) of its distribution stayed below
``kl_threshold`` (nats). All stable masks are committed together; where there is none, the most confident one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class KLASSOptions(NoOptions):
    threshold: float = Field(0.9, ge=0, le=1, description="probability a stable token has at least")
    kl_threshold: float = Field(
        0.01, ge=0, description="KL divergence between consecutive steps that a stable mask stays below (nats)"
    )
    history: int = Field(2, ge=1, description="consecutive steps for which it must")


@dataclass(frozen=True)
class Seen(Rowwise):
    """The distributions of the last step, and for how many steps each position has been stable."""

    log_p: Tensor
    """float32 ``[B, K, V]``: log-probabilities of the positions that were scored"""
    column: Tensor
    """int64 ``[B, L]``: where in K each position of the canvas was, plus one; 0 where it was not scored"""
    calm: Tensor
    """int64 ``[B, L]``: steps in a row with a small divergence"""


class KLASS(BaseSampler):
    """Commits all masks of the block that are sure and have been stable for some steps, at least the most confident.

    The schedule is ignored. Remembers one distribution for each mask of the block, ``[B, K, V]``.
    """

    Options: ClassVar[type[BaseModel]] = KLASSOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    keeps_logits: ClassVar[bool] = True

    def begin(self, state: State) -> Seen:
        none = torch.zeros_like(state.tokens)
        return Seen(torch.zeros(len(none), 0, 0, device=state.device), none, none)

    def decide(self, state: State, scores: Scores, memory: Seen, draws: Draws) -> Commit:
        assert scores.logits is not None
        log_p = scores.logits.log_softmax(-1)
        calm = (memory.calm.gather(1, scores.positions) + 1).where(self._close(scores, log_p, memory), 0)
        stable = scores.valid & (calm >= self.options.history) & (scores.confidence >= self.options.threshold)
        best = top_k(scores.log_odds, scores.valid, torch.ones_like(state.step))
        where = torch.where(stable.any(-1, keepdim=True), stable, best)
        width = scores.positions.shape[1]
        index = torch.arange(1, width + 1, device=scores.positions.device).expand_as(scores.positions)
        column = _spread(scores, index, state)
        return Commit(where, scores.token, memory=Seen(log_p, column, _spread(scores, calm, state)))

    def _close(self, scores: Scores, log_p: Tensor, memory: Seen) -> Tensor:
        """bool ``[B, K]``: positions scored before whose distribution has hardly changed since."""
        if not memory.log_p.numel():
            return torch.zeros_like(scores.valid)
        column = memory.column.gather(1, scores.positions)
        before = memory.log_p.gather(1, (column - 1).clamp_min(0)[..., None].expand_as(log_p))
        # A token that is ruled out weighs nothing: its -inf - -inf would be nan.
        divergence = (log_p.exp() * (log_p - before)).where(log_p > -torch.inf, 0.0).sum(-1)
        return (column > 0) & (divergence < self.options.kl_threshold)


def _spread(scores: Scores, values: Tensor, state: State) -> Tensor:
    """``values`` ``[B, K]`` at the positions they belong to, int64 ``[B, L]``; 0 elsewhere."""
    length = state.tokens.shape[1]
    target = scores.positions.masked_fill(~scores.valid, length)
    return values.new_zeros(len(values), length + 1).scatter(1, target, values)[:, :length]
