"""d2Cache (arXiv:2509.23094): each step runs the masks likely to be decoded, what just was, and what is looked at.

Positions are chosen row by row from what the steps before have shown; their keys and values are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, ClassVar, Literal

import torch
from mdm.protocols import AttentionMap, BaseCache, ModelSpec, NoOptions, Plan, Rowwise, Seen, State, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class D2CacheOptions(NoOptions):
    """What a step computes."""

    p: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="share of the attention rollout that the other positions computed have of all others (published: "
        "0.1); the first is computed in any case, and 1 computes all",
    )
    k: Annotated[int, Field(ge=1)] = Field(
        32, description="masks computed: those of largest certainty times density, the block's first (published: 32)"
    )
    sigma: Annotated[float, Field(gt=0, le=100)] = Field(
        10.0, description="standard deviation of the Gaussian that density is taken with, in positions (published: 10)"
    )
    inflate_w: Annotated[int, Field(ge=0)] = Field(
        0,
        description="computes also what lies between two chosen positions at most so far apart (published: 0 in its "
        "configuration, 4 in its code)",
    )


@dataclass(frozen=True)
class Remembered(Rowwise):
    """What a row's steps have shown. Positions that are no masks have no certainty that counts."""

    certainty: Tensor
    """float32 ``[B, L]``: of each mask, its confidence when it was computed last"""
    changed: Tensor
    """bool ``[B, L]``: positions whose token the last step changed"""
    importance: Tensor
    """float32 ``[B, L]``: how much of the last step's attention rollout lies on each position"""


class D2Cache(BaseCache):
    """Keeps all keys and values; each step computes, and keeps anew, the positions that matter most to the next."""

    Options: ClassVar[type[BaseModel]] = D2CacheOptions
    attention: ClassVar[Literal["full"]] = "full"
    sees: ClassVar[Literal["canvas"]] = "canvas"
    reads_attention: ClassVar[bool] = True

    def begin(self, state: State) -> Remembered:
        zero = torch.zeros(state.tokens.shape)
        return Remembered(certainty=zero, changed=zero.bool(), importance=zero)

    def plan(self, state: State, spec: ModelSpec, memory: Any = None) -> Plan:
        length = state.tokens.shape[1]
        certainty, changed, importance = (x[:, :length] for x in (memory.certainty, memory.changed, memory.importance))
        run = changed | self._masks(state, certainty)
        run = run | nucleus(importance, state.in_canvas & ~run, self.options.p)
        run = inflated(run, self.options.inflate_w)
        run = torch.where((state.step == 0)[:, None], state.in_canvas, run)
        return Plan(query=run, write=run, window=run)

    def _masks(self, state: State, certainty: Tensor) -> Tensor:
        """bool ``[B, L]``: the k masks of largest certainty times density, those of the row's block before others.

        Looked at are the block and those behind it, up to the end of that in which k masks have been passed.
        """
        k = torch.full_like(state.block, self.options.k)
        ahead = state.masked & (state.blocks >= state.block[:, None])
        last = torch.where(ahead & (ahead.cumsum(1) <= k[:, None]), state.blocks, -1).amax(1, keepdim=True)
        score = certainty * density(~state.masked, state.in_canvas, self.options.sigma)
        first = top_k(score, ahead & state.in_block, k)
        return first | top_k(score, ahead & ~state.in_block & (state.blocks <= last), k - first.sum(1))

    def fold(self, attention: AttentionMap, folded: Any) -> Tensor:
        """The rollout ``[R, L, L]``: half of what a position attends to, half itself, in each layer.

        A position that is not run passes on itself.
        """
        weights, length = attention.weights, attention.weights.shape[2]
        if folded is None:
            folded = torch.eye(length, device=weights.device).expand(len(weights), -1, -1)
        lines = attention.positions[..., None].expand(-1, -1, length)
        old = folded.gather(1, lines)
        new = torch.where(attention.valid[..., None], (weights @ folded + old) / 2, old)
        return folded.scatter(1, lines, new)

    def learn(self, seen: Seen, memory: Any) -> Remembered:
        assert seen.folded is not None
        scores, before, after = seen.scores, seen.before, seen.after
        length = before.tokens.shape[1]
        # Where nothing is to be learned, into a column that is cut off again.
        at = scores.positions.where(scores.valid & before.masked.gather(1, scores.positions), length)
        certainty = torch.nn.functional.pad(memory.certainty[:, :length], (0, 1)).scatter(1, at, scores.confidence)
        return Remembered(certainty[:, :length], before.tokens != after.tokens, seen.folded.sum(1))


def density(known: Tensor, in_canvas: Tensor, sigma: float) -> Tensor:
    """float32 ``[B, L]``: how much of a Gaussian around each position lies on ``known`` ones, bool ``[B, L]``.

    All before the canvas is known; what follows it is where its last position is.
    """
    radius = ceil(6 * sigma)  # beyond which float32 does not see it
    last = known.gather(1, in_canvas.sum(1, keepdim=True) - 1)
    known = torch.where(in_canvas, known, last)
    ends = [torch.ones_like(last).expand(-1, radius), last.expand(-1, radius)]
    wide = torch.cat([ends[0], known, ends[1]], 1).float()
    distance = torch.arange(-radius, radius + 1, device=known.device)
    weight = torch.exp(-(distance**2) / (2 * sigma**2))
    return wide.unfold(1, 2 * radius + 1, 1) @ (weight / weight.sum())


def nucleus(importance: Tensor, eligible: Tensor, p: float) -> Tensor:
    """bool ``[B, L]``: the ``eligible`` positions of most importance, whose share of all of theirs adds up to at most
    ``p``, and the first in any case."""
    if p == 1:  # which rounding would not let the sum reach
        return eligible
    order = torch.where(eligible, importance, -1.0).sort(dim=1, descending=True, stable=True).indices
    total = torch.where(eligible, importance, 0.0).gather(1, order).cumsum(1)
    kept = total <= p * total[:, -1:]
    kept[:, 0] = True
    return torch.zeros_like(eligible).scatter(1, order, kept) & eligible


def inflated(run: Tensor, width: int) -> Tensor:
    """``run`` ``[B, L]`` with what lies between two of its positions that are at most ``width`` apart."""
    if not width:
        return run
    length = run.shape[1]
    at = torch.arange(length, device=run.device)
    before = torch.where(run, at, -width - 1).cummax(1).values
    after = torch.where(run, at, length + width).flip(1).cummin(1).values.flip(1)
    return run | (after - before <= width)
