"""From logits to what a sampler reads: one pass, only for the rows that somebody reads."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits made by one call of the head: enough rows for a matrix product to pay, 64 MB in float32."""
CACHE_ELEMENTS = 1 << 19
"""Logits worked on at a time on a CPU, so that what a pass leaves behind is still in its cache for the next."""
TILE = 256
"""Logits of which the largest is kept on the way to the two largest of a row."""


@dataclass(frozen=True)
class Stats:
    """Statistics of rows of logits, each ``[T]``; entropies in nats.

    ``confidence`` is the probability of ``token``; ``log_odds`` orders rows as confidence does and keeps its
    resolution where float32 rounds confidence to 1; ``margin`` is top-1 minus top-2 probability and
    ``margin_rank`` orders rows as it does. On request, ``held`` is the probability of a given token and ``logits``
    ``[T, V]`` are what all this was computed from.
    """

    token: Tensor
    confidence: Tensor
    log_odds: Tensor
    entropy: Tensor
    margin: Tensor
    margin_rank: Tensor
    held: Tensor | None = None
    logits: Tensor | None = None

    @staticmethod
    def cat(parts: list[Stats]) -> Stats:
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(Stats) if getattr(parts[0], f.name) is not None]
        return Stats(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


def statistics(
    logits: Tensor, *, temperature: float = 0.0, noise: Tensor | None = None, never: int | None = None
) -> Stats:
    """Statistics of ``logits`` ``[T, V]``.

    The token is the argmax, or with ``temperature`` > 0 the Gumbel-max draw of softmax(logits / temperature) with
    standard Gumbel ``noise`` ``[T, V]``. Confidence, entropy and margin are those of softmax(logits) at temperature 1.
    The token ``never`` (the mask) keeps its probability but is not chosen.

    With z = logits - max, e = exp(z) and r = the sum of e without the maximum's own 1, everything near certainty is
    a function of the small number r: confidence 1 / (1 + r), log-odds -log r, entropy log1p(r) - sum(e z) / (1 + r).
    """
    count, vocabulary = logits.shape
    size = max(1, CACHE_ELEMENTS // vocabulary) if logits.device.type == "cpu" else max(1, count)
    parts = []
    for lo in range(0, max(count, 1), size):
        cut = slice(lo, lo + size)
        parts.append(_statistics(logits[cut], temperature, None if noise is None else noise[cut], never))
    return Stats.cat(parts)


def _statistics(logits: Tensor, temperature: float, noise: Tensor | None, never: int | None) -> Stats:
    x = logits.float()
    top, best = top_two(x)
    first = best[:, :1]
    # A token at -inf weighs nothing: 0 * -inf would be nan.
    z = (x - top[:, :1]).clamp_(min=-1e30)
    e = z.exp().scatter_(1, first, 0.0)
    rest = e.sum(-1)
    total = 1 + rest
    token = first[:, 0]
    if temperature > 0:
        assert noise is not None
        noisy = torch.add(noise, x, alpha=1 / temperature)
        if never is not None:
            noisy[:, never] = -torch.inf
        token = noisy.argmax(-1)
    elif never is not None:
        token = torch.where(token == never, best[:, 1], token)
    is_best = token == best[:, 0]
    weight = torch.where(is_best, 1.0, e.gather(1, token[:, None])[:, 0])
    entropy = torch.log1p(rest) - e.mul_(z).sum(-1) / total
    second = (top[:, 1] - top[:, 0]).exp()
    tiny = torch.finfo(torch.float32).tiny
    return Stats(
        token=token,
        confidence=weight / total,
        log_odds=weight.clamp_min(tiny).log() - torch.where(is_best, rest, total - weight).clamp_min(tiny).log(),
        entropy=entropy.clamp_min(0.0),
        margin=(1 - second) / total,
        margin_rank=torch.log1p(rest) - (rest + second).clamp_min(tiny).log(),
    )


def top_two(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two largest of each row of ``x`` ``[T, V]`` and where they are, ``[T, 2]`` each.

    The largest of a tile is a vectorised reduction, which ``topk`` over a vocabulary is not (25 times slower on a CPU).
    The two largest lie in the two tiles with the largest maxima, or in the tail that fills no tile.
    """
    count, vocabulary = x.shape
    tiles = vocabulary // TILE
    if x.device.type != "cpu" or tiles < 4:
        top = x.topk(2, dim=-1)
        return top.values, top.indices
    whole = tiles * TILE
    maxima = x[:, :whole].view(count, tiles, TILE).amax(-1)
    near = maxima.topk(2, dim=-1).indices.sort(-1).values
    within = torch.arange(TILE, device=x.device)
    where = (near[..., None] * TILE + within).flatten(1)
    if whole < vocabulary:
        where = torch.cat([where, torch.arange(whole, vocabulary, device=x.device).expand(count, -1)], 1)
    top = x.gather(1, where).topk(2, dim=-1)
    return top.values, where.gather(1, top.indices)


def ranks(key: Tensor, eligible: Tensor) -> Tensor:
    """The place of each entry among the eligible of its row, best first, ties to the lower index.

    Args:
        key: ``[..., K]``, larger is better.
        eligible: bool ``[..., K]``; the others rank behind all eligible.

    Returns:
        int64 ``[..., K]``.
    """
    order = key.masked_fill(~eligible, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    # An eligible entry whose key is -inf itself still goes before the others.
    front = eligible.gather(-1, order).to(torch.int8).sort(dim=-1, descending=True, stable=True).indices
    order = order.gather(-1, front)
    places = torch.arange(key.shape[-1], device=key.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def top_k(key: Tensor, eligible: Tensor, k: Tensor) -> Tensor:
    """The ``k`` best eligible entries of each row, fewer where fewer are eligible.

    Args:
        key: ``[..., K]``, larger is better; ties go to the lower index.
        eligible: bool ``[..., K]``.
        k: int64 ``[...]``, a number for each row.

    Returns:
        bool ``[..., K]``.
    """
    return (ranks(key, eligible) < k[..., None]) & eligible
