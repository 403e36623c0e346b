"""From canvases to scores: one model call, the head on the rows that are read, statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from mdm.models.kv_store import Store
from mdm.protocols.draws import Draws
from mdm.protocols.rowwise import fast_replace
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.readout import Readout
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from mdm.models.model import Model


@dataclass(frozen=True)
class Query:
    """Which positions a forward runs: bool ``at`` ``[R, L]``, of which row r has ``counts[r]``.

    ``rows`` says on the host which row of the state each of the R continues from; rows of the same one run the same
    positions. ``write``, if given, marks the positions whose keys and values are kept, ``kept[r]`` of them.
    """

    rows: Sequence[int]
    at: Tensor
    counts: Sequence[int]
    write: Tensor | None = None
    kept: Sequence[int] = ()

    def __getitem__(self, cut: slice) -> Query:
        write = None if self.write is None else self.write[cut]
        return Query(self.rows[cut], self.at[cut], self.counts[cut], write, self.kept[cut])

    def whole(self, lengths: Sequence[int]) -> bool:
        """Whether all of rows of these ``lengths`` is run, and kept if anything is."""
        return list(self.counts) == list(lengths) and (self.write is None or list(self.kept) == list(lengths))


class Scorer:
    """Scores canvases with one model under one set of logit rules.

    With guidance every canvas has a second guise, its prompt masked out; both ride in the same model call and their
    logits are merged as u + (w + 1)(c - u) before anything reads them.
    """

    def __init__(
        self,
        model: Model,
        rules: LogitRules,
        *,
        grid: int | None = None,
        guidance: float = 0.0,
        temperature: float = 0.0,
        max_rows: int | None = None,
        held: bool = False,
        logits: bool = False,
        compile: bool = False,
    ) -> None:
        self.model = model
        self.grid = grid
        self.max_rows = max_rows
        self.readout = Readout(
            model, rules, guidance=guidance, temperature=temperature, held=held, logits=logits, compile=compile
        )
        self.guises = self.readout.guises
        self.store: Store | None = None

    def keep(self, rows: int, length: int) -> None:
        """Start keeping keys and values, for ``rows`` rows of ``length``."""
        self.store = Store(self.model, rows * self.guises, length)

    def take(self, index: Tensor) -> None:
        """rows := rows[index], for what is kept."""
        if self.store is not None:
            guise = torch.arange(self.guises, device=index.device)
            self.store.take((index[:, None] * self.guises + guise).flatten())

    def scores(
        self,
        state: State,
        rows: Tensor,
        tokens: Tensor,
        lengths: Sequence[int],
        read: Tensor,
        counts: Sequence[int],
        unseen: Tensor,
        draws: Draws,
        query: Query | None,
    ) -> Scores:
        """Scores of R canvases, ``[R, K]`` with K the largest of ``counts``.

        Args:
            rows: the row of ``state`` that each canvas belongs to ``[R]``.
            tokens: the canvases ``[R, L]``, of which ``lengths`` positions are real.
            read: bool ``[R, L]``, the positions to score, ``counts`` of them in each row.
            unseen: carried into the result ``[R]``.
            draws: of the rows of ``state``.
            query: what to run; None runs the whole canvas without keys and values from before.
        """
        width = max(max(counts), 1)
        parts: list[dict[str, Tensor]] = []
        lo = 0
        while lo < len(counts):
            size = min(self.max_rows or len(counts), len(counts) - lo)
            given: list[Any] = [rows, tokens, lengths, read, counts, query]
            if size < len(counts):
                given = [x if x is None else x[lo : lo + size] for x in given]
            try:
                parts.append(self._part(state, draws, width, *given))
                lo += size
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self.max_rows = size // 2  # for the rest of the decode; what was written is written again, the same
        merged: dict[str, Any] = parts[0]
        if len(parts) > 1:
            merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Scores(unscored=unseen, log_vocabulary=self.model.log_vocabulary, **merged)

    def _part(
        self,
        state: State,
        draws: Draws,
        width: int,
        rows: Tensor,
        tokens: Tensor,
        lengths: Sequence[int],
        read: Tensor,
        counts: Sequence[int],
        query: Query | None,
    ) -> dict[str, Tensor]:
        hidden, run = self._hidden(state, rows, tokens, lengths, query)
        shift, total = int(self.model.spec.shift), sum(counts)
        # What is read, by where it lies among the positions that were run.
        sought = pad(read, (-shift, shift)) if shift else read
        sought = sought if run is None else sought.gather(1, run)
        row, place = torch.nonzero_static(sought, size=total).unbind(1)
        # As flat lines: an index of one dimension is several times faster than one of two with a slice between.
        lines = torch.add(place, row, alpha=self.guises * hidden.shape[1])
        at = place if run is None else run.flatten().index_select(0, torch.add(place, row, alpha=run.shape[1]))
        at = at + shift if shift else at
        if self.guises > 1:
            lines = (lines[:, None] + hidden.shape[1] * torch.arange(self.guises, device=lines.device)).flatten()
        picked = hidden.flatten(0, 1).index_select(0, lines).view(-1, self.guises, hidden.shape[-1])
        keyed = draws
        if self.readout.temperature > 0:
            keyed = draws.rows(rows[row])
        stats = self.readout(picked, tokens, row, at, keyed)
        # From the flat list of positions that are read back to one line a row; where all rows read as many, it is that.
        even = total == len(counts) * width
        grid = None if even else row * width + (read.cumsum(1) - 1)[row, at]

        def line(values: Tensor) -> Tensor:
            if grid is not None:
                out = values.new_zeros(len(counts) * width, *values.shape[1:])
                out[grid] = values
                values = out
            return values.reshape(len(counts), width, *values.shape[1:])

        found = {f.name: line(v) for f in fields(stats) if (v := getattr(stats, f.name)) is not None}
        if self.readout.temperature > 0:
            found["features"] = line(picked)
        if even:
            filled = torch.ones(len(counts), width, dtype=torch.bool, device=row.device)
        else:
            filled = torch.arange(width, device=row.device) < read.sum(1, keepdim=True)
        return {"positions": line(at), "valid": filled, **found}

    def redrawn(self, state: State, scores: Scores, draws: Draws, candidates: int) -> tuple[Tensor, Tensor]:
        """Tokens and confidences ``[B, N, K]``: candidate 0 as scored, the others with draws of their own."""
        assert scores.features is not None
        rows, width = scores.positions.shape
        row = torch.arange(rows, device=scores.positions.device).repeat_interleave(width)
        drawn = self.readout.draws(
            scores.features.flatten(0, 1), state.tokens, row, scores.positions.flatten(), draws.rows(row),
            torch.arange(1, candidates, device=row.device),
        )  # fmt: skip
        tokens, confidences = (d.view(rows, width, candidates - 1).transpose(1, 2) for d in drawn)
        return torch.cat([scores.token[:, None], tokens], 1), torch.cat([scores.confidence[:, None], confidences], 1)

    def _hidden(
        self, state: State, rows: Tensor, tokens: Tensor, lengths: Sequence[int], query: Query | None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states ``[R * guises, Q, D]``, and which positions these are ``[R, Q]`` (None: the first ones)."""
        if self.guises == 2:
            prompt = (state.positions < state.prompt_length[:, None]) & ~state.targets
            blind = tokens.masked_fill(prompt[rows], self.model.spec.mask_id)
            tokens = torch.stack([tokens, blind], 1).flatten(0, 1)
        if query is None or query.whole(lengths):
            return self._whole(state, rows, tokens, lengths, query), None
        store, length = self.store, tokens.shape[1]
        assert store is not None
        count, valid, write = max(query.counts), None, None
        if min(query.counts) == count:
            run = torch.nonzero_static(query.at, size=count * len(query.at))[:, 1].view(-1, count)
            at = self._guised(run)
        else:
            # Behind the last position of a shorter row come some that it does not run, and nobody reads.
            run = query.at.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :count]
            at = self._guised(run)
            valid = self._guised(torch.arange(count, device=at.device) < query.at.sum(1, keepdim=True))
        if query.write is not None:
            write = self._guised(query.write).gather(1, at)
            write = write if valid is None else write & valid
        real = self._guised(state.in_canvas[rows]) if min(lengths) < length else None
        store.window(self._store_rows(query), at, valid=valid, write=write, real=real, grid=self.grid)
        return self.model.hidden(tokens.gather(1, at), at, cache=store), run

    def _whole(self, state: State, rows: Tensor, tokens: Tensor, lengths: Sequence[int], query: Query | None) -> Tensor:
        """Hidden states of whole canvases, as long as the longest."""
        longest = max(lengths)
        at = state.positions[:longest].expand(tokens.shape[0], -1)
        cache = mask = None
        if query is not None:
            cache = self.store
            assert cache is not None
            cache.whole(self._store_rows(query), query.write is not None)
        if self.grid is not None or min(lengths) < longest:
            visible = self._guised(state.in_canvas[rows, :longest])[:, None]
            if self.grid is not None:
                block = state.positions[:longest] // self.grid
                visible = visible & (block <= block[:, None])
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=at.device)
            mask = mask.masked_fill(~visible, torch.finfo(mask.dtype).min).expand(-1, longest, -1)[:, None]
        return self.model.hidden(tokens[:, :longest], at, mask=mask, cache=cache)

    def _store_rows(self, query: Query) -> list[int]:
        return [row * self.guises + guise for row in query.rows for guise in range(self.guises)]

    def _guised(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.guises, 0) if self.guises == 2 else x


def attach_redraw(scorer: Scorer, state: State, scores: Scores, draws: Draws) -> Scores:
    """Scores whose tokens can be drawn again, where there is a token temperature."""
    if scores.features is None:
        return scores
    return fast_replace(scores, redraw=lambda s, candidates: scorer.redrawn(state, s, draws, candidates))
