"""From one state to the next: what a step runs and scores, and what a commit leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from mdm.engine.canvas import advance, fill_after_eos, mask_after_lost_eos
from mdm.engine.decisions import Asked, check_flags, check_plan, ranked
from mdm.engine.rows import NamedCounts, RowCounts
from mdm.models.features import FeatureStore
from mdm.models.kv_store import KVStore
from mdm.models.model import Model
from mdm.protocols.cache import Plan
from mdm.protocols.model import ModelSpec
from mdm.protocols.rowwise import fast_replace
from mdm.protocols.sampler import BaseSampler, Commit
from mdm.protocols.scores import Scores
from mdm.protocols.settings import Settings
from mdm.protocols.state import State
from mdm.protocols.upload import to_device
from mdm.scoring.forward_batch import Query
from torch import Tensor
from torch.nn.functional import pad

Sets = dict[str, Tensor]
"""Name -> positions, bool ``[B, L]``"""
Flags = dict[str, Tensor]
"""Name -> rows, bool ``[B]``, or numbers of theirs"""


class Transition:
    """The rules of one decode, as functions of a state.

    Args:
        eos_ids: the end tokens, int64 ``[E]`` on the device.
    """

    def __init__(self, spec: ModelSpec, sampler: Any, cache: Any, settings: Settings, eos_ids: Tensor) -> None:
        self.spec, self.sampler, self.cache, self.settings, self.eos_ids = spec, sampler, cache, settings, eos_ids
        self.asked, self.cache_asked = Asked("sampler", sampler), Asked("cache", cache)
        self.may_linger = getattr(sampler.lingers, "__func__", None) is not BaseSampler.lingers
        """whether the sampler has an answer of its own, which is asked for only then"""
        self.new_store: Callable[[Model, int, int], KVStore] = KVStore
        if cache.inside_layers:
            self.new_store = partial(FeatureStore, partial(ranked, self.cache_asked), cache.full_layers)
        self.fills = settings.stop_at_eos and len(eos_ids) > 0
        self._places: dict[int, Tensor] = {}

    def wanted(self, state: State) -> Tensor:
        """bool ``[B, L]``: the positions that the sampler wants scored."""
        if self.sampler.reads == "masked":
            return state.masked_in_block if self.sampler.sees == "block" else state.masked
        return state.targets & state.in_block if self.sampler.sees == "block" else state.targets

    def readable(self, run: Tensor) -> Tensor:
        """bool ``[B, L]``: the positions that a forward gives scores of which ``run``s those, bool ``[B, L]``."""
        return pad(run[:, :-1], (1, 0)) if self.spec.shift else run

    def scorable(self, state: State, run: Tensor) -> Tensor:
        """bool ``[B, L]``: of these the positions that anybody wants scored."""
        wanted = self.wanted(state) if self.cache.sees == "block" else self.wanted(state) | state.masked
        return wanted & self.readable(run)

    def shown(self, state: State, scores: Scores) -> Scores:
        """What the sampler is shown of ``scores``, which may be the cache mode's too."""
        if self.cache.sees == "block":
            return scores
        return fast_replace(scores, valid=scores.valid & self.wanted(state).gather(1, scores.positions))

    def open_to_commits(self, state: State, scores: Scores) -> Tensor:
        """bool ``[B, K]``: the scored positions that a commit may name; what lies before the row's block is final."""
        if self.sampler.sees == "block":
            return scores.valid
        return scores.valid & (state.blocks.gather(1, scores.positions) >= state.block[:, None])

    def plan(self, state: State, memory: Any = None) -> Plan:
        """What the cache mode has the next forward run, with its ``memory`` if it has one; with shifted logits also the
        position before each."""
        plan: Plan = self.cache_asked.ask("plan", state, self.spec, *([] if memory is None else [memory]))
        check_plan(self.cache_asked, plan, state)
        if self.spec.shift:
            watched = None if plan.watched is None else _with_left(plan.watched)
            plan = replace(plan, query=_with_left(plan.query), window=_with_left(plan.window), watched=watched)
        return plan

    def counted(self, state: State, plan: Plan, known: Tensor, memory: Any) -> tuple[Sets, Flags]:
        """What ``RowCounts`` are counted from; ``known`` bool ``[B]`` are the rows whose scores are known."""
        finished: Tensor = self._told("finished", state, memory)
        if self.may_linger:
            finished = finished & ~state.lingers  # type: ignore[operator]  # as a step left it
        sets = {
            "masked": state.masked_in_block,
            "block_size": state.in_block,
            "scored": self.scorable(state, plan.reached),
            "query": plan.query,
            "window": plan.window,
            "write": plan.write,
        }
        flags = {"entered": state.entered_block, "known": known, "finished": finished}
        if plan.watched is not None and plan.picked is not None:
            sets["watched"], flags["picked"] = plan.watched, plan.picked
        return sets, flags

    def _told(self, method: str, state: State, memory: Any) -> Tensor:
        """bool ``[B]``: what the sampler says of each row."""
        flags: Tensor = self.asked.ask(method, state, memory)
        check_flags(self.asked, method, flags, state)
        return flags

    def counts(self, state: State, plan: Plan, known: Tensor, memory: Any) -> NamedCounts:
        """The ``RowCounts`` of all rows, still on the device."""
        return NamedCounts.of(*self.counted(state, plan, known, memory))

    def commit(self, state: State, positions: Tensor, where: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Canvases ``[B, L]`` with ``tokens`` at ``positions`` where ``where``, all ``[B, K]``, and their masks."""
        # No model can look up a token out of its vocabulary. The trace has it as it is, and who reads that refuses it.
        tokens = tokens.clamp(0, self.spec.vocab_size - 1)
        # Padding in ``positions`` may name a position that is written, so what is not written adds nothing.
        canvas = state.tokens.scatter_add(1, positions, (tokens - state.tokens.gather(1, positions)) * where)
        return canvas, state.targets & (canvas == state.mask_id)

    def canvas_number(self, tokens: Tensor) -> Tensor:
        """int64 ``[B]``: a number for each canvas of ``tokens`` ``[B, L]``, of which others hardly have the same."""
        places = self._places.get(tokens.shape[1])
        if places is None:
            self._places[tokens.shape[1]] = places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return (tokens * places).sum(1)

    def next_state(
        self, state: State, tokens: Tensor, masked: Tensor, memory: Any, stay: bool = False
    ) -> tuple[State, Sets]:
        """The state that ``state`` becomes with these canvases ``[B, L]``, and what changes beside the commit.

        Masks are ``filled`` behind an end token: of a sampler that may linger only as the row leaves its block, whose
        tokens are final then. End tokens are ``emptied``, masked again, where the one before them was taken back.

        ``stay``: the host knows already that no row enters a block.
        """
        moved, leaves = state.replace(tokens=tokens, masked=masked, step=state.step + 1), None
        if self.may_linger:
            seen = moved.replace(block_step=state.block_step + 1, entered_block=torch.zeros_like(state.entered_block))
            done = ~moved.masked_in_block.any(1)
            lingers = self._told("lingers", seen, memory) & done
            moved, leaves = moved.replace(lingers=lingers), done & ~lingers
        changed: Sets = {}
        if self.fills:
            before = masked
            if self.sampler.reads != "masked" and not self.may_linger:
                tokens, masked = mask_after_lost_eos(tokens, masked, state, self.eos_ids)
            tokens, masked = fill_after_eos(tokens, masked, state, self.eos_ids, leaves)
            changed = {"filled": before & ~masked}
            if self.sampler.reads != "masked":
                changed["emptied"] = masked & ~before
            moved = moved.replace(tokens=tokens, masked=masked)
        return advance(moved, stay), changed

    def known(self, state: State, changed: Sets, scored: Tensor, stay: bool = False) -> Tensor:
        """bool ``[B]``: rows of the next ``state`` that need no forward, of those that the sampler has ``scored``."""
        if not self.settings.reuse_scores:
            return torch.zeros_like(scored)
        known = scored if stay else scored & ~state.entered_block
        for positions in changed.values():
            known = known & ~positions.any(1)
        return known

    def scored_rows(self, commit: Commit, like: Tensor) -> tuple[Scores | None, Tensor]:
        """The scores that come with a commit, and the rows ``[B]`` for which they are those of the next step."""
        if commit.scores is None:
            return None, torch.zeros_like(like)
        known = torch.ones_like(like) if commit.known is None else commit.known
        return fast_replace(commit.scores, canvas=None), known

    def without_foreign_draws(self, commit: Commit, own: Sequence[bool]) -> Commit:
        """``commit`` without the scores of rows whose tokens are not their ``own``: drawn with the numbers of the row
        that they left."""
        if commit.scores is None or all(own):
            return commit
        is_own = to_device(own, commit.where.device).bool()
        return replace(commit, known=is_own if commit.known is None else is_own & commit.known)


def query_of(plan: Plan, counts: Sequence[RowCounts], write: bool) -> Query:
    """What a forward runs of the rows of a plan, and stores if it is to ``write``."""
    query = Query(plan.query, [c.query for c in counts])
    if write:
        query = replace(query, write=plan.write, write_counts=[c.write for c in counts])
    if plan.watched is not None:
        query = replace(
            query, watched=plan.watched, watched_counts=[c.watched for c in counts], picked=[c.picked for c in counts]
        )
    return query


def _with_left(query: Tensor) -> Tensor:
    """The positions of ``query`` and the one before each: where shifted logits are read."""
    return query | pad(query[:, 1:], (0, 1))
