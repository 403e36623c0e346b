"""The base of sampler plugins: what every policy has, with the usual answers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Literal

import torch
from mdm.protocols import ModelSpec, NoOptions
from mdm.rng import Draws
from mdm.state import Commit, Evaluate, Rowwise, Scores, State
from pydantic import BaseModel
from torch import Tensor

Decision = Commit | Generator[Evaluate, Scores, Commit]


class BaseSampler:
    """Override ``decide``; the rest has the answers of a sampler without memory."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    works_on: ClassVar[Literal["block", "canvas"]] = "block"
    """Which masks a row may commit: its current block's, or the whole canvas's."""
    reads: ClassVar[Literal["masked", "generated"]] = "masked"
    """Which positions of that span are scored: masks, or also those decoded before."""
    budgets: ClassVar[Literal["masks", "size"]] = "masks"
    """What the schedule divides among a block's steps: the block's masks, or its size."""
    keeps_logits: ClassVar[bool] = False
    """Whether ``Scores.logits`` is wanted: ``[B, K, V]`` alive, so only where a policy compares distributions."""
    pace: ClassVar[Literal["schedule", "own"]] = "schedule"
    """Whether a step commits at most ``state.budget`` tokens, or as many as the sampler sees fit."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def check(self, spec: ModelSpec) -> None:
        """Refuse a model that these options do not suit, before anything is decoded.

        Raises:
            MdmError: what does not fit, and the way out.
        """

    def begin(self, state: State) -> Rowwise | None:
        """What to remember of new rows, whose ``state`` is on the host; called again whenever rows join.

        ``Commit.memory`` replaces it.
        """
        return None

    def decide(self, state: State, scores: Scores, memory: Any, draws: Draws) -> Decision:
        """One step for all rows at once."""
        raise AssertionError(f"{type(self).__name__} defines no decide")

    def finished(self, state: State, memory: Any) -> Tensor:
        """bool ``[B]``"""
        return ~state.masked.any(-1)

    def pick(self, state: State, memory: Any) -> Tensor:
        """int64 ``[P]``: of these rows, all finished, the one that answers each prompt (default: each its own)."""
        return torch.arange(state.tokens.shape[0], device=state.device)
