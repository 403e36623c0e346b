"""DUS (arXiv:2506.19037): dilated unmasking, by positions alone.

A block of B positions is committed in rounds that depend on B and on nothing that the model says: first some positions
far apart from each other, then those between them, coarse to fine, about log B rounds in all.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, NoOptions, Scores, State
from pydantic import BaseModel, Field
from torch import Tensor


class DUSOptions(NoOptions):
    mode: Literal["dilated", "binary"] = Field(
        "dilated", description="rounds of every n-th position, n falling; or of the middles of what lies between"
    )
    base: int = Field(2, ge=2, le=4096, description="by how much n is divided from round to round; for dilated")
    skip: int = Field(1, ge=1, le=64, description="the first n is the block's length over base^skip; for dilated")


class DUS(BaseSampler):
    """Commits a block in rounds of positions far apart, whatever their scores.

    ``dilated``: in round r every n-th position of the block, counted from its first, that no earlier round has
    committed, with n = B / base^skip in the first round and divided by base from round to round, always rounded down;
    what is left when n is 0 is the last round. ``binary``: the middle of the block, then the middles of both halves,
    and so on. A last round smaller than the one before it is merged into that. The schedule is ignored.
    """

    Options: ClassVar[type[BaseModel]] = DUSOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"
    ranks_by_certainty: ClassVar[bool] = False

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        rounds = self._rounds(state).gather(1, scores.positions)
        due = rounds.masked_fill(~scores.valid, torch.iinfo(torch.int64).max)
        return Commit(scores.valid & (due == due.amin(1, keepdim=True)), scores.token)

    def _rounds(self, state: State) -> Tensor:
        """int64 ``[B, L]``: the round of each position of the row's block; elsewhere it means nothing."""
        start, stop = state.block_bounds.unbind(1)
        at, length = state.positions - start[:, None], (stop - start)[:, None]
        most = state.tokens.shape[1].bit_length()  # rounds that halve a block, at most; one more for what is left
        rounds = self._dilated(at, length, most) if self.options.mode == "dilated" else _binary(at, length, most)
        inside = torch.where(state.in_block, rounds, most + 1)
        sizes = rounds.new_zeros(len(rounds), most + 2).scatter_add(1, inside, torch.ones_like(inside))
        return _merged(rounds, sizes[:, :-1])

    def _dilated(self, at: Tensor, length: Tensor, most: int) -> Tensor:
        for _ in range(self.options.skip):
            length = length // self.options.base
        steps = [length]
        for _ in range(most - 1):
            steps.append(steps[-1] // self.options.base)
        step = torch.stack(steps, -1)  # [B, 1, R]
        due = (step > 0) & (at[..., None] % step.clamp_min(1) == 0)
        return torch.arange(most, device=at.device).where(due, most).amin(-1)


def _binary(at: Tensor, length: Tensor, most: int) -> Tensor:
    rounds, first, last = torch.full_like(at, most), torch.zeros_like(at), (length - 1).expand_as(at)
    for n in range(most):
        middle = (first + last) // 2
        rounds = torch.where((at == middle) & (rounds == most), n, rounds)
        first, last = torch.where(at > middle, middle + 1, first), torch.where(at < middle, middle - 1, last)
    return rounds


def _merged(rounds: Tensor, sizes: Tensor) -> Tensor:
    """``rounds`` ``[B, L]``, of which the last joins the one before if that is larger; ``sizes`` ``[B, R]`` of each."""
    numbers = torch.arange(sizes.shape[1], device=sizes.device)
    last = numbers.where(sizes > 0, -1).amax(1, keepdim=True)
    before = numbers.where((sizes > 0) & (numbers < last), -1).amax(1, keepdim=True)
    smaller = (before >= 0) & (sizes.gather(1, last.clamp_min(0)) < sizes.gather(1, before.clamp_min(0)))
    return torch.where(smaller & (rounds == last), before, rounds)
