"""A vocabulary taken tile by tile: what a tile leaves of rows of logits, and how tiles add up.

Functions of this file, or their twin for a GPU (``tiles_triton``), are all that ever goes over a vocabulary. A tile is
a fixed run of tokens, so that a row's numbers do not depend on what was computed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 2048
"""Tokens of a tile."""

LANE = 64
"""Logits of which the largest is kept on the way to the two largest of a tile."""

CHUNK = 1 << 17
"""Logits worked on at a time on a CPU: what a pass over them makes stays in its cache."""

LOWEST = -1e30
"""In place of -inf in a difference: a token at -inf weighs nothing, and 0 * -inf would be nan."""


class Tiles(NamedTuple):
    """What S tiles leave of T rows of logits.

    ``top_logits`` and ``top_tokens`` ``[T, S, 2]`` are the two largest logits and their tokens, ties to the lower
    token; the second token means nothing where it was not wanted. With z = logits - the largest and e = exp(z),
    ``tail_sum`` ``[T, S]`` is the sum of e and ``tail_energy`` ``[T, S]`` that of e z (nats), both without the
    largest's own term: near certainty they keep the resolution that a sum of almost 1 has lost. ``draw_value``,
    ``draw_token`` and ``draw_logit`` ``[T, S, N]`` are the largest of logits / temperature + Gumbel noise of N draws,
    its token and that token's logit; None without a temperature.
    """

    top_logits: Tensor
    top_tokens: Tensor
    tail_sum: Tensor
    tail_energy: Tensor
    draw_value: Tensor | None = None
    draw_token: Tensor | None = None
    draw_logit: Tensor | None = None


class TokenDraw(NamedTuple):
    """How tokens are drawn from rows of logits.

    ``keys`` int64 ``[T, N]``: ``Draws.token_keys`` of N draws; the token ``never`` is not drawn.
    """

    keys: Tensor
    temperature: float
    never: int | None


class Scratch:
    """Memory that a pass on a CPU writes over and over: memory that is new costs it more than the work in it."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self._views: dict[tuple[str, int, int], Tensor] = {}

    def buffer(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor:
        """The ``[rows, columns]`` of that name, of the dtype and on the device of ``like``, with anything in them."""
        if like.device.type != "cpu":  # new memory is cheap there, and a CUDA graph needs its own
            return like.new_empty(rows, columns)
        view = self._views.get((name, rows, columns))
        if view is None:
            memory = self._memory.get(name)
            if memory is None or memory.numel() < rows * columns:
                memory = self._memory[name] = like.new_empty(rows * columns)
                self._views = {key: view for key, view in self._views.items() if key[0] != name}
            view = self._views[name, rows, columns] = memory[: rows * columns].view(rows, columns)
        return view


def merge_tiles(parts: Sequence[Tiles]) -> Tiles:
    """All tiles of a row, in the order of their tokens, as one: S becomes 1."""
    tiles = parts[0]
    if len(parts) > 1:
        tiles = Tiles(*(torch.cat(column, 1) for column in zip(*parts, strict=True) if column[0] is not None))
    if tiles.tail_sum.shape[1] == 1:
        return tiles
    largest, at = tiles.top_logits[..., 0].max(1, keepdim=True)
    drop = (tiles.top_logits[..., 0] - largest.clamp(min=LOWEST)).clamp_(min=LOWEST)
    weight = drop.exp()
    # The largest of every other tile is one more term of the rest.
    terms = tiles.tail_sum + torch.ones_like(weight).scatter_(1, at, 0.0)
    # The second largest is the second of the tile that holds the largest, or the largest of another.
    others = tiles.top_logits[..., 0].scatter(1, at, tiles.top_logits[..., 1].gather(1, at))
    tokens = tiles.top_tokens[..., 0].scatter(1, at, tiles.top_tokens[..., 1].gather(1, at))
    second, where = others.max(1, keepdim=True)
    merged = Tiles(
        top_logits=torch.stack([largest, second], -1),
        top_tokens=torch.stack([tiles.top_tokens[..., 0].gather(1, at), tokens.gather(1, where)], -1),
        tail_sum=(weight * terms).sum(1, keepdim=True),
        tail_energy=(weight * (tiles.tail_energy + drop * terms)).sum(1, keepdim=True),
    )
    if tiles.draw_value is None or tiles.draw_token is None or tiles.draw_logit is None:
        return merged
    value, winner = tiles.draw_value.max(1, keepdim=True)
    return merged._replace(
        draw_value=value, draw_token=tiles.draw_token.gather(1, winner), draw_logit=tiles.draw_logit.gather(1, winner)
    )


def tile_sums(x: Tensor, need_second_token: bool, scratch: Scratch) -> tuple[Tensor, ...]:
    """The first four of ``Tiles`` for tiles ``[M, C]``, tokens counted within their tile.

    Few operations over what lies in the cache: torch.compile makes little faster of them on a CPU.
    """
    top, best = top_two(x, need_second_token)
    largest, at = top[:, :1].clamp(min=LOWEST), best[:, :1]
    tail_sum, tail_energy = x.new_empty(len(x)), x.new_empty(len(x))
    size = max(1, CHUNK // x.shape[1])
    if x.device.type != "cpu" or len(x) <= size:
        _tail(x, largest, at, tail_sum, tail_energy, scratch)
        return top, best, tail_sum, tail_energy
    chunks = (torch.split(v, size) for v in (x, largest, at, tail_sum, tail_energy))
    for logits, tops, tokens, sums, energies in zip(*chunks, strict=True):
        _tail(logits, tops, tokens, sums, energies, scratch)
    return top, best, tail_sum, tail_energy


def _tail(x: Tensor, largest: Tensor, at: Tensor, tail_sum: Tensor, tail_energy: Tensor, scratch: Scratch) -> None:
    """Write ``tail_sum`` and ``tail_energy`` ``[M]`` of ``Tiles`` for tiles ``[M, C]`` with ``largest`` ``[M, 1]``."""
    count, width = x.shape
    z = torch.sub(x, largest, out=scratch.buffer("z", count, width, x))
    e = torch.exp(z, out=scratch.buffer("e", count, width, x)).scatter_(1, at, 0.0)
    torch.sum(e, 1, out=tail_sum)
    # 0 * -inf: a token at -inf weighs nothing. A nan among the logits is still one in the first sum.
    torch.nansum(z.mul_(e), 1, out=tail_energy)


def top_two(x: Tensor, need_second_token: bool = True) -> tuple[Tensor, Tensor]:
    """The two largest of ``x`` ``[M, C]`` and where they are, ``[M, 2]`` each; ties to the lower index.

    Where the second largest is, is found only if the ``need_second_token`` is wanted.

    The largest of a lane is a vectorised reduction, which finding where it lies over a whole row is not (several times
    slower on a CPU): only lanes that win are searched.
    """
    count, width = x.shape
    if width % LANE or width < 4 * LANE:
        largest, at = x.max(-1, keepdim=True)
        second, its = x.scatter(-1, at, -torch.inf).max(-1, keepdim=True)
        return torch.cat([largest, second], 1), torch.cat([at, its], 1)
    lanes = x.reshape(-1, LANE)
    maxima = lanes.view(count, width // LANE, LANE).amax(-1)
    row = _every(len(lanes), width // LANE) if x.is_cpu else torch.arange(0, len(lanes), width // LANE, device=x.device)
    lane = maxima.max(-1).indices
    near = lanes.index_select(0, row + lane)
    largest, at = near.max(-1, keepdim=True)
    # What is left without it has its own largest, in the same lane or in another.
    beside = near.scatter_(-1, at, -torch.inf).amax(-1, keepdim=True)
    maxima.scatter_(-1, lane[:, None], beside)
    if not need_second_token:
        return torch.cat([largest, maxima.amax(-1, keepdim=True)], 1), at.add_(lane[:, None], alpha=LANE).expand(-1, 2)
    second, other = maxima.max(-1, keepdim=True)
    there = lanes.index_select(0, row + other[:, 0])
    gone = torch.where(other == lane[:, None], -torch.inf, there.gather(-1, at))
    its = there.scatter_(-1, at, gone).max(-1, keepdim=True).indices
    starts = torch.stack([lane, other[:, 0]], 1) * LANE
    return torch.cat([largest, second], 1), torch.cat([at, its], 1).add_(starts)


@lru_cache(maxsize=64)
def _every(stop: int, step: int) -> Tensor:
    """int64 on the CPU: 0, ``step``, 2 ``step`` and so on, below ``stop``."""
    with torch.inference_mode(False):  # anybody may use it later
        return torch.arange(0, stop, step)
