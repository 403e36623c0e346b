"""Particles: several decodings of a prompt, of which the surest survive.

A prompt has P rows, each with draws of its own. As they leave a block they are resampled: a row goes on in as many
copies as its share of exp(-H / temperature), H the entropy of the tokens that it committed in the block (nats). The row
with the least entropy over the whole decode is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from mdm.errors import MdmError
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Rowwise, Scores, State, all_filled, best_rows, top_k
from pydantic import BaseModel, Field, model_validator
from torch import Tensor


class ParticlesOptions(NoOptions):
    particles: int = Field(4, ge=1, le=1024, description="rows of each prompt")
    position_temperature: float = Field(
        0.2, ge=0, description="temperature of the draw of positions by confidence; 0: the most confident ones"
    )
    resample: bool = Field(True, description="whether rows are resampled after each block; else the best row answers")
    resampling_temperature: float = Field(
        1.0,
        gt=0,
        description="what the entropy of a block is divided by: small, and only its surest row goes on (nats)",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> ParticlesOptions:
        if self.resampling_temperature != 1 and not (self.resample and self.particles > 1):
            raise ValueError("resampling_temperature changes nothing where nothing is resampled")
        return self


@dataclass(frozen=True)
class Spent(Rowwise):
    """The entropy of what each row has committed, in nats."""

    block: Tensor
    """float32 ``[B]``: since its block began"""
    total: Tensor
    """float32 ``[B]``"""
    begins: bool = True
    """whether there may be rows that have made no step; known to the host, as their draws cost a pass of the head"""

    def join(self, other: Self) -> Self:
        return replace(super().join(other), begins=self.begins or other.begins)


class Particles(BaseSampler):
    """Decodes several rows of a prompt by the schedule, and resamples them after every block by their entropy.

    A step commits k masks of the block, drawn by confidence / ``position_temperature``; their tokens are drawn with the
    decode's temperature. So one particle is ``confidence`` where ``position_temperature`` is 0. Forwards are those of
    one row; rows, all of them. Resampling brings the rows that go on to the host, each step.
    """

    Options: ClassVar[type[BaseModel]] = ParticlesOptions
    expected_failures: ClassVar[Mapping[str, str]] = {
        "waits_for_nothing": "which rows begin, and become several, is known on the device"
    }

    def step_bytes(self, positions: int, length: int) -> int:
        count: int = self.options.particles
        return count * (positions * 64 + count * 64)

    def begin(self, state: State) -> Spent:
        zeros = torch.zeros(len(state.step), device=state.device)
        return Spent(zeros, zeros)

    def decide(self, state: State, scores: Scores, memory: Spent, draws: Draws) -> Commit:
        options: Any = self.options
        copies = options.particles if memory.begins else 1
        if copies > 1 and scores.redraw is None and not options.position_temperature:
            raise MdmError(
                f"particles.particles={copies}: they are all the same where nothing is drawn; set a temperature, or "
                "particles.position_temperature above 0, or particles.particles to 1"
            )
        where, tokens = self._commits(state, scores, draws, copies)
        if options.particles == 1:
            return Commit(where[:, 0], tokens[:, 0])
        source, turn = torch.arange(len(where), device=state.device), torch.zeros_like(state.step)
        if memory.begins:  # a prompt's first row becomes all of them
            is_row = (state.step == 0)[:, None] | (torch.arange(copies, device=state.device) == 0)
            source, turn = is_row.nonzero(as_tuple=True)
        where, tokens, left = where[source, turn], tokens[source, turn], scores.valid.sum(-1)
        cost = scores.entropy[source].where(where, 0.0).sum(-1)
        spent = Spent(memory.block[source] + cost, memory.total[source] + cost, begins=False)
        if not options.resample:
            return Commit(where, tokens, memory=spent, source=source if memory.begins else None)
        leaves = (where.sum(-1) == left[source]) & (state.masked.sum(-1) > left)[source]
        uniform = draws.uniform("resample", torch.zeros_like(state.step)[:, None])[:, 0]
        chosen = resampled(
            spent.block / options.resampling_temperature, state.request[source], leaves, uniform[source]
        )  # fmt: skip
        spent = replace(spent.rows(chosen), block=spent.block.masked_fill(leaves, 0.0))
        return Commit(where[chosen], tokens[chosen], memory=spent, source=source[chosen])

    def _commits(self, state: State, scores: Scores, draws: Draws, copies: int) -> tuple[Tensor, Tensor]:
        """Where each of N copies of a row commits, and which tokens, ``[B, N, K]``; each has draws of its own."""
        tokens, confidence = scores.draws(copies)
        temperature = self.options.position_temperature
        if temperature:
            key = draws.block_gumbel("position", scores.positions, range(copies)) + confidence / temperature
        else:
            key = torch.cat([scores.log_odds[:, None], confidence[:, 1:]], 1)
        return top_k(key, scores.valid[:, None], state.budget[:, None]), tokens

    def finished(self, state: State, memory: Spent) -> Tensor:
        """A prompt is done when all its rows are."""
        return all_filled(state)

    def pick(self, state: State, memory: Spent) -> Tensor:
        return best_rows(state, -memory.total)


def resampled(cost: Tensor, request: Tensor, leaves: Tensor, uniform: Tensor) -> Tensor:
    """int64 ``[B]``: the row that each row continues, resampled systematically among those of its prompt that leave.

    The n rows of a prompt stand at (u + i) / n, i = 0 … n - 1, and take the row whose share of exp(-cost) lies there.

    Args:
        cost: float32 ``[B]``.
        request: int64 ``[B]``, the prompt of each.
        leaves: bool ``[B]``: the rows that are resampled; the others continue themselves.
        uniform: ``[B]`` in (0, 1), of which the first of a prompt's counts.
    """
    number = torch.arange(len(cost), device=cost.device)
    group = (request[:, None] == request) & leaves[:, None] & leaves
    group = group | (number[:, None] == number)
    first, last = number.where(group, len(cost)).amin(-1), number.where(group, -1).amax(-1)
    share = (-cost.double()).where(group, -torch.inf).softmax(-1).cumsum(-1)
    place = (group & (number < number[:, None])).sum(-1)
    point = (uniform.double()[first] + place) / group.sum(-1)
    found = number.where(group & (share > point[:, None]), len(cost)).amin(-1)
    return found.minimum(last)  # a sum that rounding leaves below 1
