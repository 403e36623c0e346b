"""From canvases to scores: one model call, the LM head on the positions that are scored, statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from mdm.models.attention import hiding
from mdm.models.cuda_graphs import MAX_ROW_TOKENS, PADDED_ROW_TOKENS, GraphCache
from mdm.models.kv_store import KVStore
from mdm.models.model import Model
from mdm.protocols.draws import Draws
from mdm.protocols.rowwise import fast_replace
from mdm.protocols.scores import Scores, Stats
from mdm.protocols.settings import Settings
from mdm.protocols.state import ABSENT, State
from mdm.protocols.upload import to_device
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Query:
    """Which positions a forward over stored keys runs: bool ``run`` ``[R, L]``, of which row r has ``counts[r]``.

    ``write``, if given, marks the positions whose keys and values are stored, ``write_counts[r]`` of them.
    """

    run: Tensor
    counts: Sequence[int]
    write: Tensor | None = None
    write_counts: Sequence[int] = ()

    def __getitem__(self, rows: slice) -> Query:
        write = None if self.write is None else self.write[rows]
        return Query(self.run[rows], self.counts[rows], write, self.write_counts[rows])

    def runs_all(self, lengths: Sequence[int]) -> bool:
        """Whether all of rows of these ``lengths`` is run, and stored if anything is."""
        return list(self.counts) == list(lengths) and (self.write is None or list(self.write_counts) == list(lengths))


@dataclass(frozen=True)
class ForwardBatch:
    """R canvases to score. What is a sequence is known on the host."""

    rows: Sequence[int]
    """the row of the state that each canvas continues from; rows of the same one run the same positions"""
    row_index: Tensor
    """int64 ``[R]``: the same on the device"""
    tokens: Tensor
    """int64 ``[R, L]``"""
    lengths: Sequence[int]
    """of each canvas, without padding"""
    score: Tensor
    """bool ``[R, L]``: the positions to score"""
    score_counts: Sequence[int]
    """how many they are"""
    unscored: Tensor
    """int64 ``[R]``: carried into the scores"""
    query: Query | None = None
    """what to run over the stored keys; None runs whole canvases without them"""
    unconditional_starts: Sequence[int] = ()
    """where each canvas begins in the unconditional branch, whose prompt may be shorter"""
    held: Tensor | None = None
    """int64 ``[R, L]``: the tokens whose probabilities are wanted, where these are not those of ``tokens``"""

    def __getitem__(self, rows: slice) -> ForwardBatch:
        return fast_replace(self, **{f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Positions that a forward runs of each canvas, the most of any."""
        return max(self.lengths if self.runs_whole else self.query.counts)  # type: ignore[union-attr]

    @property
    def runs_whole(self) -> bool:
        """Whether whole canvases are run, and stored if anything is."""
        return self.query is None or (len(self.lengths) > 0 and self.query.runs_all(self.lengths))

    @property
    def writes(self) -> bool:
        return self.query is not None and self.query.write is not None


@dataclass(frozen=True)
class Surroundings:
    """What a forward has to know of the canvases beside their tokens."""

    positions: Tensor
    """int64 ``[L]``"""
    in_canvas: Tensor | None
    """bool ``[R, L]``: what is not padding; None: nobody asks"""
    unconditional: Tensor | None
    """int64 ``[R, L]``: as in the state; None without guidance"""
    draws: Draws | None
    """of the rows of the state; None without a temperature"""

    def __getitem__(self, rows: slice) -> Surroundings:
        return fast_replace(self, **{
            name: value[rows] for name in ("in_canvas", "unconditional") if (value := getattr(self, name)) is not None
        })  # fmt: skip


class Scorer:
    """Scores canvases with one model under one set of logit rules.

    With guidance every canvas has a second, unconditional branch, whose prompt is masked or another one; both ride in
    the same model call and their logits are merged as u + (w + 1)(c - u) before anything reads them.

    Args:
        eos_ids, held, logits: see ``Readout``.
        graphs: where forwards whose shapes repeat are captured, if they are.
    """

    def __init__(
        self, model: Model, rules: LogitRules, settings: Settings, eos_ids: Sequence[int] = (), *,
        held: bool = False, logits: bool = False, graphs: GraphCache | None = None,
    ) -> None:  # fmt: skip
        self.model, self.temperature = model, settings.temperature
        self.block_length = settings.block_length if model.spec.attention == "block-causal" else None
        """the grid on which a block-causal model sees its own block and those before"""
        self.max_rows = settings.max_rows if isinstance(settings.max_rows, int) else None
        self.readout = Readout(model, rules, settings, eos_ids, held=held, logits=logits)
        self.cfg_branches = self.readout.cfg_branches
        self.store: KVStore | None = None
        # A processor is anybody's code: what it does on the host would not be done again in a replay. Every graph would
        # hold logits of its own.
        self.graphs = None if rules.processors or logits else graphs
        self._facts = (
            settings.guidance, settings.temperature, settings.top_p, settings.top_k, settings.score_after,
            self.readout.last, settings.compile, self.block_length, held, rules.facts,
        )  # fmt: skip

    def open_store(self, rows: int, length: int) -> None:
        """Make room for the keys and values of ``rows`` rows in all, each ``length`` long."""
        rows *= self.cfg_branches
        if self.store is None:
            kept = None if self.graphs is None else self.graphs.store
            fits = kept is not None and kept.shape[0] >= rows and kept.shape[1] == length
            self.store = kept if fits else KVStore(self.model, rows, length)
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
                self.max_rows = size // 2  # for the rest of the decode; what was stored is stored again, the same
                continue
            calls.append(rows)
            start += size
        return Scores.cat(parts), calls

    def _surroundings(self, state: State, batch: ForwardBatch, draws: Draws) -> Surroundings:
        in_canvas = unconditional = None
        padded = min(batch.lengths) < batch.tokens.shape[1] or any(batch.unconditional_starts)
        if padded or (self.block_length is not None and batch.runs_whole):
            in_canvas = state.in_canvas[batch.row_index]
        if state.unconditional is not None:
            unconditional = state.unconditional[batch.row_index]
        plain = None
        if self.temperature > 0:  # a seed on the device is no fact of a graph
            seed = draws.seed if self.graphs is None else to_device([draws.seed], draws.row_id.device)
            plain = Draws(seed, draws.row_id, draws.step)  # type: ignore[arg-type]
        return Surroundings(state.positions, in_canvas, unconditional, plain)

    def _repeats(self, batch: ForwardBatch) -> bool:
        """Whether such a forward comes again, and is captured then: one of few row-tokens that stores nothing.

        Candidates that are not padded to one number a row come in too many ways.
        """
        if self.graphs is None or batch.writes or len(set(Counter(batch.rows).values())) > 1:
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
        scores: Scores = self.graphs(
            self._score, batch, around, width, store=None if batch.query is None else self.store, facts=self._facts,
            keep=self.readout.rules,
        )  # fmt: skip
        return scores

    def _score(self, batch: ForwardBatch, around: Surroundings, width: int) -> Scores:
        """Scores ``[R, width]`` from one model call; without ``score_counts``, of the ``width`` positions it runs."""
        hidden, run = self._hidden(batch, around, width if not batch.score_counts else batch.width)
        row, index, positions, valid = self._scored_positions(batch, run, width)
        features = self._gather(hidden, row, index)
        draws = around.draws.rows(batch.row_index[row]) if around.draws is not None else None
        stats = self.readout(features, batch.tokens, row, positions, draws, batch.held)
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
        if self.temperature > 0:
            values["features"] = line(features)
        if even and valid is None:
            valid = torch.ones(count, width, dtype=torch.bool, device=device)
        elif valid is None:
            valid = torch.arange(width, device=device) < batch.score.sum(1, keepdim=True)
        values |= {"vocab_size": self.model.spec.vocab_size, "choices": self.readout.choices}
        return Scores(valid=valid, unscored=batch.unscored, **values)

    def with_redraw(self, state: State, scores: Scores, draws: Draws) -> Scores:
        """Scores whose tokens can be drawn again, where there is a token temperature."""
        if scores.features is None:
            return scores
        return fast_replace(scores, redraw=lambda s, candidates: self._redraw(state, s, draws, candidates))

    def _redraw(self, state: State, scores: Scores, draws: Draws, candidates: int) -> tuple[Tensor, Tensor]:
        """Tokens and confidences ``[B, N, K]``: candidate 0 as scored, the others with draws of their own."""
        assert scores.features is not None
        rows, width = scores.positions.shape
        row = torch.arange(rows, device=scores.positions.device).repeat_interleave(width)
        drawn = self.readout.draw_tokens(
            scores.features.flatten(0, 1), state.tokens, row, scores.positions.flatten(), draws.rows(row),
            torch.arange(1, candidates, device=row.device),
        )  # fmt: skip
        tokens, confidences = (d.view(rows, width, candidates - 1).transpose(1, 2) for d in drawn)
        return torch.cat([scores.token[:, None], tokens], 1), torch.cat([scores.confidence[:, None], confidences], 1)

    def _hidden(self, batch: ForwardBatch, around: Surroundings, width: int) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``[R * branches, Q, D]``, and which positions these are ``[R, Q]`` (None: the first ones)."""
        tokens, query = batch.tokens, batch.query
        if around.unconditional is not None:
            unconditional = torch.where(around.unconditional < 0, tokens, around.unconditional)
            tokens = torch.stack([tokens, unconditional], 1).flatten(0, 1)
        if query is None or batch.runs_whole:
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
        view = mask = None
        if batch.query is not None:
            assert self.store is not None
            view = self.store.full(self._store_rows(batch), batch.writes)
        if self.block_length is not None or min(batch.lengths) < longest or any(batch.unconditional_starts):
            in_canvas = self._in_canvas(batch, around)
            assert in_canvas is not None
            visible = in_canvas[:, None, :longest]
            if self.block_length is not None:
                block = around.positions[:longest] // self.block_length
                visible = visible & (block <= block[:, None])
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=tokens.device)
            mask = mask.masked_fill(~visible, hiding(mask.dtype)).expand(-1, longest, -1)[:, None]
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
