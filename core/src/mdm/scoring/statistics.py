"""From logits to statistics: one pass, only over the rows that are scored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from mdm.protocols.scores import TINY, Stats, stack_certainty
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import Scratch, Tiles, TokenDraw, merge_tiles
from mdm.scoring.truncation import truncate
from torch import Tensor

PASS_ELEMENTS = 1 << 21
"""Logits that one pass on a CPU is given: with fewer the operations cost more, with more they take more memory."""


class StatsAccumulator:
    """Turns rows of logits into ``Stats``; the vocabulary is added in order, in one piece or in several.

    ``compile`` and ``scratch`` are those of ``mdm.scoring.tile_pass.tile_stats``.

    Args:
        draw: how tokens are drawn, the first of its draws being the one that is scored; None takes the largest logit.
        vocab_size: V, where tokens that cannot be drawn are not added; None: as many as are added.
        never: a token (the mask) that keeps its probability but is not chosen.
        last: tokens (the end tokens) that may be chosen but count as chosen without any certainty: confidence 0, and
            entropy and margin of a uniform distribution.
        held: int64 ``[T]``, tokens whose probability is wanted.
        keep: whether the statistics carry the scored logits, which are then added in one piece.
    """

    def __init__(
        self,
        draw: TokenDraw | None = None,
        vocab_size: int | None = None,
        *,
        never: int | None = None,
        last: Sequence[int] = (),
        held: Tensor | None = None,
        keep: bool = False,
        compile: bool = False,
        scratch: Scratch | None = None,
    ) -> None:
        self.draw, self.never, self.last, self.held, self.keep = draw, never, last, held, keep
        self.compile, self.scratch = compile, scratch
        self.choice: list[Tiles] = []
        """of what tokens are chosen from"""
        self.scored: list[Tiles] = []
        """of what certainties are read from; the same tiles where that is the same"""
        self.vocab_size, self.added = vocab_size, 0
        self.held_logits: list[Tensor] = []
        self.logits: Tensor | None = None

    def add(self, logits: Tensor, first: int = 0, scored: Tensor | None = None) -> None:
        """Add the tokens from ``first`` on: ``logits`` ``[T, V']`` that tokens are chosen from.

        ``scored`` ``[T, V']`` are those that certainties are read from, where these are others; they may differ in
        which tokens are at -inf, and in nothing else.
        """
        inside = [token - first for token in self.last if first <= token < first + logits.shape[1]]
        if inside:
            scored = (logits if scored is None else scored).clone()
            for token in inside:
                scored[:, token] = -torch.inf
        self.choice += self._tiles(logits, first, self.draw)
        self.scored += self.choice[len(self.scored) :] if scored is None else self._tiles(scored, first, None)
        scored = logits if scored is None else scored
        self.added += logits.shape[1]
        if self.keep:
            self.logits = scored.float()
        if self.held is not None:
            index = (self.held - first)[:, None]
            within = (index >= 0) & (index < logits.shape[1])
            held = scored.gather(1, index.clamp(0, logits.shape[1] - 1)).float()
            self.held_logits.append(held.where(within, -torch.inf)[:, 0])

    def _tiles(self, logits: Tensor, first: int, draw: TokenDraw | None) -> list[Tiles]:
        # Only where the likeliest token may not be chosen is the second one needed, and only its tiles can name it.
        second = self.never is not None and first <= self.never < first + logits.shape[1]
        return tile_stats(logits, first, draw, need_second_token=second, compile=self.compile, scratch=self.scratch)

    def _merged(self) -> tuple[Tiles, Tiles]:
        """The tiles of what tokens are chosen from, and of what is scored."""
        choice = merge_tiles(self.choice)
        if all(ours is theirs for ours, theirs in zip(self.choice, self.scored, strict=True)):
            return choice, choice
        scored = [Tiles(*tiles[:4]) for tiles in self.scored]
        return choice, merge_tiles(scored)

    def draws(self) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences, ``[T, N]``."""
        choice, scored = self._merged()
        assert choice.draw_token is not None and choice.draw_logit is not None
        token = choice.draw_token[:, 0]
        drop = choice.draw_logit[:, 0] - scored.top_logits[:, 0, :1]
        weight = torch.where(token == scored.top_tokens[:, 0, :1], 1.0, drop.exp())
        return token, torch.where(self._is_last(token), 0.0, weight / (1 + scored.tail_sum))

    def _is_last(self, token: Tensor) -> Tensor:
        """bool, where ``token`` is one of ``last``."""
        found = torch.zeros_like(token, dtype=torch.bool)
        for number in self.last:
            found = found | (token == number)
        return found

    def stats(self) -> Stats:
        """Statistics ``[T]`` of the rows, once the whole vocabulary has been added.

        With z = logits - max, e = exp(z) and r = the sum of e without the maximum's own 1, everything near certainty
        is a function of the small number r: confidence 1 / (1 + r), log-odds -log r and entropy
        log1p(r) - sum(e z) / (1 + r). Where a logit is nan or +inf, or no token may be chosen, the entropy is nan.
        """
        choice, scored = self._merged()
        (largest, second), best = scored.top_logits[:, 0].unbind(-1), scored.top_tokens[:, 0, 0]
        tail, energy = scored.tail_sum[:, 0], scored.tail_energy[:, 0]
        total, runner_up = 1 + tail, (second - largest).exp()
        if choice.draw_token is not None and choice.draw_logit is not None:
            token, logit = choice.draw_token[:, 0, 0], choice.draw_logit[:, 0, 0]
        else:
            (logit, next_logit), (token, next_token) = (
                choice.top_logits[:, 0].unbind(-1),
                choice.top_tokens[:, 0].unbind(-1),
            )
            if self.never is not None:
                masked = token == self.never
                token, logit = torch.where(masked, next_token, token), torch.where(masked, next_logit, logit)
        is_best = token == best
        weight = torch.where(is_best, 1.0, (logit - largest).exp())
        others = torch.where(is_best, tail, total - weight)
        held = None
        if self.held is not None:
            held = (torch.stack(self.held_logits).amax(0) - largest).exp() / total
        log_weight, log_others = torch.stack([weight, others]).clamp_min_(TINY).log_().unbind()
        certainty = {
            "confidence": weight / total,
            "log_odds": log_weight - log_others,
            # A token at +inf leaves no rest, and one at -inf is forbidden: both sums look like certainty.
            "entropy": (torch.log1p(tail) - energy / total).clamp_min_(0.0) + (logit - logit),
            "tail_odds": tail,
            "runner_up_odds": runner_up,
        }
        if self.last:
            is_last = self._is_last(token)
            size = self.vocab_size or self.added
            uniform = (0.0, math.log(TINY) - math.log(size), math.log(size), size - 1.0, 1.0)
            fault = certainty["entropy"] - certainty["entropy"]
            certainty = {
                name: torch.where(is_last, low, value)
                for (name, value), low in zip(certainty.items(), uniform, strict=True)
            }
            certainty["entropy"] = certainty["entropy"] + fault
        return Stats(token=token, numbers=stack_certainty(**certainty), held=held, logits=self.logits)


def accumulate(
    logits: Tensor,
    draw: TokenDraw | None = None,
    first: int = 0,
    vocab_size: int | None = None,
    *,
    never: int | None = None,
    scored: Tensor | None = None,
    last: Sequence[int] = (),
    held: Tensor | None = None,
    keep: bool = False,
    compile: bool = False,
    scratch: Scratch | None = None,
) -> Iterator[StatsAccumulator]:
    """Accumulators of ``logits`` ``[T, V']``, whose tokens are those from ``first`` on.

    Each is over as many rows as suit the device; the other arguments are as in the class.
    """
    count, vocabulary = logits.shape
    scratch = scratch or Scratch()
    size = max(1, PASS_ELEMENTS // vocabulary) if logits.device.type == "cpu" else max(1, count)
    for start in range(0, max(count, 1), size):
        rows = slice(start, start + size)
        accumulator = StatsAccumulator(
            draw and draw._replace(keys=draw.keys[rows]), vocab_size, never=never, last=last,
            held=None if held is None else held[rows], keep=keep, compile=compile, scratch=scratch,
        )  # fmt: skip
        accumulator.add(logits[rows], first, scored=None if scored is None else scored[rows])
        yield accumulator


def statistics(
    logits: Tensor, *, temperature: float = 0.0, keys: Tensor | None = None, never: int | None = None,
    top_p: float = 1.0, top_k: int | None = None,
) -> Stats:  # fmt: skip
    """Statistics of ``logits`` ``[T, V]``.

    The token is the argmax, or with ``temperature`` > 0 the Gumbel-max draw of softmax(logits / temperature) with the
    noise that ``keys`` ``[T]`` (``Draws.token_keys``) stand for, among the tokens that ``top_p`` and ``top_k`` leave
    (``mdm.scoring.truncation``). Confidence, entropy and margin are those of
    softmax(logits) at temperature 1. The token ``never`` (the mask) keeps its probability but is not chosen.
    """
    draw = scored = None
    if temperature > 0:
        assert keys is not None
        draw = TokenDraw(keys[:, None], temperature, never)
        if top_p < 1 or top_k is not None:
            scored = logits.float()
            logits = truncate(logits, temperature=temperature, top_p=top_p, top_k=top_k, never=never)
    return Stats.cat([part.stats() for part in accumulate(logits, draw, never=never, scored=scored)])
