"""From logits to what a sampler reads: one pass, only for the rows that somebody reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from mdm.protocols.scores import TINY, Certainty
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import Draw, Scratch, Tiles, merge_tiles
from torch import Tensor

PASS_ELEMENTS = 1 << 21
"""Logits that a pass on a CPU is given at a time: of fewer the operations cost more, more of them take more memory."""


@dataclass(frozen=True)
class Stats(Certainty):
    """Statistics of rows of logits: ``token`` ``[T]`` and ``numbers`` ``[T, 5]``.

    On request, ``held`` ``[T]`` is the probability of a given token and ``logits`` ``[T, V]`` are what all this was
    computed from.
    """

    token: Tensor
    numbers: Tensor
    held: Tensor | None = None
    logits: Tensor | None = None

    @staticmethod
    def cat(parts: list[Stats]) -> Stats:
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(Stats) if getattr(parts[0], f.name) is not None]
        return Stats(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


class StatsAccumulator:
    """Rows of logits on their way to statistics, their vocabulary added in order, in one piece or in several.

    Args:
        draw: how tokens are drawn, the first of its draws being the one that is scored; None takes the largest logit.
        never: a token (the mask) that keeps its probability but is not chosen.
        held: int64 ``[T]``, tokens whose probability is wanted.
        keep: whether the statistics carry the logits, which are added in one piece then.
        compile, scratch: see ``mdm.scoring.tile_pass.summed``.
    """

    def __init__(
        self,
        draw: Draw | None = None,
        *,
        never: int | None = None,
        held: Tensor | None = None,
        keep: bool = False,
        compile: bool = False,
        scratch: Scratch | None = None,
    ) -> None:
        self.draw, self.never, self.held, self.keep = draw, never, held, keep
        self.compile, self.scratch = compile, scratch
        self.tiles: list[Tiles] = []
        self.held_logits: list[Tensor] = []
        self.logits: Tensor | None = None

    def add(self, logits: Tensor, first: int = 0) -> None:
        """Add the tokens from ``first`` on, ``[T, V']``."""
        # Only the token that is never chosen gives way to the second, and only tiles with it can tell to which.
        rival = self.never is not None and first <= self.never < first + logits.shape[1]
        self.tiles += tile_stats(logits, first, self.draw, rival=rival, compile=self.compile, scratch=self.scratch)
        if self.keep:
            self.logits = logits.float()
        if self.held is not None:
            at = (self.held - first)[:, None]
            inside = (at >= 0) & (at < logits.shape[1])
            found = logits.gather(1, at.clamp(0, logits.shape[1] - 1)).float()
            self.held_logits.append(found.where(inside, -torch.inf)[:, 0])

    def draws(self) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences, ``[T, N]``."""
        tiles = merge_tiles(self.tiles)
        assert tiles.drawn is not None and tiles.logit is not None
        token = tiles.drawn[:, 0]
        weight = torch.where(token == tiles.best[:, 0, :1], 1.0, (tiles.logit[:, 0] - tiles.top[:, 0, :1]).exp())
        return token, weight / (1 + tiles.rest)

    def stats(self) -> Stats:
        """Statistics of the rows, the whole vocabulary having been added.

        With z = logits - max, e = exp(z) and r = the sum of e without the maximum's own 1, everything near certainty
        is a function of the small number r: confidence 1 / (1 + r), log-odds -log r and entropy
        log1p(r) - sum(e z) / (1 + r).
        """
        tiles = merge_tiles(self.tiles)
        (largest, second), (best, next_best) = tiles.top[:, 0].unbind(-1), tiles.best[:, 0].unbind(-1)
        rest, fall = tiles.rest[:, 0], tiles.fall[:, 0]
        total, ratio = 1 + rest, (second - largest).exp()
        token, below = best, ratio
        if tiles.drawn is not None and tiles.logit is not None:
            token, below = tiles.drawn[:, 0, 0], (tiles.logit[:, 0, 0] - largest).exp()
        elif self.never is not None:
            token = torch.where(best == self.never, next_best, best)
        likeliest = token == best
        weight = torch.where(likeliest, 1.0, below)
        others = torch.where(likeliest, rest, total - weight)
        held = None
        if self.held is not None:
            held = (torch.stack(self.held_logits).amax(0) - largest).exp() / total
        log_weight, log_others = torch.stack([weight, others]).clamp_min_(TINY).log_().unbind()
        entropy = (torch.log1p(rest) - fall / total).clamp_min_(0.0)
        numbers = torch.stack([weight / total, log_weight - log_others, entropy, rest, ratio], -1)
        return Stats(token, numbers, held, self.logits)


def accumulate(
    logits: Tensor,
    draw: Draw | None = None,
    *,
    never: int | None = None,
    held: Tensor | None = None,
    keep: bool = False,
    compile: bool = False,
    scratch: Scratch | None = None,
) -> Iterator[StatsAccumulator]:
    """Readings of ``logits`` ``[T, V]``, of as many rows at a time as suit the device."""
    count, vocabulary = logits.shape
    scratch = scratch or Scratch()
    size = max(1, PASS_ELEMENTS // vocabulary) if logits.device.type == "cpu" else max(1, count)
    for lo in range(0, max(count, 1), size):
        cut = slice(lo, lo + size)
        part = draw and draw._replace(keys=draw.keys[cut])
        mine = None if held is None else held[cut]
        reading = StatsAccumulator(part, never=never, held=mine, keep=keep, compile=compile, scratch=scratch)
        reading.add(logits[cut])
        yield reading


def statistics(
    logits: Tensor, *, temperature: float = 0.0, keys: Tensor | None = None, never: int | None = None
) -> Stats:
    """Statistics of ``logits`` ``[T, V]``.

    The token is the argmax, or with ``temperature`` > 0 the Gumbel-max draw of softmax(logits / temperature) with the
    noise that ``keys`` ``[T]`` (``Draws.token_keys``) stand for. Confidence, entropy and margin are those of
    softmax(logits) at temperature 1. The token ``never`` (the mask) keeps its probability but is not chosen.
    """
    draw = None
    if temperature > 0:
        assert keys is not None
        draw = Draw(keys[:, None], temperature, never)
    return Stats.cat([reading.stats() for reading in accumulate(logits, draw, never=never)])
