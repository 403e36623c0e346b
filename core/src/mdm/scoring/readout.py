"""Applies the LM head, guidance and logit rules, and reduces the logits to statistics of the scored positions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import accumulate as sums, pairwise

import torch
from mdm.models.model import Model
from mdm.models.placement import free_bytes
from mdm.protocols.draws import Draws
from mdm.protocols.scores import Scores, Stats
from mdm.protocols.settings import Settings
from mdm.protocols.state import State
from mdm.protocols.upload import to_device
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.statistics import PASS_ELEMENTS, StatsAccumulator, accumulate
from mdm.scoring.tiles import TILE, Scratch, TokenDraw
from mdm.scoring.truncation import truncate
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits made by one call of a whole head on a CPU: enough rows for an efficient matrix product, 64 MB in float32."""

DEVICE_CHUNK_ELEMENTS = 1 << 29
"""The same elsewhere, where every call reads the head's weights again: 1 GB in bfloat16, where there is room."""

LOGIT_BYTES = 12
"""What a logit takes at most: itself, a float32 copy, and half of three more as its two branches are merged."""


SORTED_BYTES = 36
"""What top-p takes more: copies before and after, and values and tokens that are sorted out of place."""


def chunk_elements(device: torch.device, free: int, logit_bytes: int = LOGIT_BYTES) -> int:
    """Logits made by one call of a whole head, which take no more than an eighth of the ``free`` bytes of a GPU."""
    if device.type == "cpu":
        return CHUNK_ELEMENTS
    return max(CHUNK_ELEMENTS // 16, min(DEVICE_CHUNK_ELEMENTS, free // 8 // logit_bytes))


class Readout:
    """Scores hidden states with one model's head under one set of logit rules.

    Where it can, the head and the pass over its logits go tile by tile together (``fused``), so that logits of the
    whole vocabulary never exist. That takes a head which is a plain matrix, rules which look at one token at a time,
    and no use for the logits themselves. It is faster on a CPU, whose cache holds a tile, and is chosen there.

    Both ways run such a head on the range of the allowed tokens alone (``span``): a picture's codes are a sixteenth of
    the vocabulary that holds them.

    Args:
        settings: guidance, temperature, top_p, top_k, score_after, eos_rank and compile are heeded here.
        eos_ids: the end tokens, for ``eos_rank``.
        held: whether the probability of the token that stands at a position is wanted.
        logits: whether logits are kept in the statistics.
        fused: None chooses.
    """

    def __init__(
        self,
        model: Model,
        rules: LogitRules,
        settings: Settings,
        eos_ids: Sequence[int] = (),
        *,
        held: bool = False,
        logits: bool = False,
        fused: bool | None = None,
    ) -> None:
        self.model, self.rules, self.settings, self.held, self.logits = model, rules, settings, held, logits
        self.last = tuple(eos_ids) if settings.eos_rank == "last" else ()
        self.scale = 1 / settings.temperature if settings.tempered and settings.temperature > 0 else 1.0
        """on logits before they are scored"""
        self.cfg_branches = 2 if settings.guidance else 1
        """forwards of a canvas: with classifier-free guidance, conditional and unconditional"""
        self.scratch = Scratch()
        self._runs: dict[int, list[tuple[int, int, LogitRules]]] = {}
        size, never = model.spec.vocab_size, model.spec.mask_id
        self.choices = rules.choices(size, never)
        """tokens that can be drawn"""
        in_parts = model.head_is_matrix and not rules.processors and not logits
        self.span = rules.hull(size) if in_parts else (0, size)
        """the tokens ``[start, stop)`` whose logits are made; the others are never drawn and weigh nothing"""
        self.span_rules = rules if self.span == (0, size) else rules.within(*self.span)
        can_fuse = in_parts and not settings.truncates
        on_cpu = model.device.type == "cpu"
        self.fused = can_fuse and (on_cpu if fused is None else fused)
        logit_bytes = LOGIT_BYTES + (SORTED_BYTES if settings.truncates else 0)
        self.chunk_elements = chunk_elements(model.device, 0 if on_cpu else free_bytes(model.device), logit_bytes)

    @property
    def facts(self) -> Hashable:
        """What two readouts of a model have to share to be the same."""
        settings = self.settings
        return (
            settings.guidance, settings.temperature, settings.top_p, settings.top_k, settings.score_after, self.last,
            settings.compile, self.held, self.logits, self.rules.facts,
        )  # fmt: skip

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn."""
        return self.settings.temperature > 0

    def __call__(
        self, hidden: Tensor, tokens: Tensor, row: Tensor, positions: Tensor, draws: Draws | None,
        named: Tensor | None = None,
    ) -> Stats:  # fmt: skip
        """Statistics ``[T]`` of hidden states ``[T, branches, D]``.

        Args:
            tokens: the canvases ``[R, L]``.
            row: the canvas of each hidden state ``[T]``.
            positions: its position there ``[T]``.
            draws: keyed by ``[T]``; None takes the likeliest tokens.
            named: int64 ``[R, L]``, tokens whose probabilities are wanted in place of the canvases' own.
        """
        keys = draws.token_keys(positions[:, None]) if draws is not None and self.draws else None
        named = tokens if named is None and self.held else named
        held = None if named is None else named[row, positions]
        parts = self._accumulators(hidden, keys, held, lambda rows: tokens[row[rows]])
        return Stats.cat([part.stats() for part in parts])

    def plain(self, hidden: Tensor) -> Tensor:
        """Logits ``[T, V]`` of hidden states ``[T, branches, D]``, guided but under no rule; float32 on the CPU."""
        return self._merge_branches(self.model.head(hidden.flatten(0, 1))).float().cpu()

    def draw_tokens(
        self, hidden: Tensor, tokens: Tensor, row: Tensor, positions: Tensor, draws: Draws, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences ``[T, N]``, drawn for each of ``candidates`` ``[N]``; the rest as in a call."""
        keys = draws.token_keys(positions[:, None], candidates)
        parts = self._accumulators(hidden, keys, None, lambda rows: tokens[row[rows]])
        drawn = [part.draws() for part in parts]
        return torch.cat([token for token, _ in drawn]), torch.cat([confidence for _, confidence in drawn])

    def _accumulators(
        self, hidden: Tensor, keys: Tensor | None, held: Tensor | None, canvas: Callable[[slice], Tensor]
    ) -> Iterator[StatsAccumulator]:
        """Accumulators of all rows, in their order; ``canvas`` gives the canvases of a slice of the rows."""
        never, (first, stop) = self.model.spec.mask_id, self.span
        count = max(hidden.shape[0], 1)
        # Fused: a tile, and as many rows of it as a pass works on. Else as few calls of the whole head as can be.
        size = PASS_ELEMENTS // TILE
        if not self.fused:
            size = -(-count // -(-count * (stop - first) * self.cfg_branches // self.chunk_elements))
        for start in range(0, count, size):
            rows = slice(start, start + size)
            temperature = self.settings.temperature * self.scale
            draw = None if keys is None else TokenDraw(keys[rows], temperature, never)
            held_here = None if held is None else held[rows]
            if self.fused:
                yield self._fused(hidden[rows], draw, held_here)
            else:
                logits = self._merge_branches(self._head(hidden[rows].flatten(0, 1)))
                logits = self.span_rules(logits, lambda rows=rows: canvas(rows))  # type: ignore[misc]
                logits, scored = self._distributions(logits, first)
                yield from accumulate(
                    logits, draw, first, self.model.spec.vocab_size, never=never, scored=scored, last=self.last,
                    held=held_here, keep=self.logits, compile=self.settings.compile, scratch=self.scratch,
                )  # fmt: skip

    def _head(self, states: Tensor) -> Tensor:
        """Logits of the tokens of ``span`` for hidden states ``[T, D]``."""
        first, stop = self.span
        whole = stop - first == self.model.spec.vocab_size
        return self.model.head(states) if whole else self.model.head_part(states, first, stop)

    def _distributions(self, logits: Tensor, first: int) -> tuple[Tensor, Tensor | None]:
        """The logits that tokens are chosen from, and those that are scored where these are others.

        Both are ``[T, V']`` of the tokens from ``first`` on.
        """
        settings, temperature = self.settings, self.settings.temperature or 1.0
        if settings.tempered:
            logits, temperature = logits if self.scale == 1.0 else logits.float() * self.scale, 1.0
        if not settings.truncates:
            return logits, None
        mask = self.model.spec.mask_id - first
        chosen = truncate(
            logits, temperature=temperature, top_p=settings.top_p, top_k=settings.top_k,
            never=mask if 0 <= mask < logits.shape[1] else None,
        )  # fmt: skip
        return chosen, None if settings.tempered else logits

    def _fused(self, hidden: Tensor, draw: TokenDraw | None, held: Tensor | None) -> StatsAccumulator:
        accumulator = StatsAccumulator(
            draw, self.model.spec.vocab_size, never=self.model.spec.mask_id, last=self.last, held=held,
            compile=self.settings.compile, scratch=self.scratch,
        )  # fmt: skip
        states = hidden.flatten(0, 1)
        for first, end, rules in self._vocabulary_runs(max(1, PASS_ELEMENTS // (TILE * max(1, len(states))))):
            out = self.scratch.buffer("logits", len(states), end - first, states)
            logits = self._merge_branches(self.model.head_part(states, first, end, out))
            accumulator.add(self._distributions(rules(logits, None), first)[0], first)
        return accumulator

    def _vocabulary_runs(self, tiles: int) -> list[tuple[int, int, LogitRules]]:
        """The span in runs of so many tiles: where each begins and ends, and the rules for its tokens."""
        start, stop = self.span
        whole = (stop - start) // TILE * TILE
        tiles = min(tiles, max(1, whole // TILE))
        if tiles not in self._runs:
            edges = sorted({start, *range(start, start + whole, tiles * TILE), start + whole, stop})
            self._runs[tiles] = [(first, end, self.rules.within(first, end)) for first, end in pairwise(edges)]
        return self._runs[tiles]

    def _merge_branches(self, logits: Tensor) -> Tensor:
        """Guided logits u + (w + 1)(c - u) ``[T, V']`` of ``[T * branches, V']``."""
        if self.cfg_branches == 1:
            return logits
        conditional, unconditional = logits.float().view(-1, 2, logits.shape[1]).unbind(1)
        return unconditional + (self.settings.guidance + 1) * (conditional - unconditional)


def redraw(
    readouts: Sequence[Readout], state: State, scores: Scores, draws: Draws, candidates: int
) -> tuple[Tensor, Tensor]:
    """Tokens and confidences ``[B, N, K]``: candidate 0 as scored, the others with draws of their own."""
    assert scores.features is not None
    (rows, width), device = scores.positions.shape, scores.positions.device
    tokens, confidences = (part[:, None].expand(-1, candidates, -1) for part in (scores.token, scores.confidence))
    shared = groups(readouts, [1] * rows)
    for readout, members in shared:
        if not readout.draws:  # all are as scored
            continue
        own = to_device(members, device) if len(shared) > 1 else torch.arange(rows, device=device)
        features, token, confidence, positions = (
            part if len(shared) == 1 else part[own]
            for part in (scores.features, scores.token, scores.confidence, scores.positions)
        )
        row = own.repeat_interleave(width)
        drawn = readout.draw_tokens(
            features.flatten(0, 1), state.tokens, row, positions.flatten(), draws.rows(row),
            torch.arange(1, candidates, device=device),
        )  # fmt: skip
        others = (d.view(len(members), width, candidates - 1).transpose(1, 2) for d in drawn)
        new = [torch.cat([first[:, None], d], 1) for first, d in zip((token, confidence), others, strict=True)]
        if len(shared) == 1:
            return new[0], new[1]
        tokens, confidences = tokens.index_copy(0, own, new[0]), confidences.index_copy(0, own, new[1])
    return tokens, confidences


def groups(readouts: Sequence[Readout], sizes: Sequence[int]) -> list[tuple[Readout, list[int]]]:
    """Each readout with its places in a list to which the items add ``sizes`` places, one after the other."""
    places: dict[Readout, list[int]] = {}
    for readout, size, stop in zip(readouts, sizes, sums(sizes), strict=True):
        places.setdefault(readout, []).extend(range(stop - size, stop))
    return list(places.items())
