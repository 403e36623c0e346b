"""From logits to what a sampler reads: one pass, only for the rows that somebody reads."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""Logits worked on at a time (float32 temporaries of 16 MB on CPU)."""


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
    x = logits.float()
    top = x.topk(2, dim=-1)
    best = top.indices[:, 0]
    z = x - top.values[:, :1]
    e = z.exp()
    e.scatter_(1, best[:, None], 0.0)
    rest = e.sum(-1)
    total = 1 + rest
    # A token at -inf weighs nothing: 0 * -inf would be nan.
    weighted = (e * z.clamp_min_(-1e30)).sum(-1)
    entropy = torch.log1p(rest) - weighted / total
    second = (top.values[:, 1] - top.values[:, 0]).exp()
    tiny = torch.finfo(torch.float32).tiny
    margin_rank = torch.log1p(rest) - torch.log((rest + second).clamp_min(tiny))
    if temperature > 0:
        assert noise is not None
        noisy = x / temperature + noise
        if never is not None:
            noisy[:, never] = -torch.inf
        token = noisy.argmax(-1)
    else:
        token = best if never is None else torch.where(best == never, top.indices[:, 1], best)
    weight = torch.where(token == best, 1.0, e.gather(1, token[:, None])[:, 0])
    others = torch.where(token == best, rest, total - weight)
    return Stats(
        token=token,
        confidence=weight / total,
        log_odds=torch.log(weight.clamp_min(tiny)) - torch.log(others.clamp_min(tiny)),
        entropy=entropy.clamp_min(0.0),
        margin=(1 - second) / total,
        margin_rank=margin_rank,
    )


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
