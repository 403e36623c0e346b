"""The pass over a vocabulary as a Triton kernel: one read of the logits in their own type, float32 accumulators.

Twin of the functions in ``mdm.scoring.tiles``, which say what the numbers are. Imported only where the logits are on a
GPU and Triton is installed. Nothing on the host depends on what the logits are, so a CUDA graph may hold the launch.
"""

from __future__ import annotations

from math import gcd

import torch
import triton
import triton.language as tl
from mdm.protocols.draws import GOLDEN, MIX_1, MIX_2
from mdm.scoring.tiles import LOWEST, Tiles, TokenDraw
from torch import Tensor

SPLIT = 1 << 14
"""Tokens that one program goes over: few enough that a handful of rows keeps a whole GPU busy."""

WARPS = 4
"""Groups of 32 threads in a program; each thread reads 16 bytes at a time."""

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
    turn = WARPS * 32 * 16 // logits.element_size()
    if rows:
        _pass[rows, splits](
            logits, logits.stride(0), width, first, keys, scale, never, *tiles,
            0 if draw is None else draws, min(SPLIT, triton.cdiv(width, turn) * turn), turn,
            gcd(16, width, logits.stride(0)), num_warps=WARPS,
        )  # fmt: skip
    return tiles if draw is not None else Tiles(*tiles[:4])


@triton.jit
def _pass(
    logits, stride, width, first, keys, scale, never,
    top_out, best_out, tail_out, energy_out, value_out, drawn_out, logit_out,
    DRAWS: tl.constexpr, SPLIT: tl.constexpr, TURN: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """One run of one row. Lanes go over it on their own, four neighbours a turn, and come together once, at the end.

    Whenever two logits are compared the smaller goes into the lane's tail, so that each but the largest is there once,
    and nan, which is never the larger, is there too. Of the largest and second largest a lane knows in which of its
    turns they came; which of the four they are is looked up at the end.
    """
    row, split = tl.program_id(0), tl.program_id(1)
    start = split * SPLIT
    logits += tl.multiple_of(row.to(tl.int64) * stride, ALIGNED) + start
    count = tl.multiple_of(width - start, ALIGNED)
    LANES: tl.constexpr = TURN // 4
    top = tl.full([LANES], -float("inf"), tl.float32)
    second = tl.full([LANES], -float("inf"), tl.float32)
    best = tl.zeros([LANES], tl.int32)
    next_best = tl.zeros([LANES], tl.int32)
    tail = tl.zeros([LANES], tl.float32)
    energy = tl.zeros([LANES], tl.float32)
    for turn in range(0, SPLIT, TURN):
        x = _load(logits, turn + tl.arange(0, TURN), count)
        a, b = tl.split(tl.reshape(x, (LANES, 2, 2)))
        left, right = tl.split(tl.maximum(a, b))
        high = tl.maximum(left, right)
        less_1, less_2 = tl.split(_smaller(a, b))
        less_3 = _smaller(left, right)
        wins = high > top  # of equals the first is the largest
        less_4 = _smaller(high, top)

        # The second largest is of this turn, or what was the largest or the second before it.
        here = tl.where(wins, tl.maximum(tl.maximum(less_1, less_2), less_3), high)
        before = tl.where(wins, top, second)
        moves = here > before
        second = tl.where(moves, here, before)
        next_best = tl.where(moves, turn, tl.where(wins, best, next_best))
        best = tl.where(wins, turn, best)
        top = tl.where(wins, high, top)

        level = tl.maximum(top, _LOWEST)
        e, z = _exp(less_4, level)
        weight = tl.where(wins, e, 1.0)  # of what was summed before
        energy = weight * (energy + tl.where(wins, z, 0.0) * tail) + e * z
        tail = weight * tail + e
        e, z = _exp(less_1, level)
        tail += e
        energy += e * z
        e, z = _exp(less_2, level)
        tail += e
        energy += e * z
        e, z = _exp(less_3, level)
        tail += e
        energy += e * z

    # Four tokens begin at 4 * lane in each turn, so the lowest of equal logits is where the lowest such beginning is.
    begin = 4 * tl.arange(0, LANES)
    best += begin
    largest = tl.max(top, 0)
    low = tl.min(tl.where(top == largest, best, SPLIT), 0)
    owner = best == low
    others = tl.where(owner, second, top)
    runner_up = tl.max(others, 0)
    next_low = tl.min(tl.where(others == runner_up, tl.where(owner, next_best + begin, best), SPLIT), 0)
    # The largest of every lane but one is a term of the tail.
    weight, z = _exp(top, tl.maximum(largest, _LOWEST))
    terms = tail + tl.where(owner, 0.0, 1.0)
    out = row * tl.num_programs(1) + split
    tl.store(top_out + 2 * out, largest)
    tl.store(top_out + 2 * out + 1, runner_up)
    tl.store(tail_out + out, tl.sum(weight * terms, 0))
    tl.store(energy_out + out, tl.sum(weight * (energy + z * terms), 0))
    token = _find(logits, low, largest, -1, count)
    tl.store(best_out + 2 * out, token.to(tl.int64) + start + first)
    token = _find(logits, next_low, runner_up, token, count)
    tl.store(best_out + 2 * out + 1, token.to(tl.int64) + start + first)

    if DRAWS:  # else there are no keys, which must not even be compiled
        for draw in range(DRAWS):  # the first read has left the run in the GPU's cache
            key = tl.load(keys + row * DRAWS + draw)
            lane = tl.arange(0, 2 * LANES)
            value = tl.full([2 * LANES], -float("inf"), tl.float32)
            drawn = lane
            for turn in range(0, SPLIT, 2 * LANES):
                at = turn + lane
                noisy = _gumbel(key, at.to(tl.int64) + start + first) + _load(logits, at, count) * scale
                wins = (noisy > value) & (at + start + first != never) & (at < count)
                value = tl.where(wins, noisy, value)
                drawn = tl.where(wins, at, drawn)
            best_value = tl.max(value, 0)
            token = tl.min(tl.where(value == best_value, drawn, SPLIT), 0)
            tl.store(value_out + out * DRAWS + draw, best_value)
            tl.store(drawn_out + out * DRAWS + draw, token.to(tl.int64) + start + first)
            tl.store(logit_out + out * DRAWS + draw, tl.load(logits + token).to(tl.float32))


@triton.jit
def _load(logits, at, count):
    return tl.load(logits + at, mask=at < count, other=-float("inf")).to(tl.float32)


@triton.jit
def _smaller(a, b):
    """nan, if one is; the larger of the two is then the other."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _exp(x, level):
    """exp(z) and a finite z, of z = x - level with a finite ``level``: of -inf exp(z) is 0, of nan it is nan."""
    z = x - level
    return tl.exp2(z * 1.4426950408889634), tl.maximum(z, _LOWEST)


@triton.jit
def _find(logits, low, value, other, count):
    """The first of four tokens from ``low`` on with that ``value``, if it is not the ``other``; else ``low``."""
    at = low + tl.arange(0, 4)
    there = (_load(logits, at, count) == value) & (at < count) & (at != other)
    token = tl.min(tl.where(there, at, low + 4), 0)
    return tl.where(token < low + 4, token, low)


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
