"""The decoding loop. Nothing else decodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from mdm.canvas import Request, Row, advance, fill_after_eos, join, open_rows, share_costs
from mdm.forward import Query, Scorer, attach_redraw
from mdm.rng import Draws
from mdm.rules import LogitRules
from mdm.state import Commit, Evaluate, Plan, Scores, State
from mdm.trace import Recorder, StepEvent
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from mdm.model import Model


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
    """Whether what runs at every step is compiled (``mdm.compiling``)."""
    reuse: bool = True
    """Whether scores that a sampler already knows replace the next step's forward."""


@dataclass(frozen=True)
class _Look:
    """What the host learns of each row in the one transfer of a step."""

    open: list[int]
    size: list[int]
    reads: list[int]
    query: list[int]
    window: list[int]
    writes: list[int]
    known: list[int]
    entered: list[int]
    done: list[int]


class Engine:
    """Decodes requests with a model, a sampler and a cache mode.

    ``on_finish(row)`` is called as each request ends; ``on_step`` with every
    step's event, if given. ``full_trace``: see ``mdm.trace.Line``.
    """

    def __init__(
        self,
        model: Model,
        sampler: Any,
        cache: Any,
        settings: Settings,
        *,
        on_finish: Callable[[Row], None],
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
        self.rows: list[Row] = []
        self.state: State
        self.memory: Any = None
        self.scores: Scores | None = None
        self.known: Tensor

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
            plan, look = self._look()
            if any(look.done):
                self._release(look.done)
                continue
            self._step(plan, look)

    def _admit(self, requests: Sequence[Request]) -> None:
        settings = self.settings
        rows, state = open_rows(
            requests, self.model.spec, settings.block_length, self.grid, self.sampler.works_on, self.model.device
        )
        for row in rows:
            row.plan_steps(settings.steps)
        memory = self.sampler.begin(state)
        known = torch.zeros(len(rows), dtype=torch.bool, device=state.device)
        old = len(self.rows)
        if old:
            state = join(self.state, state)
            known = torch.cat([self.known, known])
            if memory is not None:
                memory = self.memory.join(memory)
            if self.scores is not None:
                self.scores = self.scores.placed(torch.arange(old, device=state.device), old + len(rows))
        length = state.tokens.shape[1]
        if self.cache.uses_kv:
            if self.scorer.store is None:
                self.scorer.keep(len(rows), length)
            else:
                self.scorer.store.grow(len(rows) * self.scorer.guises, length)
        self.rows, self.state, self.memory, self.known = self.rows + rows, state, memory, known

    def _release(self, done: Sequence[int]) -> None:
        """Hand finished rows over and keep the others."""
        ended = [i for i, d in enumerate(done) if d]
        if len({self.rows[i].request for i in ended}) < len(ended):
            index = _index(ended, self.state.device)
            memory = None if self.memory is None else self.memory.rows(index)
            [picked] = self.recorder.take(self.sampler.pick(self.state.rows(index), memory))
            ended = [ended[i] for i in picked]
        else:
            self.recorder.take()
        for i in ended:
            self.on_finish(self.rows[i])
        left = [i for i, d in enumerate(done) if not d]
        self._continue_from(_index(left, self.state.device), left)

    def _continue_from(self, index: Tensor, kept: list[int]) -> None:
        """rows := rows[index], everywhere. A row that is taken again is a fork, with draws of its own."""
        if kept == list(range(len(self.rows))):
            return
        turn = [kept[:i].count(row) for i, row in enumerate(kept)]
        self.rows = [copy.copy(self.rows[row]) if t else self.rows[row] for row, t in zip(kept, turn, strict=True)]
        self.state, self.known = self.state.rows(index), self.known[index]
        if any(turn):
            draws = Draws(self.settings.seed, self.state.row_id, self.state.step)
            self.state = replace(self.state, row_id=draws.forked(_index(turn, index.device)))
        self.memory = None if self.memory is None else self.memory.rows(index)
        self.scores = None if self.scores is None or not kept else self.scores.rows(index)
        self.scorer.take(index)
        if not kept:
            self.scorer.store = None

    def _readable(self) -> Tensor:
        """bool ``[B, L]``: what this sampler reads of the row's span."""
        state = self.state
        return state.open if self.sampler.reads == "masked" else state.slots & state.in_span

    def _look(self) -> tuple[Plan, _Look]:
        """Plan the step, and learn what the host must know of it in one transfer."""
        state = self.state
        plan = self.cache.plan(state, self.model.spec)
        if self.model.spec.shift:
            plan = replace(plan, query=_with_left(plan.query), window=_with_left(plan.window))
        columns = [
            state.open, state.in_span, self._readable(), plan.query, plan.window, plan.write.any(1), self.known,
            state.entered, self.sampler.finished(state, self.memory),
        ]  # fmt: skip
        [facts] = self.recorder.take(torch.stack([c.sum(1) if c.dim() == 2 else c.long() for c in columns]))
        return plan, _Look(*facts.tolist())

    def _step(self, plan: Plan, look: _Look) -> None:
        state, device = self.state, self.state.device
        for b, row in enumerate(self.rows):
            row.forwards = row.forwarded_rows = row.candidates = 0
            if look.entered[b]:
                row.enter(look.open[b] if self.sampler.budgets == "masks" else look.size[b], self.settings)
        budget = _index([row.budget(look.open[b]) for b, row in enumerate(self.rows)], device)
        self.state = state = replace(state, budget=budget)
        draws = Draws(self.settings.seed, state.row_id, state.step)

        scores = self._fresh_scores(plan, look, draws)
        scores = replace(scores, valid=scores.valid & self._readable().gather(1, scores.at))
        scores = attach_redraw(self.scorer, state, scores, draws)
        commit = self._decide(plan, look, scores, draws)
        if commit.source is not None:
            share_costs(self.rows)
            [kept] = self.recorder.take(commit.source)
            self._continue_from(commit.source, kept.tolist())
            scores = scores.rows(commit.source)
        if commit.memory is not None:
            self.memory = commit.memory
        self._apply(commit, scores)

    def _fresh_scores(self, plan: Plan, look: _Look, draws: Draws) -> Scores:
        """This step's scores of every row: known from the last step, or from a forward now."""
        state, count = self.state, len(self.rows)
        need = [b for b in range(count) if look.writes[b] or not look.known[b]]
        refresh = [b for b in need if look.writes[b]]
        windowed = [b for b in need if not look.writes[b]]
        if not self.cache.uses_kv:
            refresh, windowed = [], need
        scores = self.scores if len(need) < count else None
        for group in (refresh, windowed):
            if not group:
                continue
            index = _index(group, state.device)
            query = None
            if self.cache.uses_kv:
                write = plan.write[index] if group is refresh else None
                query = Query(plan.query[index], [look.query[b] for b in group], write)
            part = self.scorer.scores(
                state, index, state.tokens[index], [self.rows[b].length for b in group],
                self._readable()[index], [look.reads[b] for b in group],
                torch.zeros_like(index), draws.rows(index), query,
            )  # fmt: skip
            for b in group:
                self.rows[b].count(self.scorer.guises)
            scores = part if len(group) == count else part.placed(index, count, scores)
        assert scores is not None
        return scores

    def _decide(self, plan: Plan, look: _Look, scores: Scores, draws: Draws) -> Commit:
        decision = self.sampler.decide(self.state, scores, self.memory, draws)
        if isinstance(decision, Commit):
            return decision
        try:
            asked = next(decision)
            while True:
                asked = decision.send(self._evaluate(asked, scores, plan, look, draws))
        except StopIteration as end:
            commit: Commit = end.value
            return commit

    def _evaluate(self, asked: Evaluate, scores: Scores, plan: Plan, look: _Look, draws: Draws) -> Scores:
        """Scores ``[B, N, K]`` of the canvases that the candidates would lead to."""
        state, spec = self.state, self.model.spec
        rows, candidates = asked.valid.shape
        where = asked.candidates.where & asked.valid[..., None]
        at = scores.at[:, None].expand_as(where)
        tokens = _put(state.tokens[:, None].expand(-1, candidates, -1), at, where, asked.candidates.tokens)
        masked = state.masked[:, None] & (tokens == spec.mask_id)
        reach = masked & state.in_span[:, None] if asked.reach == "span" or self.grid else masked
        read = reach & plan.window[:, None] & asked.valid[..., None]
        unseen = (reach & ~plan.window[:, None]).sum(-1)
        [found] = self.recorder.take(torch.where(asked.valid, read.sum(-1), -1))
        counts: list[list[int]] = found.tolist()
        flat = [(b, n) for b in range(rows) for n in range(candidates) if counts[b][n] >= 0]
        if not flat:
            return scores.blank(rows * candidates, 1).unflatten(rows, candidates)
        for b in range(rows):
            tried = sum(c >= 0 for c in counts[b])
            self.rows[b].candidates = tried
            if tried:
                self.rows[b].count(tried * self.scorer.guises)
        row = _index([b for b, _ in flat], state.device)
        pick = _index([b * candidates + n for b, n in flat], state.device)
        query = None
        if self.cache.uses_kv:
            query = Query(plan.window[row], [look.window[b] for b, _ in flat], None)
        part = self.scorer.scores(
            state, row, tokens.flatten(0, 1)[pick], [self.rows[b].length for b, _ in flat], read.flatten(0, 1)[pick],
            [counts[b][n] for b, n in flat], unseen.flatten()[pick], draws.rows(row).later(), query,
        )  # fmt: skip
        return part.placed(pick, rows * candidates).unflatten(rows, candidates)

    def _apply(self, commit: Commit, scores: Scores) -> None:
        state, spec = self.state, self.model.spec
        where = commit.where & scores.valid
        tokens = _put(state.tokens, scores.at, where, commit.tokens)
        masked = state.slots & (tokens == spec.mask_id)
        self.recorder.commit(self.rows, scores, where, commit)
        filled = torch.zeros_like(self.known)
        if self.settings.stop_at_eos and self.settings.eos_ids:
            before = masked
            tokens, masked = fill_after_eos(tokens, masked, state, self.settings.eos_ids)
            fills = before & ~masked
            filled = fills.any(1)
            self.recorder.fill(self.rows, fills, self.settings.eos_ids[0])
        self.state = state = advance(replace(state, tokens=tokens, masked=masked, step=state.step + 1))
        for row in self.rows:
            row.block_step += 1
        self.scores, self.known = commit.scores, torch.zeros_like(filled)
        if commit.scores is not None and self.settings.reuse:
            known = ~filled & ~state.entered
            self.known = known if commit.known is None else known & commit.known


def _index(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)


def _with_left(query: Tensor) -> Tensor:
    """The positions of ``query`` and the one before each: where shifted logits are read."""
    return query | pad(query[:, 1:], (0, 1))


def _put(canvas: Tensor, at: Tensor, where: Tensor, tokens: Tensor) -> Tensor:
    """``canvas`` ``[..., L]`` with ``tokens`` at the positions ``at`` where ``where`` ``[..., K]``."""
    length = canvas.shape[-1]
    # What is not written goes to a column of its own: padding in ``at`` may name a position that is written.
    target = at.masked_fill(~where, length)
    return pad(canvas, (0, 1)).scatter(-1, target, tokens.expand_as(target))[..., :length]
