"""Keyed random draws: a pure function of (seed, row, step, purpose, candidate, position[, token]).

No generator is kept and no global one is touched, so a row draws the same numbers in any batch, in any
order and on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import torch
from mdm.protocols.upload import upload
from torch import Tensor

# splitmix64 (Steele, Lea & Flood 2014), as signed 64-bit constants; products wrap.
GOLDEN = -7046029254386353131
MIX_1 = -4658895280553007687
MIX_2 = -7723592293110705685
ALL_BITS = (1 << 64) - 1

MAX_STEPS_CACHED = 32  # steps whose noise is made at once
MAX_NUMBERS_CACHED = 1 << 17  # numbers of noise that are made at once


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """In place: over a vocabulary it is memory that costs."""
    x.bitwise_xor_(_shift(x, 30)).mul_(MIX_1)
    x.bitwise_xor_(_shift(x, 27)).mul_(MIX_2)
    return x.bitwise_xor_(_shift(x, 31))


def _absorb(state: Tensor, key: Tensor | int) -> Tensor:
    return _mix((state ^ key).add_(GOLDEN))


def _host_absorb(state: int, key: int) -> int:
    """What ``_absorb`` does to one number, on the host."""
    x = ((state ^ key) + GOLDEN) & ALL_BITS
    x = ((x ^ (x >> 30)) * MIX_1) & ALL_BITS
    x = ((x ^ (x >> 27)) * MIX_2) & ALL_BITS
    return x ^ (x >> 31)


def host_keys(seed: Sequence[int], row_id: Sequence[int], step: Sequence[int]) -> tuple[int, ...]:
    """For each row what ``Draws`` makes of seed, row and step before it knows what the draws are for."""
    rows = zip(row_id, seed, step, strict=True)
    return tuple(
        _host_absorb(_host_absorb(_host_absorb(0, row & ALL_BITS), own & ALL_BITS), at) for row, own, at in rows
    )


def mixed(first: Tensor, second: Tensor | int) -> Tensor:
    """A hash of pairs, int64, shaped as the two broadcast."""
    return _absorb(_mix(first + GOLDEN), second)


def _unit(state: Tensor, sign: int = 1) -> Tensor:
    """float32 in (0, 1) from the top 32 bits; never 0, and 1 only by rounding. ``sign`` -1 gives its negative."""
    return _shift(state, 32).to(torch.float32).add_(0.5).mul_(sign * 2.0**-32)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step.

    ``row_id`` and ``step`` are int64 ``[B]``, and so is ``seed`` where rows have seeds of their own. ``host``, if
    given, is their ``host_keys``: only what positions enter is then hashed on the device. ``noise_cache`` may hold this
    step's noise, at index ``step_offset``.
    """

    seed: int | Tensor
    row_id: Tensor
    step: Tensor
    host: tuple[int, ...] | None = None
    noise_cache: NoiseCache | None = None
    step_offset: int = 0

    def later(self, steps: int = 1) -> Draws:
        """The draws of a later step of the same rows."""
        return Draws(self.seed, self.row_id, self.step + steps)

    def rows(self, index: Tensor) -> Draws:
        """The draws of rows ``index`` ``[R]``."""
        seed = self.seed[index] if isinstance(self.seed, Tensor) else self.seed
        return Draws(seed, self.row_id[index], self.step[index])

    def fork_ids(self, turn: Tensor) -> Tensor:
        """Row ids ``[B]`` of rows that fork at this step: the same for ``turn`` 0, fresh ones for the others."""
        fresh = self._keys("fork", turn[:, None], 0)[:, 0]
        return torch.where(turn == 0, self.row_id, fresh)

    def _keys(self, purpose: str, at: Tensor, candidate: Tensor | int | range) -> Tensor:
        name = crc32(purpose.encode())
        if self.host is not None and not isinstance(candidate, Tensor):
            numbers = candidate if isinstance(candidate, range) else (candidate,)
            purposes = [_host_absorb(key, name) for key in self.host]
            keys = [[_host_absorb(key, number) for number in numbers] for key in purposes]
            state = upload(torch.tensor(keys, dtype=torch.uint64).view(torch.int64), at.device)
            # [B, N]: one candidate for all broadcasts over the axes of ``at`` between row and position.
            shape = (-1, *[1] * (at.dim() - 3), len(numbers), 1) if at.dim() > 2 else (-1, *[1] * (at.dim() - 1))
            return _absorb(state.view(shape), at)
        if isinstance(candidate, range):
            candidate = torch.arange(candidate.start, candidate.stop, device=at.device)[:, None]
        state = _absorb(_absorb(mixed(self.row_id, self.seed), self.step), name)
        return _absorb(_absorb(state.view(-1, *[1] * (at.dim() - 1)), candidate), at)

    def uniform(self, purpose: str, at: Tensor, candidate: Tensor | int | range = 0) -> Tensor:
        """Uniforms in (0, 1), float32, one for each position ``at`` ``[B, ..., K]``.

        Numbers for different purposes are independent. ``candidate`` broadcasts with ``at``; a range of N stands for
        ``[N, 1]``, for ``at`` ``[B, ..., 1 or N, K]``.
        """
        return _unit(self._keys(purpose, at, candidate))

    def gumbel(self, purpose: str, at: Tensor, candidate: Tensor | int | range = 0) -> Tensor:
        """Standard Gumbel noise, one for each position; shapes as ``uniform``."""
        return _gumbel(self._keys(purpose, at, candidate))

    def block_gumbel(self, purpose: str, at: Tensor, candidates: range) -> Tensor:
        """``gumbel`` of positions ``at`` ``[B, K]`` of each row's block for N candidates, ``[B, N, K]``."""
        cached = None if self.noise_cache is None else self.noise_cache.gumbel(self, purpose, at, candidates)
        return self.gumbel(purpose, at[:, None], candidates) if cached is None else cached

    def token_keys(self, at: Tensor, candidate: Tensor | int | range = 0) -> Tensor:
        """int64, shaped as ``at``: what ``token_gumbel`` makes the noise of each position from."""
        return self._keys("token", at, candidate)


class NoiseCache:
    """Noise of coming steps, which takes as many small operations to make for many of them as for one.

    It depends on nothing that happens in a step, and serves as long as no row comes, goes or enters a block. The block
    of each row begins at ``start`` (int64 ``[B]``); none is longer than ``width``.
    """

    def __init__(self, start: Tensor, width: int) -> None:
        self.start, self.width = start, width
        self._noise: dict[tuple[str, range], tuple[int, Tensor]] = {}

    def gumbel(self, draws: Draws, purpose: str, positions: Tensor, candidates: range) -> Tensor | None:
        """``draws.block_gumbel``; None where noise of several steps would take too much memory."""
        first, noise = self._noise.get((purpose, candidates), (0, None))
        if noise is None or not first <= draws.step_offset < first + len(noise):
            rows = len(self.start)
            steps = min(MAX_STEPS_CACHED, MAX_NUMBERS_CACHED // (rows * len(candidates) * self.width))
            if steps < 2:
                return None
            block = (self.start[:, None] + torch.arange(self.width, device=positions.device)).repeat(steps, 1)
            step = torch.arange(steps, device=positions.device).repeat_interleave(rows)
            seed = draws.seed.repeat(steps) if isinstance(draws.seed, Tensor) else draws.seed
            coming = Draws(seed, draws.row_id.repeat(steps), draws.step.repeat(steps) + step)
            flat = coming.gumbel(purpose, block[:, None], candidates)
            first, noise = draws.step_offset, flat.view(steps, rows, *flat.shape[1:])
            self._noise[purpose, candidates] = first, noise
        # Positions that are not valid may lie anywhere.
        index = (positions - self.start[:, None]).clamp_(0, self.width - 1)
        return noise[draws.step_offset - first].gather(2, index[:, None].expand(-1, len(candidates), -1))


def token_gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise of ``tokens`` at the positions of ``keys``, shaped as the two broadcast."""
    return _gumbel(_absorb(keys, tokens))


def _gumbel(state: Tensor) -> Tensor:
    # -log of an exponential built from a small uniform keeps full resolution in the upper tail, which decides.
    return _unit(state, -1).log1p_().neg_().log_().neg_()
