"""Cache modes: which positions each step computes, and whose keys and values are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from mdm.protocols.model import Attention, ModelSpec
from mdm.protocols.options import NoOptions
from mdm.protocols.rowwise import Rowwise, fast_replace, map_tensors
from mdm.protocols.scores import Scores
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
    watched: Tensor | None = None
    """of a ``LayerCache``: positions whose values every layer computes and compares with those that it kept"""
    picked: Tensor | None = None
    """int64 ``[B]``: how many of these each layer computes, the first by ``LayerCache.rank``"""

    @property
    def reached(self) -> Tensor:
        """bool ``[B, L]``: the positions that have a hidden state behind the last layer."""
        return self.query if self.watched is None else self.window

    def rows(self, index: Tensor) -> Plan:
        """Rows ``index`` ``[R]``, in that order."""
        return fast_replace(self, **map_tensors(self, lambda v: v.index_select(0, index)))


@dataclass(frozen=True)
class AttentionMap:
    """What the positions that a forward runs attend to in one layer."""

    weights: Tensor
    """float32 ``[R, Q, L]``, the mean over heads: each line adds up to 1"""
    positions: Tensor
    """int64 ``[R, Q]``: the position of each line, every one another of its row"""
    valid: Tensor
    """bool ``[R, Q]``: the lines that count; others fill up the batch"""


@dataclass(frozen=True)
class Seen:
    """A step that was made, as a cache mode that remembers gets to see it; all of the rows that go on from it."""

    before: State
    after: State
    plan: Plan
    """what the step was to run, with shifted logits also the position before each"""
    scores: Scores
    """of the positions that the sampler or ``BaseCache.sees`` asks for, as far as they were computed"""
    folded: Tensor | None
    """``[B, ...]``: what ``BaseCache.fold`` has made of the last layer; zeros where a row was not run"""


class BaseCache:
    """A cache mode. It overrides ``plan``, and is created with an instance of its ``Options``.

    A mode that remembers also overrides ``begin`` and ``learn``, and its ``plan`` takes a third argument, its memory of
    the rows: as a sampler's, that goes with them, and a tensor of positions in it may be longer than the canvases are.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    uses_kv: ClassVar[bool] = True
    """Whether keys and values are kept at all."""
    attention: ClassVar[Attention | None] = None
    """The one kind of attention that the mode is right for (None: any)."""
    inside_layers: ClassVar[bool] = False
    """Whether it is a ``LayerCache``."""
    sees: ClassVar[Literal["block", "canvas"]] = "block"
    """Whether ``learn`` is also shown scores of masks outside the row's block, as far as the step computes them."""
    reads_attention: ClassVar[bool] = False
    """Whether ``fold`` is shown the attention of each step's forward, which takes as much memory as it has weights."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of ``mdm check`` that this mode cannot pass -> why."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def plan(self, state: State, spec: ModelSpec) -> Plan:
        """What to compute in this step, from the canvases before it."""
        raise NotImplementedError

    def begin(self, state: State) -> Rowwise | None:
        """The memory of the new rows ``state``, which are on the host; None: the mode remembers nothing."""
        return None

    def learn(self, seen: Seen, memory: Any) -> Rowwise:
        """The memory after a step; asked of a mode that remembers."""
        kept: Rowwise = memory
        return kept

    def fold(self, attention: AttentionMap, folded: Any) -> Tensor:
        """What is kept, ``[R, ...]``, of the layers so far: of this one and of what was ``folded`` before (None at the
        first one). With guidance it is shown the conditional branch."""
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


class LayerCache(BaseCache):
    """A cache mode inside the layers: every layer computes positions of its own, and adds of all others what it kept.

    A layer keeps of each position key, value, and what attention and MLP gave. ``Plan.query`` are the positions that
    every layer computes; of those that are ``watched`` a layer first computes the values, which it keeps, and then all
    of those ``picked`` that ``rank`` puts first. What is computed is kept: ``write`` is ``query`` and ``watched``
    together. As every position has a hidden state, any can be scored, and ``window`` is the canvas: an ``Evaluate``
    computes of its candidates what the step computes, each with picks of its own, and keeps nothing.
    """

    attention: ClassVar[Attention | None] = "full"
    inside_layers: ClassVar[bool] = True
    full_layers: ClassVar[int] = 1
    """How many layers, from the first, compute every position and keep nothing."""

    @abstractmethod
    def rank(self, layer: int, new: Tensor, kept: Tensor) -> Tensor:
        """float32 ``[R, W]``: the watched positions with the largest numbers are picked.

        Args:
            layer: counted from 0.
            new: values ``[R, W, D]`` of the heads side by side; some lines only fill up the batch.
            kept: the values that the layer had of these positions.
        """
        raise NotImplementedError
