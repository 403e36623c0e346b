"""Helpers for checks: prompts, instrumented samplers, and a comparison of decodings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Self, TypeVar

import torch
from mdm import api
from mdm.api import Result
from mdm.engine.decisions import Asked, check_commit
from mdm.models import Model
from mdm.protocols import BaseSampler, Commit, Decision, Draws, Evaluate, NoOptions, Scores, State, top_k
from torch import Tensor

from mdm_testing.toy import BLOCK, BYTES

T = TypeVar("T")

GEN = 2 * BLOCK
"""Tokens that a check generates: two blocks."""


def prompts(
    vocabulary: int = BYTES, lengths: Sequence[int] = (5, 11, 3, 8), avoid: Sequence[int] = ()
) -> list[list[int]]:
    """Prompts of different lengths."""
    allowed = torch.tensor([t for t in range(vocabulary) if t not in avoid])
    return [
        allowed[torch.randint(0, len(allowed), (n,), generator=torch.Generator().manual_seed(n))].tolist()
        for n in lengths
    ]  # fmt: skip


def essence(result: Result) -> list[tuple[Any, ...]]:
    """What two equal decodings share: which tokens were committed where, in which order."""
    return [(line["step"], line["positions"], line["tokens"], line["kind"]) for line in result.trace]


def decode(
    model: Model, prompts: Sequence[Sequence[int]], sampler: Any, cache: Any = "none", **settings: Any
) -> list[Result]:
    """``mdm.decode`` of two blocks of four."""
    settings = {"gen_length": GEN, "block_length": BLOCK} | settings
    return api.decode(model, prompts, sampler, cache=cache, **settings)


@dataclass(frozen=True)
class Decided:
    """One step as a sampler saw it, and what it answered. Everything is a copy made at that time."""

    state: State
    scores: Scores
    memory: Any
    draws: Draws
    asked: list[Evaluate]
    answers: list[Scores]
    commit: Commit


def named_as(wrapped: Any, kind: type[T]) -> T:
    """An empty instance of a wrapper of this kind that errors name as what it wraps: by its class and package."""
    own = type(wrapped)
    named = type(own.__name__, (kind,), {"__module__": own.__module__})
    made: T = object.__new__(named)
    return made


class Watched:
    """A sampler that behaves as the one it wraps, remembers every decision and shows it to ``look`` before it counts.

    Its class has the name and module of the one it wraps, which errors name. ``around`` gives a context for each turn
    of the sampler's own code.

    Raises:
        AssertionError: more than ``limit`` decisions.
    """

    def __new__(cls, sampler: Any, *_: Any, **__: Any) -> Self:
        return named_as(sampler, cls)

    def __init__(
        self,
        sampler: Any,
        limit: int = 1000,
        look: Callable[[Decided], None] | None = None,
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.sampler = sampler
        self.limit = limit
        self.look = look
        self.around = around
        self.decided: list[Decided] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def decide(self, state: State, scores: Scores, memory: Any, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        assert len(self.decided) < self.limit, f"it has not ended after {self.limit} steps"
        before = (copied(state), copied(scores), copy.deepcopy(memory), draws)
        asked: list[Evaluate] = []
        answers: list[Scores] = []
        with self.around():
            decision: Any = self.sampler.decide(state, scores, memory, draws)
        if isinstance(decision, Generator):
            try:
                with self.around():
                    question = next(decision)
                while True:
                    asked.append(question)
                    answer = yield question
                    answers.append(answer)
                    with self.around():
                        question = decision.send(answer)
            except StopIteration as end:
                decision = end.value
        check_commit(Asked("sampler", self.sampler), decision, scores)
        self.decided.append(Decided(*before, asked, answers, decision))
        if self.look is not None:
            self.look(self.decided[-1])
        commit: Commit = decision
        return commit


class Plain(BaseSampler):
    """The most confident k: what caches and models are checked with."""

    def decide(self, state: State, scores: Scores, memory: Any, draws: Draws) -> Decision:
        return Commit(top_k(scores.log_odds, scores.valid, state.budget), scores.token)


class Looking(BaseSampler):
    """Looks at two candidates and commits the one that leaves less uncertainty; tells ``around`` before and after."""

    def __init__(self, options: Any, around: Callable[[str], None] | None = None, heed: bool = True) -> None:
        super().__init__(options)
        self.around = around or (lambda moment: None)
        self.heed = heed

    def decide(self, state: State, scores: Scores, memory: Any, draws: Draws) -> Decision:
        return self._decide(state, scores)

    def _decide(self, state: State, scores: Scores) -> Generator[Evaluate, Scores, Commit]:
        first = top_k(scores.log_odds, scores.valid, state.budget)
        second = top_k(-scores.log_odds, scores.valid, state.budget)
        where = torch.stack([first, second], 1)
        tokens = scores.token[:, None].expand_as(where)
        self.around("before")
        ahead = yield Evaluate(Commit(where, tokens), where.any(-1))
        self.around("after")
        better = ahead.uncertainty().argmin(-1) if self.heed else torch.zeros_like(state.budget)
        row = torch.arange(better.shape[0], device=better.device)
        return Commit(where[row, better], scores.token)


def plain() -> Plain:
    return Plain(NoOptions())


def looking(**more: Any) -> Looking:
    return Looking(NoOptions(), **more)


def copied(item: Any) -> Any:
    """A dataclass with every tensor cloned."""
    changed = {f.name: v.clone() for f in fields(item) if isinstance(v := getattr(item, f.name), Tensor)}
    return type(item)(**{f.name: changed.get(f.name, getattr(item, f.name)) for f in fields(item)})


def difference(a: Any, b: Any) -> str | None:
    """The first tensor in which two dataclasses of one type differ, or None."""
    for f in fields(a):
        left, right = getattr(a, f.name), getattr(b, f.name)
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            if left.shape != right.shape or not torch.equal(left, right):
                return f.name
        elif isinstance(left, Tensor) != isinstance(right, Tensor):
            return f.name
        elif is_dataclass(left) and is_dataclass(right) and (inner := difference(left, right)) is not None:
            return f"{f.name}.{inner}"
    return None


def under(settings: Mapping[str, Any]) -> str:
    """The settings at the front of what is said of a decode; nothing where none differ from the usual."""
    return f"with {dict(settings)}: " if settings else ""


def of_rows(seen: Decided, values: Tensor) -> Tensor:
    """``values`` ``[B, ...]`` of the rows that a commit continues from."""
    return values if seen.commit.source is None else values[seen.commit.source]


def at_step(seen: Decided) -> int:
    return int(seen.state.step.max())


def say(what: str, seen: Decided, bad: Tensor) -> str:
    """What is wrong, and at which step, row and positions; ``bad`` bool ``[B, K]`` or ``[B, N, K]``."""
    row = int(bad.flatten(1).any(1).int().argmax())
    at = of_rows(seen, seen.scores.positions)[row]
    positions = at[bad.reshape(bad.shape[0], -1, bad.shape[-1])[row].any(0)].tolist()
    return f"{what}: step {at_step(seen)}, row {row}, positions {positions}"
