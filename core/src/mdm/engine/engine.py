"""The decoding loop. Nothing else decodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from mdm.engine.canvas import advance, fill_after_eos, join, open_rows
from mdm.engine.requests import Request
from mdm.engine.rows import UNSEEN, RowCounts, RowRecord, share_costs
from mdm.engine.trace import Recorder
from mdm.models import transfer
from mdm.models.transfer import Array, to_device
from mdm.protocols.cache import Plan
from mdm.protocols.draws import Draws, NoiseCache, host_keys
from mdm.protocols.hooks import StepEvent
from mdm.protocols.rowwise import fast_replace, repeat_rows
from mdm.protocols.sampler import Commit, Evaluate
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.scorer import Query, Scorer, attach_redraw
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from mdm.models.model import Model


@dataclass(frozen=True)
class Settings:
    """How to decode, whatever the prompts, the model, the sampler and the cache."""

    block_length: int = 32
    steps: int | None = None
    tokens_per_step: int | None = None
    schedule: str = "even"
    temperature: float = 0.0
    guidance: float = 0.0
    rules: LogitRules = field(default_factory=LogitRules)
    stop_at_eos: bool = False
    eos_ids: tuple[int, ...] = ()
    seed: int = 0
    batch_size: int | None = None
    max_rows: int | None = None
    compile: bool = False
    """Whether the pass over the vocabulary is compiled; forwards are compiled by ``mdm.models.compiled``."""
    reuse: bool = True
    """Whether scores that a sampler already knows replace the next step's forward."""


class Engine:
    """Decodes requests with a model, a sampler and a cache mode.

    ``on_finish(row)`` is called as each request ends; ``on_step`` with every
    step's event, if given. ``full_trace``: see ``mdm.protocols.hooks.Line``.
    """

    def __init__(
        self,
        model: Model,
        sampler: Any,
        cache: Any,
        settings: Settings,
        *,
        on_finish: Callable[[RowRecord], None],
        on_step: Callable[[StepEvent], None] | None = None,
        full_trace: bool = False,
    ) -> None:
        spec = model.spec
        self.model, self.sampler, self.cache, self.settings = model, sampler, cache, settings
        self.grid = settings.block_length if spec.attention == "block-causal" else None
        self.scorer = Scorer(
            model, settings.rules, grid=self.grid, guidance=settings.guidance,
            temperature=settings.temperature, max_rows=settings.max_rows,
            held=sampler.reads == "generated", logits=sampler.keeps_logits,
            compile=settings.compile,
        )  # fmt: skip
        self.on_finish = on_finish
        self.recorder = Recorder(spec, on_step, full=full_trace)
        self.rows: list[RowRecord] = []
        self.state: State
        self.memory: Any = None
        self.scores: Scores | None = None
        self.known: Tensor
        self.index: Tensor
        self._budgets: list[int] = []
        self._foreseen: list[RowCounts] = []
        self._leaving: list[RowRecord] = []
        self._forked = False
        self._coming: NoiseCache | None = None
        self._since = 0

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> None:
        """Decode all ``requests``; a row that ends makes place for one that waits."""
        # Rows of like length share a batch, so that little is padding.
        waiting = sorted(requests, key=lambda r: -(len(r.tokens) + r.gen_length))
        size = self.settings.batch_size or len(waiting)
        while waiting or self.rows:
            if waiting and len(self.rows) < size:
                free = size - len(self.rows)
                self._admit(waiting[:free])
                waiting = waiting[free:]
            plan = self._look()
            if any(row.facts.done for row in self.rows):
                self._release()
            else:
                self._step(plan)
        self._fetch()

    def _admit(self, requests: Sequence[Request]) -> None:
        settings = self.settings
        rows, state = open_rows(requests, self.model.spec, settings.block_length, self.grid, self.sampler.works_on)
        memory, known = self.sampler.begin(state), torch.zeros(len(rows), dtype=torch.bool)
        # Before the rows go to the device, what the host has to know of them costs no wait.
        self._tell(rows, transfer.on_host(self._facts(state, self._plan(state), known, memory)))
        for row in rows:
            row.plan_steps(settings.steps)
        device, old = self.model.device, len(self.rows)
        state, known = state.to(device), known.to(device, non_blocking=True)
        memory = None if memory is None else memory.to(device)
        if old:
            state = join(self.state, state)
            known = torch.cat([self.known, known])
            if memory is not None:
                memory = self.memory.join(memory)
            if self.scores is not None:
                self.scores = self.scores.scatter_rows(torch.arange(old, device=state.device), old + len(rows))
        length = state.tokens.shape[1]
        if self.cache.uses_kv:
            if self.scorer.store is None:
                self.scorer.keep(len(rows), length)
            else:
                self.scorer.store.grow(len(rows) * self.scorer.guises, length)
        self.rows, self.state, self.memory, self.known = self.rows + rows, state, memory, known
        self._rows_changed()

    def _release(self) -> None:
        """Take finished rows out; they are handed over when the end of their trace has come to the host."""
        ended = [i for i, row in enumerate(self.rows) if row.facts.done]
        left = [i for i, row in enumerate(self.rows) if not row.facts.done]
        if len({self.rows[i].request for i in ended}) < len(ended):
            index = to_device(ended, self.state.device)
            memory = None if self.memory is None else self.memory.rows(index)
            [picked] = self._fetch(self.sampler.pick(self.state.rows(index), memory))
            ended = [ended[i] for i in picked]
        self._leaving += [self.rows[i] for i in ended]
        self._continue_from(to_device(left, self.state.device), left)

    def _continue_from(self, index: Tensor, kept: list[int]) -> None:
        """rows := rows[index], everywhere. A row that is taken again is a fork, with draws of its own."""
        if kept == list(range(len(self.rows))):
            return
        turn = [kept[:i].count(row) for i, row in enumerate(kept)]
        self.rows = [copy.copy(self.rows[row]) if t else self.rows[row] for row, t in zip(kept, turn, strict=True)]
        self.state, self.known = self.state.rows(index), self.known[index]
        if any(turn):
            self._forked = True
            draws = Draws(self.settings.seed, self.state.row_id, self.state.step)
            self.state = replace(self.state, row_id=draws.forked(to_device(turn, index.device)))
        self.memory = None if self.memory is None else self.memory.rows(index)
        self.scores = None if self.scores is None or not kept else self.scores.rows(index)
        self.scorer.take(index)
        if not kept:
            self.scorer.store = None
        self._rows_changed()

    def _fetch(self, *tensors: Tensor) -> list[Array]:
        """``tensors`` on the host: the one place where the host waits. All that waits for it comes along."""
        arrays = self.recorder.take(*tensors)
        leaving, self._leaving = self._leaving, []
        for row in leaving:
            self.on_finish(row)
        return arrays

    def _rows_changed(self) -> None:
        self.index, self._budgets = torch.arange(len(self.rows), device=self.state.device), []
        self._coming = None

    def _readable(self, state: State) -> Tensor:
        """bool ``[B, L]``: what this sampler reads of the row's span."""
        return state.masked_in_block if self.sampler.reads == "masked" else state.targets & state.in_block

    def _plan(self, state: State) -> Plan:
        plan: Plan = self.cache.plan(state, self.model.spec)
        if self.model.spec.shift:
            plan = replace(plan, query=_with_left(plan.query), window=_with_left(plan.window))
        return plan

    def _facts(self, state: State, plan: Plan, known: Tensor, memory: Any) -> Tensor:
        """int64 ``[F, B]``: the ``RowCounts`` of the rows of ``state``, whose scores are ``known`` ``[B]``."""
        return _numbers(*self._sets(state, plan, known, memory))

    def _sets(self, state: State, plan: Plan, known: Tensor, memory: Any) -> tuple[list[Tensor], list[Tensor]]:
        """What ``_numbers`` makes ``RowCounts`` of: sets of positions ``[B, L]``, and flags ``[B]``."""
        sets = [state.masked_in_block, state.in_block, self._readable(state), plan.query, plan.window, plan.write]
        return sets, [state.entered_block, known, self.sampler.finished(state, memory)]

    def _look(self) -> Plan:
        """Plan the step. RowCounts that the host does not know yet are transferred, all in one."""
        plan = self._plan(self.state)
        if any(row.facts is UNSEEN for row in self.rows):
            [facts] = self._fetch(self._facts(self.state, plan, self.known, self.memory))
            self._tell(self.rows, facts)
        return plan

    def _tell(self, rows: Sequence[RowRecord], facts: Array) -> None:
        for row, values in zip(rows, facts.T.tolist(), strict=True):
            row.facts = RowCounts(*values)

    def _step(self, plan: Plan) -> None:
        budgets = []
        for row in self.rows:
            row.forwards = row.forwarded_rows = row.candidates = 0
            if row.facts.entered:
                self._coming = None
                row.enter(row.facts.open if self.sampler.budgets == "masks" else row.facts.size, self.settings)
            budgets.append(row.budget(row.facts.open))
        if budgets != self._budgets:
            self.state, self._budgets = self.state.replace(budget=to_device(budgets, self.state.device)), budgets
        draws = self._draws()
        self._foreseen = [UNSEEN] * len(self.rows)
        scores = attach_redraw(self.scorer, self.state, self._scores(plan, draws), draws)
        commit = self._decide(plan, scores, draws)
        if commit.source is not None:
            share_costs(self.rows)
            [kept] = self._fetch(commit.source)
            self._continue_from(commit.source, kept.tolist())
            self._foreseen = [UNSEEN] * len(self.rows)
            scores = scores.rows(commit.source)
            commit = self._own_draws(commit, kept.tolist())
        if commit.memory is not None:
            self.memory = commit.memory
        self._apply(commit, scores)

    def _draws(self) -> Draws:
        host, seed = None, self.settings.seed
        if not self._forked:  # the ids of forks are made on the device
            host = host_keys(seed, [row.row_id for row in self.rows], [row.step for row in self.rows])
        if self._coming is None:
            self._coming, self._since = (
                NoiseCache(self.state.block_bounds[:, 0], max(row.width for row in self.rows)),
                0,
            )
        ahead, self._since = self._since, self._since + 1
        return Draws(seed, self.state.row_id, self.state.step, host, self._coming, ahead)

    def _scores(self, plan: Plan, draws: Draws) -> Scores:
        """This step's scores of every row: known from the last step, or from a forward now."""
        count, readable = len(self.rows), self._readable(self.state)
        facts = [row.facts for row in self.rows]
        refresh = [b for b in range(count) if facts[b].writes and self.cache.uses_kv]
        windowed = [b for b in range(count) if not facts[b].known and b not in refresh]
        scores = None
        if len(refresh) + len(windowed) < count:
            assert self.scores is not None
            scores = fast_replace(self.scores, valid=self.scores.valid & readable.gather(1, self.scores.positions))
        for group in (refresh, windowed):
            if group:
                part = self._forward(group, plan, group is refresh, readable, draws)
                scores = (
                    part if len(group) == count else part.scatter_rows(to_device(group, readable.device), count, scores)
                )
        assert scores is not None
        return scores

    def _forward(self, group: list[int], plan: Plan, write: bool, readable: Tensor, draws: Draws) -> Scores:
        """Scores of the rows ``group``, from one forward that keeps what the plan says if it is to ``write``."""
        state, index, facts = self.state, self.index, [self.rows[b].facts for b in group]
        tokens, query, kept = state.tokens, plan.query, plan.write
        if len(group) < len(self.rows):
            index = to_device(group, state.device)
            tokens, query, kept, readable = (x[index] for x in (tokens, query, kept, readable))
        for b in group:
            self.rows[b].count(self.scorer.guises)
        return self.scorer.scores(
            state, index, tokens, [self.rows[b].length for b in group],
            readable, [f.reads for f in facts], torch.zeros_like(index), draws,
            Query(group, query, [f.query for f in facts], kept if write else None, [f.writes for f in facts])
            if self.cache.uses_kv else None,
        )  # fmt: skip

    def _decide(self, plan: Plan, scores: Scores, draws: Draws) -> Commit:
        decision = self.sampler.decide(self.state, scores, self.memory, draws)
        if isinstance(decision, Commit):
            return decision
        try:
            asked = next(decision)
            while True:
                asked = decision.send(self._evaluate(asked, scores, plan, draws))
        except StopIteration as end:
            commit: Commit = end.value
            return commit

    def _evaluate(self, asked: Evaluate, scores: Scores, plan: Plan, draws: Draws) -> Scores:
        """Scores ``[B, N, K]`` of the canvases that the candidates would lead to.

        How many there are and what they read comes to the host in one transfer, together with what the next step has
        to know of the rows that they lead to.
        """
        rows, candidates = asked.valid.shape
        state, valid = self.state.repeat_rows(candidates), asked.valid.flatten()
        window, at = repeat_rows(plan.window, candidates), repeat_rows(scores.positions, candidates)
        where = (asked.candidates.where & scores.valid[:, None]).flatten(0, 1)
        tokens = _put(state.tokens, at, where, asked.candidates.tokens.expand(rows, candidates, -1).flatten(0, 1))
        masked = state.targets & (tokens == state.mask_id)
        reach = masked
        if asked.reach == "span" or self.grid:
            reach = masked & repeat_rows(self.state.in_block, candidates)
        read = reach & window
        sets, flags = [reach, read], [valid]
        ahead = asked.commits_a_candidate and self.memory is None
        if ahead:
            after, fills = self._after(state, tokens, masked)
            theirs = self._sets(after, self._plan(after), self._known(after, fills, valid), None)
            sets, flags = sets + theirs[0], theirs[1] + flags
        numbers = _numbers(sets, flags)
        unseen = numbers[0] - numbers[1]
        [host] = self._fetch(numbers)
        _, reads, *facts, tried = host.tolist()
        each = list(zip(*facts, strict=True))
        for b, row in enumerate(self.rows):
            its = slice(b * candidates, (b + 1) * candidates)
            if ahead:
                self._foreseen[b] = _agreed(each[its], tried[its])
            row.candidates = sum(tried[its])
            if row.candidates:
                row.count(row.candidates * self.scorer.guises)
        flat = [i for i, one in enumerate(tried) if one]
        if not flat:
            return scores.empty(rows * candidates, 1).unflatten(rows, candidates)
        from_rows = [i // candidates for i in flat]
        every = len(flat) == rows * candidates
        place = [] if every else [max(n - 1, 0) for n in accumulate(tried)]
        ids = to_device([*from_rows, *flat, *place], valid.device)
        index = ids[: len(flat)]
        if not every:
            pick, back = ids[len(flat) : 2 * len(flat)], ids[2 * len(flat) :]
            tokens, read, unseen, window = (x.index_select(0, pick) for x in (tokens, read, unseen, window))
        owner = [self.rows[b] for b in from_rows]
        query = None
        if self.cache.uses_kv:
            query = Query(from_rows, window, [row.facts.window for row in owner])
        part = self.scorer.scores(
            self.state, index, tokens, [row.length for row in owner], read, [reads[i] for i in flat], unseen,
            draws.later(), query,
        )  # fmt: skip
        if not every:
            part = part.rows(back)
            part = fast_replace(part, valid=part.valid & valid[:, None], unscored=part.unscored * valid)
        return part.unflatten(rows, candidates)

    def _after(self, state: State, tokens: Tensor, masked: Tensor, stay: bool = False) -> tuple[State, Tensor | None]:
        """The state that ``state`` becomes with these canvases ``[B, L]``, and which masks an EOS filled, if it may.

        ``stay``: the host knows already that no row enters a block.
        """
        fills = None
        if self.settings.stop_at_eos and self.settings.eos_ids:
            before = masked
            tokens, masked = fill_after_eos(tokens, masked, state, self.settings.eos_ids)
            fills = before & ~masked
        return advance(state.replace(tokens=tokens, masked=masked, step=state.step + 1), stay), fills

    def _known(self, after: State, fills: Tensor | None, scored: Tensor, stay: bool = False) -> Tensor:
        """bool ``[B]``: rows of ``after`` that need no forward, of those that the sampler has ``scored``."""
        if not self.settings.reuse:
            return torch.zeros_like(scored)
        known = scored if stay else scored & ~after.entered_block
        return known if fills is None else known & ~fills.any(1)

    def _own_draws(self, commit: Commit, kept: list[int]) -> Commit:
        """``commit`` without the scores of forks whose tokens were drawn with the numbers of the row they left."""
        own = [kept.index(row) == i for i, row in enumerate(kept)]
        if commit.scores is None or not self.settings.temperature or all(own):
            return commit
        theirs = to_device(own, self.state.device).bool()
        return replace(commit, known=theirs if commit.known is None else theirs & commit.known)

    def _apply(self, commit: Commit, scores: Scores) -> None:
        where = commit.where & scores.valid
        tokens = _put(self.state.tokens, scores.positions, where, commit.tokens)
        masked = self.state.targets & (tokens == self.state.mask_id)
        self.recorder.commit(self.rows, scores, where, commit)
        stay = all(facts is not UNSEEN and not facts.entered for facts in self._foreseen)
        self.state, fills = self._after(self.state, tokens, masked, stay)
        if fills is not None:
            self.recorder.fill(self.rows, fills, self.settings.eos_ids[0])
        for row, facts in zip(self.rows, self._foreseen, strict=True):
            row.block_step += 1
            row.facts = facts
        self.scores, scored = commit.scores, commit.known
        if commit.scores is None or scored is None:
            scored = torch.full_like(self.state.entered_block, commit.scores is not None)
        self.known = self._known(self.state, fills, scored, stay)


def _agreed(facts: Sequence[Sequence[int]], valid: Sequence[bool]) -> RowCounts:
    """What the candidates that a row may commit have in common: of ``facts`` of each, if they all have the same.

    These are the ``valid`` ones, or the first where none is.
    """
    possible = [each for each, may in zip(facts, valid, strict=True) if may] or facts[:1]
    return RowCounts(*possible[0]) if all(each == possible[0] for each in possible) else UNSEEN


def _numbers(sets: Sequence[Tensor], flags: Sequence[Tensor]) -> Tensor:
    """int64 ``[F, B]``: how many each of ``sets`` ``[B, L]`` holds, and ``flags`` ``[B]``."""
    return torch.cat([torch.stack(tuple(sets)).sum(-1), torch.stack(tuple(flags))])


def _with_left(query: Tensor) -> Tensor:
    """The positions of ``query`` and the one before each: where shifted logits are read."""
    return query | pad(query[:, 1:], (0, 1))


def _put(canvas: Tensor, at: Tensor, where: Tensor, tokens: Tensor) -> Tensor:
    """``canvas`` ``[B, L]`` with ``tokens`` at the positions ``at`` where ``where``, all ``[B, K]``."""
    # Padding in ``at`` may name a position that is written, so what is not written adds nothing.
    return canvas.scatter_add(1, at, (tokens - canvas.gather(1, at)) * where)
