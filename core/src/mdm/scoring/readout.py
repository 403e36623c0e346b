"""From hidden states to statistics: the head, guidance, the rules and one pass, for the rows that somebody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from mdm.protocols.draws import Draws
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.statistics import PASS_ELEMENTS, Stats, StatsAccumulator, accumulate
from mdm.scoring.tiles import TILE, Draw, Scratch
from torch import Tensor

if TYPE_CHECKING:
    from mdm.models.model import Model

CHUNK_ELEMENTS = 1 << 24
"""Logits made by one call of a whole head: enough rows for a matrix product to pay, 64 MB in float32."""


class Readout:
    """Reads hidden states through one model's head under one set of logit rules.

    Where it can, the head and the pass over its logits go tile by tile together (``fused``), so that logits of the
    whole vocabulary never exist. That takes a head which is a plain matrix, rules which look at one token at a time,
    and nobody who keeps the logits; it is the faster way on a CPU, whose cache holds a tile, and is taken there.

    Args:
        guidance: scale of classifier-free guidance; then every hidden state has a second, blind one.
        temperature: of the token draw.
        held: whether the probability of the token that stands at a position is wanted.
        logits: whether logits are kept in the statistics.
        compile: see ``mdm.scoring.tile_pass.summed``.
        fused: None chooses.
    """

    def __init__(
        self,
        model: Model,
        rules: LogitRules,
        *,
        guidance: float = 0.0,
        temperature: float = 0.0,
        held: bool = False,
        logits: bool = False,
        compile: bool = False,
        fused: bool | None = None,
    ) -> None:
        self.model, self.rules = model, rules
        self.guidance, self.temperature, self.held, self.logits = guidance, temperature, held, logits
        self.guises = 2 if guidance else 1
        self.compile = compile
        self.scratch = Scratch()
        can = model.head_is_matrix and not rules.processors and not logits
        self._made: dict[int, list[tuple[int, int, LogitRules]]] = {}
        self.fused = can and (model.device.type == "cpu" if fused is None else fused)

    def __call__(self, hidden: Tensor, tokens: Tensor, row: Tensor, at: Tensor, draws: Draws) -> Stats:
        """Statistics ``[T]`` of hidden states ``[T, guises, D]``.

        Args:
            tokens: the canvases ``[R, L]``.
            row: the canvas of each ``[T]``.
            at: its position there ``[T]``.
            draws: keyed by ``[T]``.
        """
        keys = draws.token_keys(at[:, None]) if self.temperature > 0 else None
        held = tokens[row, at] if self.held else None
        read = self._readings(hidden, keys, held, lambda cut: tokens[row[cut]])
        return Stats.cat([reading.stats() for reading in read])

    def draws(
        self, hidden: Tensor, tokens: Tensor, row: Tensor, at: Tensor, draws: Draws, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences ``[T, N]``, drawn for each of ``candidates`` ``[N]``; the rest as in a call."""
        keys = draws.token_keys(at[:, None], candidates)
        read = self._readings(hidden, keys, None, lambda cut: tokens[row[cut]])
        drawn = [reading.draws() for reading in read]
        return torch.cat([token for token, _ in drawn]), torch.cat([confidence for _, confidence in drawn])

    def _readings(
        self, hidden: Tensor, keys: Tensor | None, held: Tensor | None, canvas: Callable[[slice], Tensor]
    ) -> Iterator[StatsAccumulator]:
        """Readings of all rows, in their order; ``canvas`` gives the canvas that each row of a cut belongs to."""
        spec = self.model.spec
        count = max(hidden.shape[0], 1)
        # At least a tile and as many rows of it as a pass takes; or else as few calls of the whole head as can be.
        size = PASS_ELEMENTS // TILE
        if not self.fused:
            size = -(-count // -(-count * spec.vocab_size * self.guises // CHUNK_ELEMENTS))
        for lo in range(0, count, size):
            cut = slice(lo, lo + size)
            draw = None if keys is None else Draw(keys[cut], self.temperature, spec.mask_id)
            mine = None if held is None else held[cut]
            if self.fused:
                yield self._fused(hidden[cut], draw, mine)
            else:
                logits = self._merged(self.model.head(hidden[cut].flatten(0, 1)))
                logits = self.rules(logits, lambda cut=cut: canvas(cut))  # type: ignore[misc]
                yield from accumulate(
                    logits, draw, never=spec.mask_id, held=mine, keep=self.logits,
                    compile=self.compile, scratch=self.scratch,
                )  # fmt: skip

    def _fused(self, hidden: Tensor, draw: Draw | None, held: Tensor | None) -> StatsAccumulator:
        spec = self.model.spec
        reading = StatsAccumulator(draw, never=spec.mask_id, held=held, compile=self.compile, scratch=self.scratch)
        states = hidden.flatten(0, 1)
        for first, end, rules in self._cuts(max(1, PASS_ELEMENTS // (TILE * max(1, len(states))))):
            out = self.scratch.take("logits", len(states), end - first, states)
            logits = self._merged(self.model.head_part(states, first, end, out))
            reading.add(rules(logits, None), first)
        return reading

    def _cuts(self, tiles: int) -> list[tuple[int, int, LogitRules]]:
        """The vocabulary in runs of so many tiles: where each begins and ends, and the rules for its tokens."""
        if tiles not in self._made:
            size, whole = self.model.spec.vocab_size, self.model.spec.vocab_size // TILE * TILE
            ends = sorted({*range(tiles * TILE, whole, tiles * TILE), whole, size} - {0})
            self._made[tiles] = [(first, end, self.rules.within(first, end)) for first, end in pairwise([0, *ends])]
        return self._made[tiles]

    def _merged(self, logits: Tensor) -> Tensor:
        """Logits ``[T, V']`` of ``[T * guises, V']``."""
        if self.guises == 1:
            return logits
        seen, blind = logits.float().view(-1, 2, logits.shape[1]).unbind(1)
        return blind + (self.guidance + 1) * (seen - blind)
