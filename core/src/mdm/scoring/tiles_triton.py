"""The pass over a vocabulary as a Triton kernel: one read of the logits in their own type, float32 accumulators.

Twin of the functions in ``mdm.scoring.tiles``, which say what the numbers are. Imported only where the logits are on a
GPU and Triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from mdm.protocols.draws import GOLDEN, MIX_1, MIX_2
from mdm.scoring.tiles import LOWEST, TILE, Draw, Tiles
from torch import Tensor

SPLIT = 8 * TILE
"""Tokens that one program goes over: few enough that a handful of rows keeps a whole GPU busy."""

_GOLDEN = tl.constexpr(GOLDEN)
_MIX_1 = tl.constexpr(MIX_1)
_MIX_2 = tl.constexpr(MIX_2)
_LOWEST = tl.constexpr(LOWEST)


def summed(logits: Tensor, first: int = 0, draw: Draw | None = None) -> Tiles:
    """Tiles of ``logits`` ``[T, V']``, whose tokens are those from ``first`` on; S is V' / SPLIT, rounded up."""
    rows, width = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    splits = triton.cdiv(width, SPLIT)
    draws = 1 if draw is None else draw.keys.shape[1]  # without one the kernel leaves the room for it as it is

    def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(rows, splits, *shape, dtype=dtype, device=logits.device)

    tiles = Tiles(
        top=made(2), best=made(2, dtype=torch.long), rest=made(), fall=made(),
        value=made(draws), drawn=made(draws, dtype=torch.long), logit=made(draws),
    )  # fmt: skip
    keys, scale, never = logits, 0.0, -1
    if draw is not None:
        keys, scale = draw.keys.contiguous(), 1 / draw.temperature
        never = -1 if draw.never is None else draw.never
    if rows:
        _pass[rows, splits, draws](
            logits, logits.stride(0), width, first, keys, scale, never, *tiles, draw is not None, SPLIT, TILE
        )
    return tiles if draw is not None else Tiles(*tiles[:4])


@triton.jit
def _pass(
    logits, stride, width, first, keys, scale, never,
    top_out, best_out, rest_out, fall_out, value_out, drawn_out, logit_out,
    DRAWS: tl.constexpr, SPLIT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row, split, candidate = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start = split * SPLIT
    logits += row.to(tl.int64) * stride
    top = -float("inf")
    second = -float("inf")
    best = start
    next_best = start
    rest = 0.0
    fall = 0.0
    value = -float("inf")
    drawn = start
    for lo in range(0, tl.minimum(SPLIT, width - start), TILE):
        at = start + lo + tl.arange(0, TILE)
        x = tl.load(logits + at, mask=at < width, other=-float("inf")).to(tl.float32)

        # The tile's own numbers; among equals the lower token is taken.
        its_top, its_best = tl.max(x, 0, return_indices=True)
        its_best += start + lo
        others = tl.where(at == its_best, -float("inf"), x)
        its_second, its_next = tl.max(others, 0, return_indices=True)
        its_next += start + lo
        z = tl.maximum(x - tl.maximum(its_top, _LOWEST), _LOWEST)
        e = tl.where(at == its_best, 0.0, tl.exp(z))
        its_rest = tl.sum(e, 0)
        its_fall = tl.sum(e * z, 0)

        # Whichever has the lesser largest logit becomes a part of the other's rest, its largest included.
        wins = its_top > top
        lesser = tl.where(wins, top, its_top)
        lesser_best = tl.where(wins, best, its_best)
        terms = tl.where(wins, rest, its_rest) + 1.0
        lesser_fall = tl.where(wins, fall, its_fall)
        top = tl.where(wins, its_top, top)
        best = tl.where(wins, its_best, best)
        fall_to = tl.maximum(lesser - tl.maximum(top, _LOWEST), _LOWEST)
        weight = tl.exp(fall_to)
        rest = tl.where(wins, its_rest, rest) + weight * terms
        fall = tl.where(wins, its_fall, fall) + weight * (lesser_fall + fall_to * terms)
        second = tl.where(wins, its_second, second)
        next_best = tl.where(wins, its_next, next_best)
        moves = (lesser > second) | ((lesser == second) & (lesser_best < next_best))
        second = tl.where(moves, lesser, second)
        next_best = tl.where(moves, lesser_best, next_best)

        if DRAWS:
            key = tl.load(keys + row * tl.num_programs(2) + candidate)
            noisy = _gumbel(key, at.to(tl.int64) + first) + x * scale
            noisy = tl.where((at + first == never) | (at >= width), -float("inf"), noisy)
            its_value, its_drawn = tl.max(noisy, 0, return_indices=True)
            drawn = tl.where(its_value > value, its_drawn + start + lo, drawn)
            value = tl.maximum(value, its_value)

    out = row * tl.num_programs(1) + split
    if candidate == 0:
        tl.store(top_out + 2 * out, top)
        tl.store(top_out + 2 * out + 1, second)
        tl.store(best_out + 2 * out, best.to(tl.int64) + first)
        tl.store(best_out + 2 * out + 1, next_best.to(tl.int64) + first)
        tl.store(rest_out + out, rest)
        tl.store(fall_out + out, fall)
    if DRAWS:
        out = out * tl.num_programs(2) + candidate
        tl.store(value_out + out, value)
        tl.store(drawn_out + out, drawn.to(tl.int64) + first)
        tl.store(logit_out + out, tl.load(logits + drawn).to(tl.float32))


@triton.jit
def _gumbel(key, tokens):
    """``mdm.protocols.draws.token_gumbel``; up to the last bits of two logarithms the same numbers."""
    x = (key ^ tokens) + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    x = x ^ _shift(x, 31)
    unit = (_shift(x, 32).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    # log(1 - unit) exact for a small unit (Kahan): what 1 - unit rounds away is divided out again.
    rounded = 1.0 - unit
    log = tl.where(rounded == 1.0, -unit, tl.log(rounded) * (-unit / (rounded - 1.0)))
    return -tl.log(-log)


@triton.jit
def _shift(x, bits: tl.constexpr):
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
