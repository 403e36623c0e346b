"""The decoding loop. Nothing else decodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import torch
from mdm.engine import decisions
from mdm.engine.canvas import join, open_rows, trimmed
from mdm.engine.decisions import MAX_ASKED, check_commit, check_evaluate, check_source, go_on
from mdm.engine.evaluate import evaluate
from mdm.engine.faults import not_finite
from mdm.engine.remembered import Remembered
from mdm.engine.requests import Request
from mdm.engine.row_draws import RowDraws
from mdm.engine.rows import RowRecord, count_calls, row_counts, share_costs
from mdm.engine.trace import OnRow, Recorder
from mdm.engine.transition import Transition, query_of
from mdm.errors import PromptError
from mdm.models.cuda_graphs import GraphCache
from mdm.models.model import Model
from mdm.models.transfer import Array, on_host, to_device
from mdm.protocols.cache import Plan, Seen
from mdm.protocols.draws import Draws
from mdm.protocols.hooks import StepEvent
from mdm.protocols.rowwise import fast_replace
from mdm.protocols.sampler import Commit, Evaluate
from mdm.protocols.scores import Scores
from mdm.protocols.settings import Settings
from mdm.protocols.state import State
from mdm.protocols.upload import upload
from mdm.scoring.folding import Folding
from mdm.scoring.forward_batch import ForwardBatch
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.scorer import Scorer
from torch import Tensor


class Engine:
    """Decodes requests with a model, a sampler and a cache mode.

    Args:
        settings: with a block length, and with sizes that are numbers or None.
        rules: what is done to logits before they are scored.
        eos_ids: the end tokens, for ``stop_at_eos``.
        on_finish: called with the record of each row as it ends.
        on_step: called with every step's event, if given.
        on_row: called with every row of a step, see ``Recorder``.
        logits: whether it is given logits.
        full_trace: whether trace lines carry confidences and the candidates that were compared.
        graphs: where forwards whose shapes repeat are captured, if they are.
    """

    def __init__(
        self,
        model: Model,
        sampler: Any,
        cache: Any,
        settings: Settings,
        rules: LogitRules,
        eos_ids: tuple[int, ...] = (),
        *,
        on_finish: Callable[[RowRecord], None],
        on_step: Callable[[StepEvent], None] | None = None,
        on_row: OnRow | None = None,
        logits: bool = False,
        full_trace: bool = False,
        graphs: GraphCache | None = None,
    ) -> None:
        self.model, self.sampler, self.cache, self.settings = model, sampler, cache, settings
        self.transition = Transition(model.spec, sampler, cache, settings, to_device(eos_ids, model.device))
        self.asked = self.transition.asked
        self.scorer = Scorer(
            model, rules, settings, eos_ids, held=sampler.reads != "masked", left_out=sampler.reads == "left-out",
            logits=sampler.keeps_logits, features=logits, graphs=graphs, new_store=self.transition.new_store,
        )  # fmt: skip
        self.recorder = Recorder(
            model.spec.mask_id, next(iter(eos_ids), None), on_step, full=full_trace,
            vocab_size=model.spec.vocab_size, on_row=on_row,
        )  # fmt: skip
        self.on_finish = on_finish
        self.rows: list[RowRecord] = []
        self.state: State
        self.memory = Remembered()
        self.folded: Tensor | None = None
        """what the cache mode has made of this step's attention"""
        self.scores: Scores | None = None
        """the next step's scores, as far as they are known"""
        self.known: Tensor
        """bool ``[B]``: rows whose next scores are known"""
        self._row_index: Tensor
        self._scheduled: tuple[list[int], list[int]] = ([], [])
        self._leaving: list[RowRecord] = []
        self._arrived: list[RowRecord] = []
        self._draws = RowDraws(ahead=sampler.sees == "block")

    @torch.inference_mode()
    def step(self) -> None:
        """Make a step of all rows, or take those out that are finished.

        Raises:
            MdmError: the sampler gets nowhere; the rows mean nothing then.
        """
        plan = self._plan_step()
        if any(row.counts and row.counts.finished for row in self.rows):
            self._release()
        else:
            self._step(plan)

    @torch.inference_mode()
    def flush(self) -> None:
        """Write what is still on the device of the trace, and hand over the rows that have ended."""
        self._fetch()
        self._settle()

    @torch.inference_mode()
    def drop(self, requests: Collection[int]) -> None:
        """Take out the rows of ``requests``, finished or not; they are not handed over."""
        left = [i for i, row in enumerate(self.rows) if row.request not in requests]
        if len(left) < len(self.rows):
            self.flush()
            self._continue_from(to_device(left, self.state.device), left)

    @torch.inference_mode()
    def trim(self) -> None:
        """Give back room for canvases, with what is stored of them, of which the rows need less than half."""
        longest = max((row.length for row in self.rows), default=0)
        longest += -longest % self.scorer.length_multiple
        if self.rows and 2 * longest <= self.state.tokens.shape[1]:
            self.state = trimmed(self.state, longest)
            self.scorer.trim_store(len(self.rows), longest)

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> None:
        """Begin rows for ``requests`` beside those that are there."""
        rows, state = open_rows(
            requests, self.model.spec, self.settings, self.sampler.works_on,
            guided=self.scorer.cfg_branches == 2, multiple=self.scorer.length_multiple,
        )  # fmt: skip
        memory = Remembered.begin(self.asked, self.transition.cache_asked, state)
        known = torch.zeros(len(rows), dtype=torch.bool)
        if self.transition.may_linger:
            state = state.replace(lingers=known)
        # Before the rows go to the device, what the host has to know of them costs no wait.
        counts = self.transition.counts(state, self.transition.plan(state, memory.cache), known, memory.sampler)
        self._set_counts(rows, counts.on_host(on_host(counts.values)))
        for row, request in zip(rows, requests, strict=True):
            row.split_steps()
            row.readout = self.scorer.readout_of(request.settings, request.rules)
        device, before = self.model.device, len(self.rows)
        state, known, memory = state.to(device), upload(known, device), memory.to(device)
        if before:
            state, memory = join(self.state, state), self.memory.join(memory)
            known = torch.cat([self.known, known])
            if self.scores is not None:
                index = torch.arange(before, device=state.device)
                self.scores = self.scores.scatter_rows(index, before + len(rows))
        if self.cache.uses_kv:
            self.scorer.open_store(before + len(rows), state.tokens.shape[1])
        self.rows, self.state, self.memory, self.known = self.rows + rows, state, memory, known
        self._rows_changed()

    def _release(self) -> None:
        """Take finished rows out; they are handed over when the end of their trace has come to the host."""
        ended = [i for i, row in enumerate(self.rows) if row.counts and row.counts.finished]
        left = [i for i in range(len(self.rows)) if i not in ended]
        if len({self.rows[i].request for i in ended}) < len(ended):
            index = to_device(ended, self.state.device)
            memory = self.memory.rows(index).sampler
            [picked] = self._fetch(self.asked.ask("pick", self.state.rows(index), memory))
            finished = [self.rows[i] for i in ended]
            check_source(self.asked, picked.tolist(), finished)
            ended = [ended[i] for i in picked]
        self._leaving += [self.rows[i] for i in ended]
        self._continue_from(to_device(left, self.state.device), left)

    def _continue_from(self, index: Tensor, kept: list[int]) -> None:
        """rows := rows[index], everywhere. A row that is taken again is a fork, with draws of its own."""
        if kept == list(range(len(self.rows))):
            return
        self._settle()
        turn = [kept[:i].count(row) for i, row in enumerate(kept)]
        self.rows = [self.rows[row].copy() if t else self.rows[row] for row, t in zip(kept, turn, strict=True)]
        self.state, self.known = self.state.rows(index), self.known[index]
        if any(turn):
            self.state = replace(self.state, row_id=self._draws.fork_ids(self.rows, self.state, turn))
        self.memory = self.memory.rows(index)
        self.scores = None if self.scores is None or not kept else self.scores.rows(index)
        self.scorer.select_rows(index)
        self._rows_changed()

    def _rows_changed(self) -> None:
        self._row_index = torch.arange(len(self.rows), device=self.state.device)
        self._scheduled = ([], [])
        self._draws.restart()
        self.scorer.readouts = [row.readout or self.scorer.readout for row in self.rows]
        if self.scores is not None and not self.scorer.keeps_features:
            self.scores = fast_replace(self.scores, features=None)

    def _fetch(self, *tensors: Tensor) -> list[Array]:
        """``tensors`` on the host: the one place where the host waits. All that waits for it comes along."""
        arrays = self.recorder.fetch(*tensors)
        self._arrived, self._leaving = self._arrived + self._leaving, []
        return arrays

    def _settle(self) -> None:
        """Write the lines that have arrived, and hand over the rows whose last line is among them."""
        self.recorder.write(self._refuse)
        arrived, self._arrived = self._arrived, []
        for row in arrived:
            decisions.check_answer(self.asked, row, self.model.spec.mask_id)
            self.on_finish(row)

    def _plan_step(self) -> Plan:
        """Plan the step. Counts that the host does not know yet are transferred, all in one."""
        plan = self.transition.plan(self.state, self.memory.cache)
        if any(row.counts is None for row in self.rows):
            counts = self.transition.counts(self.state, plan, self.known, self.memory.sampler)
            [values] = self._fetch(counts.values)
            self._set_counts(self.rows, counts.on_host(values))
        for row in self.rows:
            decisions.check_progress(self.asked, row, self._settle)
        return plan

    def _set_counts(self, rows: Sequence[RowRecord], columns: dict[str, list[int]]) -> None:
        for row, counts in zip(rows, row_counts(columns), strict=True):
            row.counts = counts

    def _refuse(self, row: RowRecord, step: int, what: str, number: int) -> NoReturn:
        """Raise the error for a row with a commit that is ``what``, or whose scores are not finite."""
        if what != "not finite":
            raise decisions.wrong_commit(self.asked, row, step, what, number)
        at = next((b for b, each in enumerate(self.rows) if each is row), None)
        seen = self.state.unconditional
        raise not_finite(self.model, row, step, None if seen is None or at is None else seen[at])

    def _step(self, plan: Plan) -> None:
        self._begin_step()
        draws = self._draws.of_step(self.rows, self.state)
        computed = self.scorer.with_redraw(self.state, self._scores(plan, draws), draws)
        scores = self.transition.shown(self.state, computed)
        self.recorder.watch(self.rows, scores)
        try:
            commit = self._decide(plan, scores, draws)
        except PromptError:  # of scores that are not finite, if that is why
            self._fetch()
            self._settle()
            raise
        share_costs(self.rows)
        if commit.source is not None:
            [source] = self._fetch(commit.source)
            kept = source.tolist()
            check_source(self.asked, kept, self.rows)
            self._continue_from(commit.source, kept)
            for row in self.rows:
                row.next_counts = None
            scores, computed = scores.rows(commit.source), computed.rows(commit.source)
            plan = plan.rows(commit.source)
            self.folded = None if self.folded is None else self.folded[commit.source]
            own = [kept.index(old) == i or not self.rows[i].settings.temperature for i, old in enumerate(kept)]
            commit = self.transition.without_foreign_draws(commit, own)
        before = self.state
        if commit.memory is not None:
            self.memory = replace(self.memory, sampler=commit.memory)
        self._apply(commit, scores)
        self.memory = self.memory.learned(
            self.transition.cache_asked, Seen(before, self.state, plan, computed, self.folded)
        )
        self._settle()  # last, since the device is at work by now

    def _begin_step(self) -> None:
        """Give each row its budget of this step, and what is planned for the block it has entered."""
        for row in self.rows:
            assert row.counts is not None
            if row.counts.entered:
                self._draws.restart()
                size = row.counts.masked if self.sampler.budgets == "masks" else row.counts.block_size
                row.enter_block(size)
            row.begin_step(row.counts.masked)
        budgets, planned = [row.budget for row in self.rows], [len(row.schedule) for row in self.rows]
        device = self.state.device
        if planned != self._scheduled[1]:
            self.state = self.state.replace(planned=to_device(planned, device))
        if budgets != self._scheduled[0]:
            self.state = self.state.replace(budget=to_device(budgets, device))
        self._scheduled = budgets, planned

    def _scores(self, plan: Plan, draws: Draws) -> Scores:
        """This step's scores of every row: known from the last step, or from a forward now."""
        count, scorable = len(self.rows), self.transition.scorable(self.state, plan.reached)
        counts = [row.counts for row in self.rows if row.counts is not None]
        writing = [b for b in range(count) if counts[b].write and self.cache.uses_kv]
        refresh, watching = ([b for b in writing if (counts[b].watched > 0) is some] for some in (False, True))
        windowed = [b for b in range(count) if not counts[b].known and b not in writing]
        scores = self.folded = None
        if len(writing) + len(windowed) < count:
            assert self.scores is not None
            valid = self.scores.valid & scorable.gather(1, self.scores.positions)
            scores = fast_replace(self.scores, valid=valid)
        for group in (refresh, watching, windowed):
            if group:
                part = self._forward(group, plan, group is not windowed, scorable, draws)
                index = to_device(group, scorable.device) if len(group) < count else None
                scores = part if index is None else part.scatter_rows(index, count, scores)
        assert scores is not None
        return scores

    def _forward(self, group: list[int], plan: Plan, write: bool, scorable: Tensor, draws: Draws) -> Scores:
        """Scores of the rows ``group`` from one forward, which stores what the plan says if it is to ``write``."""
        index, tokens = self._row_index, self.state.tokens
        if len(group) < len(self.rows):
            index = to_device(group, self.state.device)
            plan, tokens, scorable = plan.rows(index), tokens[index], scorable[index]
        rows = [self.rows[b] for b in group]
        counts = [row.counts for row in rows if row.counts is not None]
        query = query_of(plan, counts, write) if self.cache.uses_kv else None
        fold = None
        if self.cache.reads_attention:
            fold = Folding(partial(self.transition.cache_asked.ask, "fold"), plan.query, self.scorer.cfg_branches)
        batch = ForwardBatch(
            rows=group, row_index=index, tokens=tokens, lengths=[row.length for row in rows], score=scorable,
            score_counts=[c.scored for c in counts], unscored=torch.zeros_like(index), query=query,
            unconditional_starts=[row.unconditional_start for row in rows], fold=fold,
        )  # fmt: skip
        scores, calls = self.scorer.scores(self.state, batch, draws)
        if fold is not None:
            self.folded = fold.among(index, len(self.rows), self.folded)
        count_calls(self.rows, group, calls, self.scorer.cfg_branches)
        return scores

    def _decide(self, plan: Plan, scores: Scores, draws: Draws) -> Commit:
        decision = self.asked.ask("decide", self.state, scores, self.memory.sampler, draws)
        if isinstance(decision, Generator):
            decision = self._answered(decision, plan, scores, draws)
        check_commit(self.asked, decision, scores)
        commit: Commit = decision
        return commit

    def _answered(self, decision: Generator[Evaluate, Scores, Commit], plan: Plan, scores: Scores, draws: Draws) -> Any:
        """What a lookahead returns, once everything it asks for is evaluated."""
        answer = None
        for _ in range(MAX_ASKED):
            more, asked = self.asked.ask("decide", decision, answer, call=go_on)
            if not more:
                return asked
            check_evaluate(self.asked, asked, scores, self.state)
            answer = evaluate(
                asked, self.state, self.rows, scores, plan, draws, transition=self.transition,
                scorer=self.scorer, fetch=self._fetch, memory=self.memory,
            )  # fmt: skip
            self.recorder.watch(self.rows, answer)
        raise self.asked.error(f" gets nowhere: it has looked ahead {MAX_ASKED} times in one step")

    def _apply(self, commit: Commit, scores: Scores) -> None:
        """Commit to the canvases, record the step and go on to the next."""
        where = commit.where & self.transition.open_to_commits(self.state, scores)
        doubts, before = {"stray": commit.where & ~scores.valid}, None
        if self.sampler.reads != "masked":
            before = self.state.tokens.gather(1, scores.positions)
            where = where & (commit.tokens != before)
        tokens, masked = self.transition.commit(self.state, scores.positions, where, commit.tokens)
        if commit.scores is not None and commit.scores.canvas is not None:
            doubts["foreign"] = commit.scores.canvas.ne(self.transition.canvas_number(tokens))
            if commit.known is not None:
                doubts["foreign"] &= commit.known
        stay = all(row.next_counts is not None and not row.next_counts.entered for row in self.rows)
        self.state, changed = self.transition.next_state(self.state, tokens, masked, self.memory.sampler, stay)
        logits = self.scorer.logits_of(scores)
        self.recorder.record(self.rows, scores, where, commit, before, changed, doubts, logits)
        for row in self.rows:
            row.end_step()
        self.scores, scored = self.transition.scored_rows(commit, self.state.entered_block)
        self.known = self.transition.known(self.state, changed, scored, stay)
