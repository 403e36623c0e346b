"""The base of sampler plugins: what every policy has, with the usual answers."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from mdm.protocols.model import ModelSpec
from mdm.protocols.options import NoOptions
from mdm.protocols.rowwise import Rowwise
from mdm.protocols.scores import Scores
from pydantic import BaseModel
from torch import Tensor

if TYPE_CHECKING:
    from mdm.protocols.draws import Draws
    from mdm.protocols.state import State


@dataclass(frozen=True)
class CandidateScores:
    """What a sampler compared before it decided, for those who watch. It is brought to the host only for a full trace.

    ``value`` is what it maximised. Entries of candidates that are not ``valid`` mean nothing.
    """

    where: Tensor
    """bool ``[B, N, K]``: the scored positions each candidate commits"""
    valid: Tensor
    """bool ``[B, N]``"""
    value: Tensor
    """``[B, N]``: J"""
    cost: Tensor
    """``[B, N]``: C, the entropy the candidate pays (nats)"""
    uncertainty: Tensor
    """``[B, N]``: H, the mean entropy of the masks it would leave (nats)"""


@dataclass(frozen=True)
class Commit:
    """Which of the scored positions get which tokens.

    ``where`` and ``tokens`` lie over ``Scores.at``: ``[B, K]``, or ``[B, N, K]`` inside an ``Evaluate``. The mask id
    as a token re-masks a position.
    """

    where: Tensor
    tokens: Tensor
    scores: Scores | None = None
    """The next step's scores, if already known"""
    known: Tensor | None = None
    """bool ``[B]``: for which rows they are (None: all)"""
    bypass: Tensor | None = None
    """bool ``[B]``: rows that were committed without the sampler's usual deliberation; named in the trace"""
    memory: Rowwise | None = None
    """What the sampler remembers from here on; None: what it did"""
    source: Tensor | None = None
    """int64 ``[B']``: the row that each new row continues from (beams); all else here is then of the new rows,
    ``where`` and ``tokens`` over ``Scores.at`` of their sources. None: its own"""
    candidate_scores: CandidateScores | None = None
    """The candidates this commit was chosen from"""


@dataclass(frozen=True)
class Evaluate:
    """Asks the engine to score candidate commits. Neither the state nor the cache changes.

    ``valid`` ``[B, N]``: which candidates to run. ``reach``: the masks to score, of the whole canvas ("open") or of the
    current block ("span"; always on a block-causal model, which sees no later one). ``commits_a_candidate``: a promise
    that spares the next step a transfer. Each row then commits one of its valid candidates together with the scores of
    it; or, where it has none, its first candidate, without scores.
    """

    candidates: Commit
    valid: Tensor
    reach: Literal["open", "span"] = "open"
    commits_a_candidate: bool = False


class Sampler(Protocol):
    """A decoding policy: which masked positions to commit, and to which tokens.

    ``Sampler(options)`` is called with an instance of ``Options``. It keeps nothing else in ``self``.
    ``mdm.protocols.sampler.BaseSampler`` has the usual answers to all but ``decide``.
    """

    Options: ClassVar[type[BaseModel]]
    works_on: ClassVar[Literal["block", "canvas"]]
    """Which masked positions a row may commit: its current block's, or all of them."""
    reads: ClassVar[Literal["masked", "generated"]]
    """Which of them are scored: masks, or also positions decoded before."""
    budgets: ClassVar[Literal["masks", "size"]]
    """What the schedule divides among a block's steps: its masks, or its size."""
    pace: ClassVar[Literal["schedule", "own"]]
    """Whether a step commits at most ``state.budget`` tokens, or as many as the sampler sees fit."""
    keeps_logits: ClassVar[bool]
    """Whether ``Scores.logits`` is wanted."""

    def decide(
        self, state: State, scores: Scores, memory: Any, draws: Draws
    ) -> Commit | Generator[Evaluate, Scores, Commit]:
        """One step for all rows at once. May first yield ``Evaluate`` to see what a commit would bring."""
        ...


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
        """bool ``[B]``: rows that are done; by default those without masks."""
        return ~state.masked.any(-1)

    def lingers(self, state: State, memory: Any) -> Tensor:
        """bool ``[B]``: rows that stay in a block which has no mask left, to edit it; by default none."""
        return torch.zeros_like(state.entered_block)

    def pick(self, state: State, memory: Any) -> Tensor:
        """int64 ``[P]``: of these rows, all finished, the one that answers each prompt (default: each its own)."""
        return torch.arange(state.tokens.shape[0], device=state.device)
