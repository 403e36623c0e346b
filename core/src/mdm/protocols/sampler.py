"""Samplers: what one answers in a step (``Commit``, ``Evaluate``), and the base class of all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from mdm.protocols.draws import Draws
from mdm.protocols.model import ModelSpec
from mdm.protocols.options import NoOptions
from mdm.protocols.rowwise import Rowwise
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from pydantic import BaseModel
from torch import Tensor


@dataclass(frozen=True)
class CandidateScores:
    """The N candidates that a sampler compared, for a full trace, and only then copied to the host.

    Entries of candidates that are not ``valid`` mean nothing.
    """

    where: Tensor
    """bool ``[B, N, K]``: which of the scored positions each candidate commits"""
    valid: Tensor
    """bool ``[B, N]``: the candidates that were compared"""
    value: Tensor
    """float32 ``[B, N]``: what the sampler maximised (J in the trace)"""
    cost: Tensor
    """float32 ``[B, N]``: entropy of the tokens the candidate commits (C, nats)"""
    uncertainty: Tensor
    """float32 ``[B, N]``: mean entropy of the masks it would leave (H, nats)"""


@dataclass(frozen=True)
class Commit:
    """The tokens that are put at some of the scored positions; the mask id as a token masks a position again."""

    where: Tensor
    """bool ``[B, K]``, or ``[B, N, K]`` inside an ``Evaluate``: which of ``Scores.positions`` get a token"""
    tokens: Tensor
    """int64, shaped as ``where``: the token of each; ignored where ``where`` is False"""
    scores: Scores | None = None
    """the next step's scores, where a lookahead has computed them already"""
    known: Tensor | None = None
    """bool ``[B]``: the rows whose ``scores`` are known (None: all)"""
    bypass: Tensor | None = None
    """bool ``[B]``: rows that were sure enough to skip the sampler's lookahead; named in the trace"""
    memory: Rowwise | None = None
    """the sampler's memory from the next step on; None leaves it as it is"""
    source: Tensor | None = None
    """int64 ``[B']``: the row that each new row continues (beams). All other fields are then of the new rows, ``where``
    and ``tokens`` over ``Scores.positions`` of their sources. None: every row continues itself"""
    candidate_scores: CandidateScores | None = None
    """the candidates that this commit was chosen from"""


@dataclass(frozen=True)
class Evaluate:
    """Asks the engine to score candidate commits. Neither the state nor the cache changes."""

    candidates: Commit
    """N candidates for each row: ``where`` and ``tokens`` ``[B, N, K]``"""
    valid: Tensor
    """bool ``[B, N]``: which of them to run"""
    reach: Literal["open", "span"] = "open"
    """the masks to score: of the whole canvas ("open"), or of the current block ("span"; always so on a block-causal
    model, which sees no later block); and the committed positions of the block, where the sampler reads those"""
    commits_a_candidate: bool = False
    """a promise that saves a transfer to the host: each row commits one of its valid candidates together with that
    candidate's scores, or, if it has none, its first candidate without scores"""
    held: Tensor | None = None
    """int64 ``[B, L]``: a token at each position of the canvas, such as one that a candidate masks: ``Scores.held`` of
    the answer is its probability. Such an answer does not go with a commit as the next step's scores"""


Decision = Commit | Generator[Evaluate, Scores, Commit]
"""What ``decide`` returns."""


class BaseSampler:
    """A decoding policy: which masked positions to commit in a step, and to which tokens.

    A sampler overrides ``decide``; the other members have the answers of a sampler without memory. It is created with
    an instance of its ``Options`` and keeps nothing else in ``self``: what it has to remember of rows is its memory
    (``begin``, ``Commit.memory``).
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    works_on: ClassVar[Literal["block", "canvas"]] = "block"
    """Which masks a row may commit: those of its current block, or of its whole canvas."""
    sees: ClassVar[Literal["block", "canvas"]] = "block"
    """Which positions are scored: those of the row's block, or all of its canvas that the step's forward computes. Then
    masks behind the block may be committed too; what lies before it is final."""
    reads: ClassVar[Literal["masked", "generated", "left-out"]] = "masked"
    """Which of these positions are scored: the masks alone, or also those that have been decoded; of the latter
    "left-out" gives scores that a mask in their place has, which sees all of the canvas but them (cache none only)."""
    budgets: ClassVar[Literal["masks", "size"]] = "masks"
    """What the schedule divides among the steps of a block: the block's masks, or its size."""
    pace: ClassVar[Literal["schedule", "own"]] = "schedule"
    """Whether a step commits at most ``state.budget`` tokens, or as many as the sampler sees fit."""
    ranks_by_certainty: ClassVar[bool] = True
    """Whether what is committed hangs on how sure the model is. Else ``eos_rank`` changes nothing, and is refused."""
    keeps_logits: ClassVar[bool] = False
    """Whether ``Scores.logits`` is needed: float32 ``[B, K, V]``, so only where a policy compares distributions."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of ``mdm check`` that this sampler cannot pass -> why."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def check(self, spec: ModelSpec) -> None:
        """Refuse a model that these options do not suit, before anything is decoded.

        Raises:
            MdmError: what does not fit, and the way out.
        """

    def step_bytes(self, positions: int, length: int) -> int:
        """Memory that a step of one prompt takes at least, beside the model's, where it may come to much.

        Args:
            positions: how many are scored.
            length: of the canvas.
        """
        return 0

    def begin(self, state: State) -> Rowwise | None:
        """The memory of the new rows ``state``, which are on the host; called again whenever rows join."""
        return None

    @abstractmethod
    def decide(self, state: State, scores: Scores, memory: Any, draws: Draws) -> Decision:
        """One step of all rows at once.

        Args:
            state: the canvases ``[B, L]``.
            scores: what the model says at the K positions that the sampler reads, ``[B, K]``.
            memory: what ``begin`` and the commits since have given.
            draws: the random numbers of this step.

        Returns:
            The commit; or a generator that yields ``Evaluate`` to see what a commit would bring, receives the scores
            ``[B, N, K]`` of its candidates, and returns the commit.
        """
        raise NotImplementedError

    def finished(self, state: State, memory: Any) -> Tensor:
        """bool ``[B]``: rows that are done, unless they linger; by default those without masks."""
        return ~state.masked.any(-1)

    def lingers(self, state: State, memory: Any) -> Tensor:
        """bool ``[B]``: rows that stay in a block without masks, to edit it; asked after each step (default: none)."""
        return torch.zeros_like(state.entered_block)

    def pick(self, state: State, memory: Any) -> Tensor:
        """int64 ``[P]``: of these rows, all finished, the one that answers each prompt (default: each its own)."""
        return torch.arange(state.tokens.shape[0], device=state.device)
