"""The pass over a vocabulary as a Triton kernel: one read of the logits in their own type, float32 accumulators.

Twin of the functions in ``mdm.scoring.tiles``, which say what the numbers are. Imported only where the logits are on a
GPU and Triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from mdm.protocols.draws import GOLDEN, MIX_1, MIX_2
from mdm.scoring.tiles import LOWEST, TILE, Tiles, TokenDraw
from torch import Tensor

SPLIT = 8 * TILE
"""Tokens that one program goes over: few enough that a handful of rows keeps a whole GPU busy."""

_GOLDEN = tl.constexpr(GOLDEN)
_MIX_1 = tl.constexpr(MIX_1)
_MIX_2 = tl.constexpr(MIX_2)
_LOWEST = tl.constexpr(LOWEST)


def tile_stats(logits: Tensor, first: int = 0, draw: TokenDraw | None = None) -> Tiles:
    """Tiles of ``logits`` ``[T, V']``, whose tokens are those from ``first`` on; S is V' / SPLIT, rounded up."""
    rows, width = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    splits = triton.cdiv(width, SPLIT)
    draws = 1 if draw is None else draw.keys.shape[1]  # without a draw the kernel leaves that memory as it is

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(rows, splits, *shape, dtype=dtype, device=logits.device)

    tiles = Tiles(
        top_logits=empty(2), top_tokens=empty(2, dtype=torch.long), tail_sum=empty(), tail_energy=empty(),
        draw_value=empty(draws), draw_token=empty(draws, dtype=torch.long), draw_logit=empty(draws),
    )  # fmt: skip
    keys, scale, never = logits, 0.0, -1
    if draw is not None:
        keys, scale = draw.keys.contiguous(), 1 / draw.temperature
        never = -1 if draw.never is None else draw.never
    if rows:
        _pass[rows, splits](
            logits, logits.stride(0), width, first, keys, draws, scale, never, *tiles,
            draw is not None, triton.next_power_of_2(draws), SPLIT, TILE,
        )  # fmt: skip
    return tiles if draw is not None else Tiles(*tiles[:4])


@triton.jit
def _pass(
    logits, stride, width, first, keys, draws, scale, never,
    top_out, best_out, tail_out, energy_out, value_out, drawn_out, logit_out,
    DRAWN: tl.constexpr, DRAWS: tl.constexpr, SPLIT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row, split = tl.program_id(0), tl.program_id(1)
    start = split * SPLIT
    logits += row.to(tl.int64) * stride
    top = -float("inf")
    second = -float("inf")
    best = start
    next_best = start
    tail = 0.0
    energy = 0.0
    lane = tl.arange(0, DRAWS)
    value = tl.full([DRAWS], -float("inf"), tl.float32)
    drawn = tl.zeros([DRAWS], tl.int32) + start
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
        its_tail = tl.sum(e, 0)
        its_energy = tl.sum(e * z, 0)

        # Whichever has the lesser largest logit becomes a part of the other's tail, its largest included.
        wins = its_top > top
        lesser = tl.where(wins, top, its_top)
        lesser_best = tl.where(wins, best, its_best)
        terms = tl.where(wins, tail, its_tail) + 1.0
        lesser_energy = tl.where(wins, energy, its_energy)
        top = tl.where(wins, its_top, top)
        best = tl.where(wins, its_best, best)
        drop = tl.maximum(lesser - tl.maximum(top, _LOWEST), _LOWEST)
        weight = tl.exp(drop)
        tail = tl.where(wins, its_tail, tail) + weight * terms
        energy = tl.where(wins, its_energy, energy) + weight * (lesser_energy + drop * terms)
        second = tl.where(wins, its_second, second)
        next_best = tl.where(wins, its_next, next_best)
        moves = (lesser > second) | ((lesser == second) & (lesser_best < next_best))
        second = tl.where(moves, lesser, second)
        next_best = tl.where(moves, lesser_best, next_best)

        if DRAWN:
            for candidate in range(0, draws):  # the logits stay where they are: one read serves all draws
                key = tl.load(keys + row * draws + candidate)
                noisy = _gumbel(key, at.to(tl.int64) + first) + x * scale
                noisy = tl.where((at + first == never) | (at >= width), -float("inf"), noisy)
                its_value, its_drawn = tl.max(noisy, 0, return_indices=True)
                wins_draw = (lane == candidate) & (its_value > value)
                drawn = tl.where(wins_draw, its_drawn + start + lo, drawn)
                value = tl.where(wins_draw, its_value, value)

    out = row * tl.num_programs(1) + split
    tl.store(top_out + 2 * out, top)
    tl.store(top_out + 2 * out + 1, second)
    tl.store(best_out + 2 * out, best.to(tl.int64) + first)
    tl.store(best_out + 2 * out + 1, next_best.to(tl.int64) + first)
    tl.store(tail_out + out, tail)
    tl.store(energy_out + out, energy)
    if DRAWN:
        there = lane < draws
        tl.store(value_out + out * draws + lane, value, mask=there)
        tl.store(drawn_out + out * draws + lane, drawn.to(tl.int64) + first, mask=there)
        tl.store(logit_out + out * draws + lane, tl.load(logits + drawn, mask=there).to(tl.float32), mask=there)


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
