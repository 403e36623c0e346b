"""What one model call is to score: canvases, the positions that are run and scored, and what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import torch
from mdm.protocols.draws import Draws
from mdm.protocols.rowwise import fast_replace
from mdm.scoring.folding import Folding
from torch import Tensor


@dataclass(frozen=True)
class Query:
    """Which positions a forward over stored keys runs: bool ``run`` ``[R, L]``, of which row r has ``counts[r]``.

    ``write``, if given, marks the positions whose keys and values are stored, ``write_counts[r]`` of them. Of a cache
    mode inside the layers every layer runs ``run``, and ``picked[r]`` of the ``watched`` positions beside them.
    """

    run: Tensor
    counts: Sequence[int]
    write: Tensor | None = None
    write_counts: Sequence[int] = ()
    watched: Tensor | None = None
    watched_counts: Sequence[int] = ()
    picked: Sequence[int] = ()

    def __getitem__(self, rows: slice) -> Query:
        return fast_replace(self, **{f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None})

    def parts(self, branches: int) -> tuple[Tensor, list[int], Tensor, list[int]]:
        """What every layer runs of each branch: ``run``, positions in all, ``watched``, and how many these are."""
        assert self.watched is not None
        picked = map(min, self.picked, self.watched_counts)
        widths = [run + more for run, more in zip(self.counts, picked, strict=True)]
        run, watched = (x.repeat_interleave(branches, 0) for x in (self.run, self.watched))
        widths, watches = ([n for n in counts for _ in range(branches)] for counts in (widths, self.watched_counts))
        return run, widths, watched, watches

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
    fold: Folding | None = None
    """what the attention of this forward is folded by, if anybody reads it"""

    def __getitem__(self, rows: slice) -> ForwardBatch:
        return fast_replace(self, **{f.name: v[rows] for f in fields(self) if (v := getattr(self, f.name)) is not None})

    def repeated(self) -> ForwardBatch:
        """The batch to run where its forward broke off.

        What that one stored is stored again, the same; but watched positions are picked by what was stored before, so
        that of such rows all is run.
        """
        query = self.query
        if query is None or query.write is None or not max(query.watched_counts, default=0):
            return self
        whole = torch.ones_like(query.run)
        return fast_replace(self, query=Query(whole, self.lengths, whole, self.lengths))

    def __len__(self) -> int:
        return len(self.rows)

    def watched(self) -> AbstractContextManager[None]:
        """In the block a model call runs the batch: its attention is folded, if anybody reads it."""
        return nullcontext() if self.fold is None else self.fold.watching()

    @property
    def width(self) -> int:
        """Positions that a forward runs of each canvas, the most of any."""
        return max(self.lengths if self.gives_whole else self.query.counts)  # type: ignore[union-attr]

    @property
    def gives_whole(self) -> bool:
        """Whether the hidden states are those of whole canvases: all is run, or a part of each layer."""
        return self.runs_whole or (self.query is not None and self.query.watched is not None)

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
