"""From logits to statistics: one pass, only over the rows that are scored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from mdm.protocols.scores import TINY, Stats, stack_certainty
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import Scratch, Tiles, TokenDraw, merge_tiles
from torch import Tensor

PASS_ELEMENTS = 1 << 21
"""Logits that one pass on a CPU is given: with fewer the operations cost more, with more they take more memory."""


class StatsAccumulator:
    """Turns rows of logits into ``Stats``; the vocabulary is added in order, in one piece or in several.

    Args:
        draw: how tokens are drawn, the first of its draws being the one that is scored; None takes the largest logit.
        never: a token (the mask) that keeps its probability but is not chosen.
        held: int64 ``[T]``, tokens whose probability is wanted.
        keep: whether the statistics carry the logits, which are then added in one piece.
        compile, scratch: see ``mdm.scoring.tile_pass.tile_stats``.
    """

    def __init__(
        self,
        draw: TokenDraw | None = None,
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
        # Only where the likeliest token may not be chosen is the second one needed, and only its tiles can name it.
        second = self.never is not None and first <= self.never < first + logits.shape[1]
        self.tiles += tile_stats(
            logits, first, self.draw, need_second_token=second, compile=self.compile, scratch=self.scratch
        )
        if self.keep:
            self.logits = logits.float()
        if self.held is not None:
            index = (self.held - first)[:, None]
            inside = (index >= 0) & (index < logits.shape[1])
            held = logits.gather(1, index.clamp(0, logits.shape[1] - 1)).float()
            self.held_logits.append(held.where(inside, -torch.inf)[:, 0])

    def draws(self) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences, ``[T, N]``."""
        tiles = merge_tiles(self.tiles)
        assert tiles.draw_token is not None and tiles.draw_logit is not None
        token = tiles.draw_token[:, 0]
        drop = tiles.draw_logit[:, 0] - tiles.top_logits[:, 0, :1]
        weight = torch.where(token == tiles.top_tokens[:, 0, :1], 1.0, drop.exp())
        return token, weight / (1 + tiles.tail_sum)

    def stats(self) -> Stats:
        """Statistics ``[T]`` of the rows, once the whole vocabulary has been added.

        With z = logits - max, e = exp(z) and r = the sum of e without the maximum's own 1, everything near certainty
        is a function of the small number r: confidence 1 / (1 + r), log-odds -log r and entropy
        log1p(r) - sum(e z) / (1 + r).
        """
        tiles = merge_tiles(self.tiles)
        (largest, second), (best, next_best) = tiles.top_logits[:, 0].unbind(-1), tiles.top_tokens[:, 0].unbind(-1)
        tail, energy = tiles.tail_sum[:, 0], tiles.tail_energy[:, 0]
        total, runner_up = 1 + tail, (second - largest).exp()
        token, weight_if_not_best = best, runner_up
        if tiles.draw_token is not None and tiles.draw_logit is not None:
            token, weight_if_not_best = tiles.draw_token[:, 0, 0], (tiles.draw_logit[:, 0, 0] - largest).exp()
        elif self.never is not None:
            token = torch.where(best == self.never, next_best, best)
        is_best = token == best
        weight = torch.where(is_best, 1.0, weight_if_not_best)
        others = torch.where(is_best, tail, total - weight)
        held = None
        if self.held is not None:
            held = (torch.stack(self.held_logits).amax(0) - largest).exp() / total
        log_weight, log_others = torch.stack([weight, others]).clamp_min_(TINY).log_().unbind()
        numbers = stack_certainty(
            confidence=weight / total,
            log_odds=log_weight - log_others,
            entropy=(torch.log1p(tail) - energy / total).clamp_min_(0.0),
            tail_odds=tail,
            runner_up_odds=runner_up,
        )
        return Stats(token=token, numbers=numbers, held=held, logits=self.logits)


def accumulate(
    logits: Tensor,
    draw: TokenDraw | None = None,
    *,
    never: int | None = None,
    held: Tensor | None = None,
    keep: bool = False,
    compile: bool = False,
    scratch: Scratch | None = None,
) -> Iterator[StatsAccumulator]:
    """Accumulators of ``logits`` ``[T, V]``, each over as many rows as suit the device; arguments as in the class."""
    count, vocabulary = logits.shape
    scratch = scratch or Scratch()
    size = max(1, PASS_ELEMENTS // vocabulary) if logits.device.type == "cpu" else max(1, count)
    for start in range(0, max(count, 1), size):
        rows = slice(start, start + size)
        accumulator = StatsAccumulator(
            draw and draw._replace(keys=draw.keys[rows]), never=never, held=None if held is None else held[rows],
            keep=keep, compile=compile, scratch=scratch,
        )  # fmt: skip
        accumulator.add(logits[rows])
        yield accumulator


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
        draw = TokenDraw(keys[:, None], temperature, never)
    return Stats.cat([accumulator.stats() for accumulator in accumulate(logits, draw, never=never)])
