"""What is being decoded, and what samplers and caches say about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from mdm.protocols.rowwise import fast_replace, map_tensors, repeat_rows
from mdm.protocols.upload import upload
from torch import Tensor

SAME = -1
"""In ``State.unconditional``: at this position both branches see the canvas."""
ABSENT = -2
"""In ``State.unconditional``: at this position the unconditional branch has nothing."""


@dataclass(frozen=True)
class State:
    """The canvases of all rows. L is the longest row's length; shorter rows are padded on the right.

    Positions count from a row's own first prompt token.
    """

    tokens: Tensor
    """int64 ``[B, L]``"""
    masked: Tensor
    """bool ``[B, L]``: still to be decoded"""
    in_canvas: Tensor
    """bool ``[B, L]``: not padding"""
    targets: Tensor
    """bool ``[B, L]``: masked when the row began"""
    starts: Tensor
    """int64 ``[B, M]``: where each block starts and the last one ends, ascending, padded with L"""
    blocks: Tensor
    """int64 ``[B, L]``: the number of each position's block: -1 before the first, and behind the last one more"""
    prompt_length: Tensor
    """int64 ``[B]``"""
    row_id: Tensor
    """int64 ``[B]``: keys the row's random draws"""
    request: Tensor
    """int64 ``[B]``: the prompt a row serves; beams share one"""
    block: Tensor
    """int64 ``[B]``: the number of the block that the row works on"""
    entered_block: Tensor
    """bool ``[B]``: the row has just entered its block"""
    step: Tensor
    """int64 ``[B]``: steps taken"""
    block_step: Tensor
    """int64 ``[B]``: steps taken in this block"""
    budget: Tensor
    """int64 ``[B]``: how many tokens the schedule commits this step"""
    planned: Tensor
    """int64 ``[B]``: how many steps are planned for the row's block, of which it may take fewer, or more"""
    mask_id: int
    """the token of a masked position; committing it re-masks"""
    shift: bool = False
    """whether a position is predicted at the one before it (``ModelSpec.shift``)"""
    unconditional: Tensor | None = None
    """int64 ``[B, L]``: what guidance's unconditional branch sees, or ``SAME``, or ``ABSENT``; None without guidance"""
    lingers: Tensor | None = None
    """bool ``[B]``: the row stays in its block although no mask is left in it; None: its sampler never says so"""

    @property
    def device(self) -> torch.device:
        return self.tokens.device

    @cached_property
    def positions(self) -> Tensor:
        """int64 ``[L]``"""
        return torch.arange(self.tokens.shape[1], device=self.device)

    @cached_property
    def in_block(self) -> Tensor:
        """bool ``[B, L]``: positions of the row's current block"""
        return self.blocks == self.block[:, None]

    @cached_property
    def block_bounds(self) -> Tensor:
        """int64 ``[B, 2]``: where the row's current block starts and stops"""
        return self.starts.gather(1, torch.stack([self.block, self.block + 1], 1))

    @cached_property
    def masked_in_block(self) -> Tensor:
        """bool ``[B, L]``: masked positions of the row's current block"""
        return self.masked & self.in_block

    def replace(self, **values: Any) -> State:
        """The state with these fields; what follows from blocks alone is kept where they are."""
        twin = fast_replace(self, **values)
        if values.keys().isdisjoint(("blocks", "block", "starts")):
            kept = ("positions", "in_block", "block_bounds")
            twin.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return twin

    def to(self, device: torch.device) -> State:
        return fast_replace(self, **map_tensors(self, lambda v: upload(v, device)))

    def rows(self, index: Tensor) -> State:
        """Rows ``index`` ``[R]``, in that order."""
        return fast_replace(self, **map_tensors(self, lambda v: v.index_select(0, index)))

    def repeat_rows(self, times: int) -> State:
        """``[B * times, ...]``: each row ``times`` times, one after the other."""
        return fast_replace(self, **map_tensors(self, lambda v: repeat_rows(v, times)))
