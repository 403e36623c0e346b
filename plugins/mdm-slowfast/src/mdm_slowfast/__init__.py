"""Slow-Fast sampling (arXiv:2506.10848): cycles that explore a block slowly, and then finish a stretch of it fast.

A cycle begins where the last one has ended. In its slow phase each step estimates how far from there the model has
become sure of what it says; once the estimates agree, they are where the cycle ends. The fast phase commits that
stretch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class SlowFastOptions(NoOptions):
    k_exploration_steps: int = Field(6, ge=1, le=4096, description="steps of the slow phase of a cycle")
    cycle_len_confidence_threshold: float = Field(
        0.3, ge=0, le=1, description="probability from which a mask counts when the cycle's end is estimated"
    )
    cycle_length_stability_window: int = Field(2, ge=1, le=4096, description="last estimates that have to agree")
    cycle_length_stability_std_dev_threshold: float = Field(
        1.0, ge=0, description="standard deviation that agreeing estimates stay below (positions)"
    )
    high_confidence_threshold: float = Field(
        0.9, ge=0, le=1, description="probability from which tokens are committed together"
    )


@dataclass(frozen=True)
class Cycle(Rowwise):
    """The cycle of each row; places count from its block's first position."""

    start: Tensor
    """int64 ``[B]``: everything before is committed"""
    stop: Tensor
    """int64 ``[B]``: where the cycle ends, once that is settled"""
    slow_steps: Tensor
    """int64 ``[B]``: steps of the slow phase so far"""
    settled: Tensor
    """bool ``[B]``: estimates have agreed"""
    estimates: Tensor
    """int64 ``[B, W]``: the last ones, the newest last"""


class SlowFast(BaseSampler):
    """Commits all masks within reach with conf >= high_confidence_threshold where they are two or more, else the best.

    Within reach are those behind the cycle's start in its ``k_exploration_steps`` slow steps, and then those up to its
    end. A slow step estimates that end: behind the last mask with conf >= cycle_len_confidence_threshold, or one place
    behind the start if there is none. As soon as the last ``cycle_length_stability_window`` estimates have a standard
    deviation below the threshold, the newest is taken; if they never do, the mean of the last ones. The schedule is
    ignored. Published with blocks of the whole answer, or of 128.
    """

    Options: ClassVar[type[BaseModel]] = SlowFastOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def begin(self, state: State) -> Cycle:
        zero, window = torch.zeros_like(state.step), self.options.cycle_length_stability_window
        return Cycle(zero, zero, zero, torch.zeros_like(state.entered_block), zero[:, None].repeat(1, window))

    def decide(self, state: State, scores: Scores, memory: Cycle, draws: Draws) -> Commit:
        at = scores.positions - state.block_bounds[:, :1]
        start = memory.start.masked_fill(state.entered_block, 0)
        slow_steps = memory.slow_steps.masked_fill(state.entered_block, 0)
        inside = scores.valid & (at >= start[:, None]) & (at < memory.stop[:, None])
        fast = (slow_steps == self.options.k_exploration_steps) & inside.any(1)
        ended = (slow_steps == self.options.k_exploration_steps) & ~fast
        start, slow_steps = torch.where(ended, memory.stop, start), slow_steps.masked_fill(ended, 0)
        # What lies before the start is committed, so that all masks of the block are behind it.
        within = scores.valid & (inside | ~fast[:, None])
        sure = within & (scores.confidence >= self.options.high_confidence_threshold)
        best = top_k(scores.log_odds, within, torch.ones_like(state.step))
        where = torch.where(sure.sum(1, keepdim=True) > 1, sure, best)
        cycle = Cycle(start, memory.stop, slow_steps, memory.settled & (slow_steps > 0), memory.estimates)
        return Commit(where, scores.token, memory=self._explored(cycle, scores, at, ~fast))

    def _explored(self, cycle: Cycle, scores: Scores, at: Tensor, slow: Tensor) -> Cycle:
        """``cycle`` after a step, with the estimate that the ``slow`` rows make in it."""
        window = self.options.cycle_length_stability_window
        far = scores.valid & (scores.confidence >= self.options.cycle_len_confidence_threshold)
        estimate = at.where(far, cycle.start[:, None]).amax(1) + 1
        estimates = torch.cat([cycle.estimates[:, 1:], estimate[:, None]], 1)
        slow_steps, open_ = cycle.slow_steps + slow, slow & ~cycle.settled
        spread = estimates.float().std(1, correction=0)
        agree = (slow_steps >= window) & (spread < self.options.cycle_length_stability_std_dev_threshold)
        made = min(window, self.options.k_exploration_steps)
        stop = torch.where(agree, estimate, estimates[:, -made:].sum(1) // made)
        return Cycle(
            start=cycle.start,
            stop=torch.where(open_, stop, cycle.stop),
            slow_steps=slow_steps,
            settled=cycle.settled | (open_ & agree),
            estimates=torch.where(slow[:, None], estimates, cycle.estimates),
        )
