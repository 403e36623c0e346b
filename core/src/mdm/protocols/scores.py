"""What the model says at the positions that are scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from mdm.protocols.rowwise import fast_replace, map_tensors, select_candidate
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny  # the smallest number that a logarithm is taken of


def stack_certainty(
    *, confidence: Tensor, log_odds: Tensor, entropy: Tensor, tail_odds: Tensor, runner_up_odds: Tensor
) -> Tensor:
    """The five numbers ``[..., 5]`` that ``Stats.numbers`` holds, each given ``[...]``."""
    return torch.stack([confidence, log_odds, entropy, tail_odds, runner_up_odds], -1)


class _Column:
    """One of ``Stats.numbers``, as an attribute."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __get__(self, stats: Stats, kind: type[Stats]) -> Tensor:
        return stats.numbers.select(-1, self.index)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """A token for each row of logits, and how certain the model is of it.

    All ``[T]``, or of any other shape in front. What is only kept on request is None where nobody asked.
    """

    token: Tensor
    """int64: the likeliest token that is not the mask; with a temperature, the one that was drawn"""
    numbers: Tensor
    """float32 ``[..., 5]``: the five certainties below, in one tensor so that they are selected together"""
    held: Tensor | None = None
    """probability of the token that stands at the position, for samplers that read decoded positions; or of the token
    that an ``Evaluate`` named there"""
    logits: Tensor | None = None
    """float32 ``[..., V]`` after guidance and logit rules; for samplers that keep them"""

    confidence = _Column(0)
    """probability of ``token``"""
    log_odds = _Column(1)
    """log-odds of ``token``: orders as ``confidence`` does, and keeps its resolution near certainty"""
    entropy = _Column(2)
    """entropy of the whole distribution (nats)"""
    tail_odds = _Column(3)
    """probability of all tokens but the likeliest, over that of the likeliest"""
    runner_up_odds = _Column(4)
    """probability of the second likeliest token, over that of the likeliest"""

    @property
    def margin(self) -> Tensor:
        """Probability of the likeliest token minus that of the second likeliest."""
        return (1 - self.runner_up_odds) / (1 + self.tail_odds)

    @property
    def margin_rank(self) -> Tensor:
        """Orders as ``margin`` does, and keeps its resolution where float32 rounds the margin to 1."""
        return torch.log1p(self.tail_odds) - (self.tail_odds + self.runner_up_odds).clamp_min(TINY).log()

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = map_tensors(parts[0], lambda v: v)
        return fast_replace(parts[0], **{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


@dataclass(frozen=True, kw_only=True)
class Scores(Stats):
    """``Stats`` of the K positions of each canvas that are scored.

    All ``[B, K]``, or ``[B, N, K]`` as the answer to an ``Evaluate``. Where ``valid`` is False the rest means nothing.
    """

    positions: Tensor
    """int64: absolute positions, ascending"""
    valid: Tensor
    """bool"""
    unscored: Tensor
    """int64 ``[B]`` or ``[B, N]``: masked positions within reach that this forward did not compute"""
    vocab_size: int
    """V"""
    choices: int | None = None
    """how many tokens can be drawn (None: V); an unscored mask counts as so many equal ones, ln of that in nats"""
    features: Tensor | None = None
    """``[..., K, D]``: hidden states, kept where tokens are drawn so that they can be drawn again"""
    redraw: Callable[[Scores, int], tuple[Tensor, Tensor]] | None = None
    names_held: bool = False
    """whether ``held`` is of tokens that an ``Evaluate`` named"""
    canvas: Tensor | None = None
    """int64 ``[B, N]`` in the answer to an ``Evaluate``: a number by which the engine knows each candidate's canvas"""

    def rows(self, index: Tensor) -> Scores:
        """Rows ``index`` ``[R]``, in that order."""
        return fast_replace(self, **map_tensors(self, lambda v: v.index_select(0, index)))

    def pick(self, choice: Tensor) -> Scores:
        """Of scores ``[B, N, K]``, candidate ``choice`` ``[B]`` of each row: scores ``[B, K]``."""
        return fast_replace(self, **map_tensors(self, lambda v: select_candidate(v, choice)))

    def empty(self, count: int, width: int) -> Scores:
        """``count`` rows of ``width`` positions, none of them valid."""
        # ``unscored`` has no axis of positions.
        return fast_replace(self, **map_tensors(self, lambda v: v.new_zeros((count, width, *v.shape[2:])[: v.dim()])))

    def scatter_rows(self, index: Tensor, count: int, base: Scores | None = None) -> Scores:
        """These rows at ``index`` ``[R]`` among ``count`` rows; the others as in ``base``, or without a valid entry."""
        width = max(self.positions.shape[1], base.positions.shape[1] if base is not None else 0)
        out = self.empty(count, width)
        parts = [(torch.arange(count, device=index.device), base)] if base is not None else []
        for where, part in [*parts, (index, self)]:
            for name, value in map_tensors(part, lambda v: v).items():
                getattr(out, name)[where, *map(slice, value.shape[1:])] = value
        out.valid[index, self.positions.shape[1] :] = False  # what the rows were shown before may be more
        return out

    def unflatten(self, rows: int, candidates: int) -> Scores:
        """Scores ``[B * N, K]`` as ``[B, N, K]``."""
        return fast_replace(self, **map_tensors(self, lambda v: v.reshape(rows, candidates, *v.shape[1:])))

    def uncertainty(self) -> Tensor:
        """State uncertainty, the mean entropy over the masks within reach (nats): ``[B]`` or ``[B, N]``."""
        # Whoever is shown committed positions too takes them out of ``valid`` first.
        scored = self.entropy.where(self.valid, 0.0).sum(-1)
        count = self.valid.sum(-1) + self.unscored
        return scored.add(self.unscored, alpha=math.log(self.choices or self.vocab_size)).div_(count.clamp_min_(1))

    def draws(self, candidates: int) -> tuple[Tensor, Tensor]:
        """Tokens and their confidences ``[B, N, K]``: the first as scored, the others drawn afresh.

        Without a token temperature all are the same.
        """
        shape = (self.positions.shape[0], candidates, self.positions.shape[-1])
        if self.redraw is None or candidates <= 1:
            return self.token[:, None].expand(shape), self.confidence[:, None].expand(shape)
        return self.redraw(self, candidates)


def ranks(key: Tensor, eligible: Tensor) -> Tensor:
    """int64 ``[..., K]``: the place of each ``key`` ``[..., K]`` in its row, largest first, ties to the lower index.

    ``eligible`` is bool and broadcasts to ``key``; entries that are not eligible rank behind all that are.
    """
    # An eligible entry whose key is -inf itself still goes before the others.
    finite = key.clamp_min(torch.finfo(key.dtype).min)
    order = torch.where(eligible, finite, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(key.shape[-1], device=key.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def top_k(key: Tensor, eligible: Tensor, k: Tensor) -> Tensor:
    """bool ``[..., K]``: the ``k`` eligible entries of each row with the largest ``key``, ties to the lower index.

    ``eligible`` is bool and broadcasts to ``key`` ``[..., K]``; ``k`` is int64 and broadcasts to ``[...]``.
    """
    return (ranks(key, eligible) < k[..., None]) & eligible
