"""Truncated sampling: which tokens of a row of logits may be drawn under top-p and top-k."""

from __future__ import annotations

import torch
from torch import Tensor

FIRST_LOOK = 64
"""Tokens that are sorted first on a CPU; most nuclei are smaller, and sorting a whole vocabulary takes long."""


def truncate(
    logits: Tensor, *, temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None, never: int | None = None
) -> Tensor:
    """``logits`` ``[T, V]``, float32, with -inf at the tokens that may not be drawn.

    In the order of Dream's published code: of softmax(logits / temperature) the likeliest tokens before which there is
    a probability of at most ``top_p``, and of those the ``top_k`` likeliest. Tokens as likely as the last one stay, so
    that nothing depends on how equals are sorted. A token other than ``never`` (the mask), which cannot be drawn, is
    left in any case.
    """
    logits = logits.float()
    vocabulary = logits.shape[1]
    most = min(vocabulary, max(2, top_k or vocabulary))
    x = logits if temperature == 1.0 else logits * (1 / temperature)
    total = x.logsumexp(-1, keepdim=True)
    for size in (FIRST_LOOK, most) if x.is_cpu and most > FIRST_LOOK else (most,):
        top, token = x.topk(size, -1)
        share = (top - total).exp()
        before = share.cumsum(-1) - share
        inside = before <= (top_p if top_p < 1 else torch.inf)
        if size == most or not bool(inside[:, -1].any()):
            break
    kept = inside.sum(-1, keepdim=True).clamp(1, top_k or vocabulary)
    floor = top.gather(-1, kept - 1)
    if never is not None:
        floor = torch.minimum(floor, torch.where(token[:, :1] == never, top[:, 1:2], top[:, :1]))
    return logits.masked_fill(x < floor, -torch.inf)
