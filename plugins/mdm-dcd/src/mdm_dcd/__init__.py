"""Deferred commitment decoding (arXiv:2601.02076): a window that slides, in place of blocks.

What may be committed are the first masks of the answer, always as many as the window holds: what is sure goes, and
masks come in from behind for it; what is unsure stays in sight, deferred until more is known on both sides of it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State, top_k
from pydantic import BaseModel, Field, ValidationInfo, field_validator
from torch import Tensor


class DCDOptions(NoOptions):
    initial_window_length: int = Field(32, ge=1, description="masks that the window holds")
    max_window_length: int | None = Field(
        None, ge=1, description="positions that the window spans at most, from its first mask on; none: any number"
    )
    decode_algo: Literal["threshold", "fixed", "entropythreshold"] = Field(
        "threshold", description="what a step commits: what is sure by its probability or entropy, or so many tokens"
    )
    decode_param: float = Field(
        0.9, validate_default=True, description="the least probability; how many; or the least negative entropy (nats)"
    )

    @field_validator("decode_param")
    @classmethod
    def _suits(cls, value: float, info: ValidationInfo) -> float:
        algo = info.data.get("decode_algo")
        if algo == "threshold" and not 0 <= value <= 1:
            raise ValueError("should be a probability, from 0 to 1, for decode_algo=threshold")
        if algo == "fixed" and not (1 <= value <= 4096 and value == int(value)):
            raise ValueError("should be given too, a whole number of tokens from 1 to 4096, for decode_algo=fixed")
        if algo == "entropythreshold" and value > 0:
            raise ValueError("should be given too, a negative entropy, 0 or less, for decode_algo=entropythreshold")
        return value


class DCD(BaseSampler):
    """Commits, of the first masks of the answer, those that are sure, and at least the best of them.

    Blocks and the schedule are ignored; on a block-causal model the window slides in each block of the grid. Exact
    without a cache: no cache knows the window, so under ``prefix`` and ``dual`` the prompt's keys are those of its
    first forward.
    """

    Options: ClassVar[type[BaseModel]] = DCDOptions
    works_on: ClassVar[Literal["block", "canvas"]] = "canvas"
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        options: Any = self.options
        window = self._window(scores)
        by_entropy = options.decode_algo == "entropythreshold"
        key = -scores.entropy if by_entropy else scores.log_odds
        if options.decode_algo == "fixed":
            where = top_k(key, window, torch.full_like(state.step, int(options.decode_param)))
        else:
            sure = (key if by_entropy else scores.confidence) >= options.decode_param
            where = (window & sure) | top_k(key, window, torch.ones_like(state.step))
        return Commit(where, scores.token)

    def _window(self, scores: Scores) -> Tensor:
        """bool ``[B, K]``: the masks in the window."""
        window = scores.valid & (scores.valid.cumsum(-1) <= self.options.initial_window_length)
        if self.options.max_window_length is not None:
            last = torch.iinfo(torch.long).max
            first = scores.positions.masked_fill(~scores.valid, last).amin(-1, keepdim=True)
            window = window & (scores.positions - first < self.options.max_window_length)
        return window
