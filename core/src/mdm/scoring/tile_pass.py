"""The pass over a vocabulary: which implementation makes it, and in which pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import repeat
from typing import Any

import torch
from mdm.models.torch_compile import compiled
from mdm.protocols.draws import token_gumbel
from mdm.scoring.tiles import CHUNK, TILE, Scratch, Tiles, TokenDraw, tile_sums
from torch import Tensor


def tile_stats(
    logits: Tensor,
    first: int = 0,
    draw: TokenDraw | None = None,
    *,
    need_second_token: bool = True,
    compile: bool = False,
    scratch: Scratch | None = None,
) -> list[Tiles]:
    """Tiles of ``logits`` ``[T, V']``, whose tokens are those from ``first`` on.

    ``need_second_token``: whether the token of the second largest is wanted, which takes long to find on a CPU.
    ``compile``: whether torch.compile makes the draws, where no GPU kernel does.
    """
    if logits.device.type == "cuda" and (kernel := _kernel()):
        return [kernel(logits, first, draw)]
    width = logits.shape[1]
    whole = width // TILE * TILE
    scratch = scratch or Scratch()
    parts = []
    if whole:
        parts.append(_tile_stats(logits[:, :whole], TILE, first, draw, need_second_token, compile, scratch))
    if whole < width:
        rest, first = logits[:, whole:], first + whole
        parts.append(_tile_stats(rest, width - whole, first, draw, need_second_token, compile, scratch))
    return parts


def _tile_stats(
    logits: Tensor,
    width: int,
    first: int,
    draw: TokenDraw | None,
    need_second_token: bool,
    compile: bool,
    scratch: Scratch,
) -> Tiles:
    """``logits`` ``[T, S * width]`` in S tiles, which lie below one another as the pass sees them."""
    count, tiles = logits.shape[0], logits.shape[1] // width
    x = logits.reshape(-1, width).float()
    top, best, tail_sum, tail_energy = tile_sums(x, need_second_token, scratch)
    shape = (count, tiles)
    start: int | Tensor = first
    if tiles > 1:
        start = torch.arange(first, first + logits.shape[1], width, device=x.device)[:, None]
    best = best.view(*shape, 2)
    if tiles > 1 or first:
        best = best + start
    sums = Tiles(top.view(*shape, 2), best, tail_sum.view(shape), tail_energy.view(shape))
    if draw is None:
        return sums
    tokens = (start + torch.arange(width, device=x.device)).expand(tiles, width).repeat(count, 1)
    never = -1 if draw.never is None else draw.never
    draws = []
    for key in draw.keys.repeat_interleave(tiles, 0).unbind(1):
        inputs = (x, key, tokens, 1 / draw.temperature, never)
        draws.append(compiled(_draw_tokens)(*inputs) if compile else _in_chunks(_draw_tokens, *inputs))
    value, index, logit = (torch.stack(column, -1).view(*shape, len(column)) for column in zip(*draws, strict=True))
    return sums._replace(draw_value=value, draw_token=index + start, draw_logit=logit)


def _in_chunks(function: Callable[..., tuple[Tensor, ...]], x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """``function`` of tiles ``[M, C]`` and more of M, a few tiles at a time on a CPU."""
    size = max(1, CHUNK // x.shape[1])
    if x.device.type != "cpu" or len(x) <= size:
        return function(x, *given)
    columns: list[Any] = [torch.split(v, size) if isinstance(v, Tensor) else repeat(v) for v in (x, *given)]
    parts = [function(*piece) for piece in zip(*columns, strict=False)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _draw_tokens(x: Tensor, key: Tensor, tokens: Tensor, scale: float, never: int) -> tuple[Tensor, Tensor, Tensor]:
    """One draw for each of ``key`` ``[M]`` from tiles ``[M, C]``: value, token within the tile and its logit."""
    noisy = token_gumbel(key[:, None], tokens).add_(x * scale)
    value, index = noisy.masked_fill_(tokens == never, -torch.inf).max(-1)
    return value, index, x.gather(-1, index[..., None])[..., 0]


@cache
def _kernel() -> Callable[..., Tiles] | None:
    """The twin for a GPU, where there is a Triton to compile it."""
    try:
        from mdm.scoring import tiles_triton
    except ImportError:
        return None
    return tiles_triton.tile_stats
