"""CORE (arXiv:2602.04096): revises the tokens that do not hold when their context is taken away.

Decodes by a schedule, most confident first. From time to time the tokens that the model is least sure of are masked all
together in one more forward; one that is improbable then, and has a better successor, is replaced by that.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, Evaluate, NoOptions, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor

WINDOW = (0.25, 0.75)
"""Which part of a block's steps checks."""
TAIL = 16
"""So many positions at a block's end are never revised."""
LEAST = 0.3
"""Probability that a successor has at least."""


class CoreOptions(NoOptions):
    every: int = Field(8, ge=1, le=4096, description="a step that checks follows so many steps after the last one")
    m: int = Field(32, ge=1, le=4096, description="tokens that a check masks at most")
    remask_k: int = Field(1, ge=1, le=4096, description="tokens that a check revises at most")
    base: Literal["confidence", "margin"] = Field("confidence", description="what ranks the masks that are committed")
    revise: Literal["core", "margin", "random"] = Field(
        "core", description="which of the checked tokens become their successors; margin and random are ablations"
    )


class Core(BaseSampler):
    """Commits the k most confident masks of the block, k from the schedule, and revises committed tokens on the way.

    Of the s planned steps of a block those with a number t (from 0) that ``every`` divides check, from s / 4 on and
    before 3 s / 4. A check masks the ``m`` committed tokens of the block with the smallest margin, without its last 16
    positions, in one more forward. Where the likeliest token then is another one with p >= 0.3, the token may be
    revised: the ``remask_k`` least probable of them are (k, if that is fewer), in this step. The ablations revise those
    of the smallest margin in the second forward, or any at random, whatever their successors are.
    """

    Options: ClassVar[type[BaseModel]] = CoreOptions
    reads: ClassVar[Literal["masked", "generated"]] = "generated"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        masked = scores.valid & state.masked.gather(1, scores.positions)
        key = scores.log_odds if self.options.base == "confidence" else scores.margin_rank
        commits = top_k(key, masked, state.budget)
        checked = self._checked(state, scores, masked)
        hidden = Commit(checked[:, None], torch.full_like(scores.token, state.mask_id)[:, None])
        answer = yield Evaluate(hidden, checked.any(1, keepdim=True), reach="span", held=state.tokens)
        tokens, revised = self._revised(state, scores, checked, answer.pick(torch.zeros_like(state.step)), draws)
        return Commit(commits | revised, torch.where(revised, tokens, scores.token))

    def _checked(self, state: State, scores: Scores, masked: Tensor) -> Tensor:
        """bool ``[B, K]``: the committed tokens that are masked for a check, in the rows that have one in this step."""
        first, stop = ((state.planned * share).long() for share in WINDOW)
        step = state.block_step
        due = (step % self.options.every == 0) & (step >= first) & (step < stop) & (state.budget > 0)
        old = scores.valid & ~masked & (scores.positions < state.block_bounds[:, 1:] - TAIL)
        return top_k(-scores.margin_rank, old, due * self.options.m)

    def _revised(
        self, state: State, scores: Scores, checked: Tensor, seen: Scores, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Successors ``[B, K]``, and which tokens are replaced by them, after the forward that hid the ``checked``."""
        assert seen.held is not None
        column = _columns(seen, state.tokens.shape[1]).gather(1, scores.positions)
        there, column = column > 0, (column - 1).clamp_min(0)
        token, held, confidence, margin = (
            values.gather(1, column) for values in (seen.token, seen.held, seen.confidence, seen.margin_rank)
        )
        may = checked & there
        if self.options.revise == "core":
            may = may & (token != state.tokens.gather(1, scores.positions)) & (confidence >= LEAST)
            key = -held
        elif self.options.revise == "margin":
            key = -margin
        else:
            key = draws.uniform("revise", scores.positions)
        return token, top_k(key, may, state.budget.clamp(max=self.options.remask_k))


def _columns(scores: Scores, length: int) -> Tensor:
    """int64 ``[B, L]``: where in K each position of the canvas was scored, plus one; 0 where it was not."""
    target = scores.positions.masked_fill(~scores.valid, length)
    index = torch.arange(1, target.shape[1] + 1, device=target.device).expand_as(target)
    return target.new_zeros(len(target), length + 1).scatter(1, target, index)[:, :length]
