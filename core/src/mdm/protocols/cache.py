"""Cache modes: which positions each step computes, and whose keys and values are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from mdm.protocols.model import Attention, ModelSpec
from mdm.protocols.options import NoOptions
from mdm.protocols.state import State
from pydantic import BaseModel
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """What the model computes in one step; all bool ``[B, L]``.

    The forward of a row that writes nothing may be skipped where its scores are known already.
    """

    query: Tensor
    """positions to compute"""
    write: Tensor
    """those of them whose keys and values are kept for later steps"""
    window: Tensor
    """positions that an ``Evaluate`` in this step computes"""


class BaseCache:
    """A cache mode. It overrides ``plan``, and is created with an instance of its ``Options``."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    uses_kv: ClassVar[bool] = True
    """Whether keys and values are kept at all."""
    attention: ClassVar[Attention | None] = None
    """The one kind of attention that the mode is right for (None: any)."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of ``mdm check`` that this mode cannot pass -> why."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def plan(self, state: State, spec: ModelSpec) -> Plan:
        """What to compute in this step, from the canvases before it."""
        raise NotImplementedError


class NoCache(BaseCache):
    """Every step is a full forward over the canvas: exact, and the reference for all other modes."""

    uses_kv: ClassVar[bool] = False

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        return Plan(query=state.in_canvas, write=state.in_canvas & False, window=state.in_canvas)


class BlockCache(BaseCache):
    """Runs the current block only, on a block-causal model, whose finished blocks never change: so it is exact.

    When a row enters a block, one forward runs the block it comes from as well (the whole prompt, when it begins) and
    keeps what is finished: the keys and values of a block are those of its final tokens.
    """

    attention: ClassVar[Attention | None] = "block-causal"

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        before = state.blocks < state.block[:, None]
        # Blocks without a mask are skipped: the last one that was entered is the last with a mask, or the prompt.
        previous = torch.where(state.targets & before, state.blocks, -1).amax(1, keepdim=True)
        new = before & (state.blocks >= previous) & state.entered_block[:, None]
        return Plan(query=new | state.in_block, write=new, window=state.in_block)
