"""From canvases to scores: one model call, the LM head on the positions that are scored, statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from typing import Any
from weakref import WeakValueDictionary

import torch
from mdm.models.attention import hiding
from mdm.models.cuda_graphs import LENGTH_MULTIPLE, MAX_ROW_TOKENS, PADDED_ROW_TOKENS, GraphCache
from mdm.models.features import FeatureView
from mdm.models.kv_store import KVStore
from mdm.models.model import Model, running
from mdm.protocols.draws import Draws
from mdm.protocols.rowwise import fast_replace, map_tensors
from mdm.protocols.scores import Scores, Stats
from mdm.protocols.settings import Settings
from mdm.protocols.state import ABSENT, State
from mdm.protocols.upload import to_device
from mdm.scoring.forward_batch import ForwardBatch, Surroundings
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout, groups, redraw
from mdm.scoring.shadows import hidden_left_out
from torch import Tensor
from torch.nn.functional import pad


class Scorer:
    """Scores canvases with one model, each row by a readout of its own or by the common one.

    With guidance every canvas has a second, unconditional branch, whose prompt is masked or another one; both ride in
    the same model call and their logits are merged as u + (w + 1)(c - u) before anything reads them.
    ``eos_ids``, ``held`` and ``logits`` are ``Readout``'s.

    Args:
        left_out: whether committed positions are scored from all but themselves.
        features: whether hidden states are kept for ``logits_of``.
        graphs: where forwards whose shapes repeat are captured, if they are.
        new_store: what makes the store of a cache mode inside the layers, whose forwards are not captured.
    """

    def __init__(
        self, model: Model, rules: LogitRules, settings: Settings, eos_ids: Sequence[int] = (), *,
        held: bool = False, left_out: bool = False, logits: bool = False, features: bool = False,
        graphs: GraphCache | None = None,
        new_store: Callable[[Model, int, int], KVStore] = KVStore,
    ) -> None:  # fmt: skip
        self.model, self.settings, self.left_out = model, settings, left_out
        self.block_length = settings.block_length if model.spec.attention == "block-causal" else None
        """the grid on which a block-causal model sees its own block and those before"""
        self.max_rows = settings.max_rows if isinstance(settings.max_rows, int) else None
        self._eos_ids, self._held, self._logits, self._features = eos_ids, held, logits, features
        self.readout = Readout(model, rules, settings, eos_ids, held=held, logits=logits)
        """of rows that have no settings of their own"""
        self.readouts: list[Readout] = []
        """of each row of the state"""
        self._known: WeakValueDictionary[Hashable, Readout] = WeakValueDictionary({self.readout.facts: self.readout})
        self.cfg_branches = self.readout.cfg_branches
        self.store: KVStore | None = None
        self.calls = 0
        """model calls so far"""
        # A processor is anybody's code: what it does on the host would not be done again in a replay. Every graph would
        # hold logits of its own.
        self.graphs = None if rules.processors or logits or left_out or new_store is not KVStore else graphs
        self._new_store = new_store

    def readout_of(self, settings: Settings | None, rules: LogitRules | None) -> Readout:
        """The readout of a row with ``settings`` and ``rules`` of its own; None: the common ones."""
        if settings is None and rules is None:
            return self.readout
        common = self.readout
        readout = Readout(
            self.model, rules or common.rules, settings or common.settings, self._eos_ids, held=self._held,
            logits=self._logits,
        )  # fmt: skip
        return self._known.setdefault(readout.facts, readout)

    @property
    def draws(self) -> bool:
        """Whether tokens of any row are drawn."""
        return any(readout.draws for readout in self.readouts)

    @property
    def keeps_features(self) -> bool:
        """Whether scores come with the hidden states that they were read from."""
        return self._features or self.draws

    def logits_of(self, scores: Scores) -> list[tuple[list[int], Tensor] | None]:
        """Of each row the positions that are scored and their logits ``[N, V]``, see ``Readout.plain``.

        None where they were not asked for.
        """
        if not self._features:
            return [None] * len(self.readouts)
        assert scores.features is not None
        rows = zip(self.readouts, scores.positions, scores.features, scores.valid, strict=True)
        return [(at[valid].tolist(), own.plain(states[valid])) for own, at, states, valid in rows]

    @property
    def length_multiple(self) -> int:
        """Canvases are padded to a multiple of so many positions: prompts of most lengths then share graphs."""
        return 1 if self.graphs is None else LENGTH_MULTIPLE

    def open_store(self, rows: int, length: int) -> None:
        """Make room for the keys and values of ``rows`` rows in all, each ``length`` long."""
        rows *= self.cfg_branches
        if self.store is None:
            kept = None if self.graphs is None else self.graphs.store
            fits = kept is not None and kept.shape[0] >= rows and kept.shape[1] == length
            self.store = kept if fits else self._new_store(self.model, rows, length)
        assert self.store is not None
        self.store.make_room(rows, length)
        if self.graphs is not None:
            self.graphs.open(self.store)

    def select_rows(self, index: Tensor) -> None:
        """rows := rows[index], for what is stored."""
        if self.store is not None and index.shape[0] == 0:
            self.store = None
        elif self.store is not None:
            branch = torch.arange(self.cfg_branches, device=index.device)
            self.store.select_rows((index[:, None] * self.cfg_branches + branch).flatten())

    def trim_store(self, rows: int, length: int) -> None:
        """Give back what is stored beyond the first ``rows`` rows and ``length`` positions."""
        if self.store is not None:
            self.store.trim(rows * self.cfg_branches, length)
            if self.graphs is not None:
                self.graphs.open(self.store)

    def scores(self, state: State, batch: ForwardBatch, draws: Draws) -> tuple[Scores, list[slice]]:
        """Scores ``[R, K]`` of a batch, K the most positions of a canvas, and which canvases shared a model call.

        Args:
            draws: of the rows of ``state``.
        """
        repeats = self._repeats(batch)
        width = batch.width if repeats else max(*batch.score_counts, 1)
        around = self._surroundings(state, batch, draws)
        parts: list[Scores] = []
        calls: list[slice] = []
        start = 0
        while start < len(batch):
            size = min(self.max_rows or len(batch), len(batch) - start)
            rows = slice(start, start + size)
            part = (batch, around) if size == len(batch) else (batch[rows], around[rows])
            try:
                parts.append(self._replayed(*part, width) if repeats else self._score(*part, width))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.max_rows, batch = size // 2, batch.repeated()  # so many for the rest of the decode
                continue
            calls.append(rows)
            start += size
        self.calls += len(calls)
        return Scores.cat(parts), calls

    def _surroundings(self, state: State, batch: ForwardBatch, draws: Draws) -> Surroundings:
        in_canvas = unconditional = None
        padded = min(batch.lengths) < batch.tokens.shape[1] or any(batch.unconditional_starts)
        if padded or (self.block_length is not None and batch.runs_whole):
            in_canvas = state.in_canvas[batch.row_index]
        if state.unconditional is not None:
            unconditional = state.unconditional[batch.row_index]
        plain = None
        if self.draws:
            seed = draws.seed
            if self.graphs is not None and not isinstance(seed, Tensor):  # on the device it is no fact of a graph
                seed = to_device([seed], draws.row_id.device).expand(len(draws.row_id))
            plain = Draws(seed, draws.row_id, draws.step)
        return Surroundings(state.positions, in_canvas, unconditional, plain)

    def _repeats(self, batch: ForwardBatch) -> bool:
        """Whether such a forward comes again, and is captured then: one of few row-tokens that stores nothing.

        Candidates that are not padded to one number a row come in too many ways.
        """
        if self.graphs is None or batch.writes or batch.fold is not None or len(set(Counter(batch.rows).values())) > 1:
            return False
        rows = min(self.max_rows or len(batch), len(batch))
        # Of a whole canvas a replay scores the prompt too, which is free only where the weights decide.
        most = PADDED_ROW_TOKENS if batch.runs_whole else MAX_ROW_TOKENS
        return rows * self.cfg_branches * batch.width <= most

    def padded(self, rows: int, candidates: int, width: int) -> int | None:
        """How many candidates each of ``rows`` rows is to have in a forward of ``width`` positions, if one has so many.

        Powers of two, so that few shapes are captured; None: as many as there are, where more would take longer.
        """
        each = 1 << (candidates - 1).bit_length()
        few = rows * each * self.cfg_branches * width <= PADDED_ROW_TOKENS
        return each if self.graphs is not None and few and rows * each <= (self.max_rows or rows * each) else None

    def _replayed(self, batch: ForwardBatch, around: Surroundings, width: int) -> Scores:
        """Scores ``[R, width]`` of all positions that are run, scored or not: so only where they are valid varies."""
        batch = fast_replace(
            batch, score_counts=(), lengths=batch.lengths if batch.runs_whole else (),
            unconditional_starts=(max(batch.unconditional_starts, default=0) > 0,),
        )  # fmt: skip
        assert self.graphs is not None
        store = None if batch.query is None else self.store
        shared = (self.block_length, self.draws, self.keeps_features)
        readouts = {self.readouts[row] for row in batch.rows}
        if len(readouts) == 1:
            [readout] = readouts
            scores: Scores = self.graphs(
                self._score, batch, around, width, store=store, facts=(*shared, readout.facts), keep=readout.rules
            )
            return scores
        # Which rows share a readout is not likely to come again: the model's part is replayed alone.
        hidden, run = self.graphs(self._hidden, batch, around, width, store=store, facts=shared, keep=None)
        return self._read(batch, around, width, hidden, run)

    def _score(self, batch: ForwardBatch, around: Surroundings, width: int) -> Scores:
        """Scores ``[R, width]`` from one model call; without ``score_counts``, of the ``width`` positions it runs."""
        with batch.watched():
            hidden, run = self._hidden(batch, around, width if not batch.score_counts else batch.width)
        return self._read(batch, around, width, hidden, run)

    def _read(
        self, batch: ForwardBatch, around: Surroundings, width: int, hidden: Tensor, run: Tensor | None
    ) -> Scores:
        """Scores ``[R, width]`` of the hidden states of a model call."""
        row, index, positions, valid = self._scored_positions(batch, run, width)
        features = self._gather(hidden, row, index)
        draws = around.draws.rows(batch.row_index[row]) if around.draws is not None else None
        shared = groups([self.readouts[each] for each in batch.rows], batch.score_counts or [width] * len(batch))
        parts, order = [], list[int]()
        for readout, lines in shared:
            if len(shared) == 1:
                parts.append(readout(features, batch.tokens, row, positions, draws, batch.held))
                continue
            at = to_device(lines, row.device)
            own = None if draws is None else draws.rows(at)
            parts.append(readout(features[at], batch.tokens, row[at], positions[at], own, batch.held))
            order += lines
        stats = Stats.cat(parts)
        if order:
            back = to_device(sorted(range(len(order)), key=order.__getitem__), row.device)
            stats = fast_replace(stats, **map_tensors(stats, lambda v: v.index_select(0, back)))
        return self._scatter(batch, stats, features, row, positions, valid, width)

    def _scored_positions(
        self, batch: ForwardBatch, run: Tensor | None, width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of each scored position ``[T]``: its canvas, which of the hidden states scores it, and where it lies.

        Without ``score_counts`` these are all of the R ``width`` states, and bool ``[R, width]`` says which of them
        are to be scored.
        """
        shift, valid = int(self.model.spec.shift), None
        source = pad(batch.score, (-shift, shift)) if shift else batch.score
        source = source if run is None else source.gather(1, run)
        if batch.score_counts:
            row, index = torch.nonzero_static(source, size=sum(batch.score_counts)).unbind(1)
        else:
            valid, count = source[:, :width], len(batch)
            index = torch.arange(width, device=source.device).repeat(count)
            row = torch.arange(count, device=index.device)[:, None].expand(-1, width).flatten()
        # A flat index is several times faster than one of two dimensions.
        positions = index
        if run is not None:
            positions = run.flatten().index_select(0, torch.add(index, row, alpha=run.shape[1]))
        if shift:
            positions = positions + shift
            positions = positions if valid is None else positions.clamp(max=batch.tokens.shape[1] - 1)
        return row, index, positions, valid

    def _gather(self, hidden: Tensor, row: Tensor, index: Tensor) -> Tensor:
        """Hidden states ``[T, branches, D]`` of ``hidden`` ``[R * branches, Q, D]``."""
        width = hidden.shape[1]
        lines = torch.add(index, row, alpha=self.cfg_branches * width)
        if self.cfg_branches > 1:
            branch = torch.arange(self.cfg_branches, device=lines.device)
            lines = (lines[:, None] + width * branch).flatten()
        return hidden.flatten(0, 1).index_select(0, lines).view(-1, self.cfg_branches, hidden.shape[-1])

    def _scatter(
        self, batch: ForwardBatch, stats: Stats, features: Tensor, row: Tensor, positions: Tensor,
        valid: Tensor | None, width: int,
    ) -> Scores:  # fmt: skip
        """From the flat list ``[T]`` to one line a canvas ``[R, width]``."""
        count, device = len(batch), row.device
        even = row.shape[0] == count * width
        target = None if even else row * width + (batch.score.cumsum(1) - 1)[row, positions]

        def line(values: Tensor) -> Tensor:
            if target is not None:
                out = values.new_zeros(count * width, *values.shape[1:])
                out[target] = values
                values = out
            return values.reshape(count, width, *values.shape[1:])

        values: dict[str, Any] = {f.name: line(v) for f in fields(stats) if (v := getattr(stats, f.name)) is not None}
        values["positions"] = line(positions)
        if self.keeps_features:
            values["features"] = line(features)
        if even and valid is None:
            valid = torch.ones(count, width, dtype=torch.bool, device=device)
        elif valid is None:
            valid = torch.arange(width, device=device) < batch.score.sum(1, keepdim=True)
        values |= {"vocab_size": self.model.spec.vocab_size, "choices": self.readout.choices}
        return Scores(valid=valid, unscored=batch.unscored, **values)

    def with_redraw(self, state: State, scores: Scores, draws: Draws) -> Scores:
        """Scores whose tokens can be drawn again, where there is a token temperature."""
        if scores.features is None or not self.draws:
            return scores
        readouts = self.readouts  # of the rows as they are now
        return fast_replace(scores, redraw=lambda s, candidates: redraw(readouts, state, s, draws, candidates))

    def _hidden(self, batch: ForwardBatch, around: Surroundings, width: int) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``[R * branches, Q, D]``, and which positions these are ``[R, Q]`` (None: the first ones)."""
        tokens, query = batch.tokens, batch.query
        if around.unconditional is not None:
            unconditional = torch.where(around.unconditional < 0, tokens, around.unconditional)
            tokens = torch.stack([tokens, unconditional], 1).flatten(0, 1)
        if query is None or batch.gives_whole:
            return self._hidden_full(batch, around, tokens, width), None
        assert self.store is not None
        valid = write = None
        if batch.score_counts and min(query.counts) == width:
            run = torch.nonzero_static(query.run, size=width * len(batch))[:, 1].view(-1, width)
        else:
            # A shorter row is padded with positions that it does not run, and that nobody scores.
            run = query.run.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :width]
        positions, in_canvas = self._per_branch(run), self._in_canvas(batch, around)
        if min(query.counts) < width:
            valid = torch.arange(width, device=run.device) < query.run.sum(1, keepdim=True)
            valid = self._per_branch(valid)
        if any(batch.unconditional_starts):
            assert in_canvas is not None
            present = in_canvas.gather(1, positions)
            valid = present if valid is None else valid & present
        if query.write is not None:
            write = self._per_branch(query.write).gather(1, positions)
            write = write if valid is None else write & valid
        view = self.store.window(
            self._store_rows(batch), positions, valid=valid, write=write, block_length=self.block_length,
            in_canvas=in_canvas,
        )  # fmt: skip
        return self.model.hidden(tokens.gather(1, positions), positions, cache=view), run

    def _hidden_full(self, batch: ForwardBatch, around: Surroundings, tokens: Tensor, longest: int) -> Tensor:
        """Hidden states of whole canvases, as long as the longest."""
        positions = around.positions[:longest].expand(tokens.shape[0], -1)
        view = mask = visible = None
        if batch.query is not None:
            assert self.store is not None
            view = self.store.full(self._store_rows(batch), batch.writes)
            if isinstance(view, FeatureView) and not batch.runs_whole:
                view = view.of_parts(*batch.query.parts(self.cfg_branches))
        if self.block_length is not None or min(batch.lengths) < longest or any(batch.unconditional_starts):
            in_canvas = self._in_canvas(batch, around)
            assert in_canvas is not None
            visible = in_canvas[:, None, :longest]
            if self.block_length is not None:
                block = around.positions[:longest] // self.block_length
                visible = visible & (block <= block[:, None])
        if self.left_out:
            score = self._per_branch(batch.score)[:, :longest]
            return hidden_left_out(self.model, tokens[:, :longest], positions, visible, score, max(batch.score_counts))
        if visible is not None:
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=tokens.device)
            mask = mask.masked_fill(~visible, hiding(mask.dtype)).expand(-1, longest, -1)[:, None]
        with running(self.model, view.run) if isinstance(view, FeatureView) else nullcontext():
            return self.model.hidden(tokens[:, :longest], positions, mask=mask, cache=view)

    def _in_canvas(self, batch: ForwardBatch, around: Surroundings) -> Tensor | None:
        """bool ``[R * branches, L]``: what there is of each branch; None where nothing is padding."""
        if around.in_canvas is None:
            return None
        in_canvas = self._per_branch(around.in_canvas)
        if any(batch.unconditional_starts):
            assert around.unconditional is not None
            in_canvas = in_canvas.clone()
            in_canvas[1::2] &= around.unconditional != ABSENT
        return in_canvas

    def _store_rows(self, batch: ForwardBatch) -> list[int]:
        return [row * self.cfg_branches + branch for row in batch.rows for branch in range(self.cfg_branches)]

    def _per_branch(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.cfg_branches, 0) if self.cfg_branches == 2 else x
