"""SOAR (arXiv:2602.10953): search where the model is unsure, decode in parallel where it is sure.

Canvases of a prompt are beams. Each step expands every beam: where masks of its block are sure, by one commit of the
best of them together; else by one token at each of the best positions. A prompt goes on with its best canvases by the
sum of the probabilities of all that was committed; with the very best alone, as soon as any beam was sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from mdm.protocols import (
    BaseSampler,
    Commit,
    Draws,
    NoOptions,
    Rowwise,
    Scores,
    State,
    all_filled,
    best_rows,
    best_successors,
    ranks,
)
from pydantic import BaseModel, Field
from torch import Tensor


class SOAROptions(NoOptions):
    max_beam_size: int = Field(2, ge=1, description="canvases kept for each prompt, at most")
    threshold: float = Field(0.95, ge=0, le=1, description="probability above which a token is sure; 1: none ever is")
    max_parallel: int = Field(5, ge=1, description="sure tokens that a step commits together, at most")
    score: Literal["probability", "log-probability"] = Field(
        "probability",
        description="what is summed up of the committed tokens to compare canvases: as published, or as in the paper",
    )


@dataclass(frozen=True)
class Score(Rowwise):
    """How good each row has been so far."""

    total: Tensor
    """float32 ``[B]``: the sum over all that was committed"""


class SOAR(BaseSampler):
    """A beam search over positions, of one beam where tokens are sure, which are then committed together.

    Canvases that meet count once; the best one answers the prompt. One beam without sure tokens is ``confidence`` at
    one token a step. The schedule is ignored. A prompt's forwards are those of one beam, its rows those of all; how
    many these are depends on the scores, which costs a transfer to the host a step.
    """

    Options: ClassVar[type[BaseModel]] = SOAROptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    expected_failures: ClassVar[Mapping[str, str]] = {
        "waits_for_nothing": "how many beams are left depends on which commits lead to one canvas, known on the device"
    }

    def step_bytes(self, positions: int, length: int) -> int:
        # Of each beam's own commits; they are compared with each other.
        return self.options.max_beam_size**2 * positions * 32 + self.options.max_beam_size**4

    def begin(self, state: State) -> Score:
        return Score(torch.zeros(len(state.step), device=state.device))

    def decide(self, state: State, scores: Scores, memory: Score, draws: Draws) -> Commit:
        options = self.options
        number = torch.arange(options.max_beam_size, device=state.device)
        sure = scores.valid & (scores.confidence > options.threshold)
        together = sure & (ranks(scores.log_odds, sure) < options.max_parallel)
        parallel = sure.any(-1)
        # A row without masks waits for the others of its prompt: its first commit changes nothing.
        place = ranks(scores.log_odds, scores.valid)
        where = (place[:, None] == number[:, None]) & scores.valid[:, None]
        where[:, 0] = torch.where(parallel[:, None], together, where[:, 0])
        valid = (number == 0) | (where.any(-1) & ~parallel[:, None])
        gain = scores.confidence if options.score == "probability" else scores.confidence.log()
        value = memory.total[:, None] + gain[:, None].where(where, 0.0).sum(-1)
        same = state.request[:, None] == state.request
        size = torch.where((same & parallel).any(-1), 1, options.max_beam_size)
        tokens = scores.token[:, None].expand_as(where)
        flat = best_successors(state, scores, where, tokens, valid, value, size)
        source = flat // len(number)
        chosen = where.flatten(0, 1)[flat]
        return Commit(chosen, scores.token[source], memory=Score(value.flatten()[flat]), source=source)

    def finished(self, state: State, memory: Score) -> Tensor:
        """A prompt is done when all its beams are."""
        return all_filled(state)

    def pick(self, state: State, memory: Score) -> Tensor:
        return best_rows(state, memory.total)
