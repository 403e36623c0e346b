"""MAGVIT-v2 as Show-o and MMaDA publish it: a convolutional encoder and decoder around signs that are codes.

Attributes are called as in the published checkpoint, so that its tensor names are those of ``state_dict``.
Pictures are ``[B, 3, H, W]`` in [-1, 1]; latent pictures ``[B, bits, H / down_factor, W / down_factor]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdm_mmada.magvit_config import MagvitConfig, Sizes


class Magvit(nn.Module):
    """From pictures to codes and back."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder)
        self.quantize = Quantizer(config.bits)

    def encode(self, pictures: Tensor) -> Tensor:
        """The codes of pictures, int64 ``[B, n]``, row by row of the grid."""
        return self.quantize.codes(self.encoder(pictures))

    def decode(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pictures ``[B, 3, H, W]`` from codes ``[B, n]`` that lie on a grid of (rows, columns); not bounded."""
        return self.decoder(self.quantize.latent(codes, grid))


class Quantizer(nn.Module):
    """Lookup-free: a code's bits are the signs of the latent channels, the first of which is the highest bit."""

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.empty(2**bits, bits))
        self.register_buffer("power_vals", torch.empty(bits, dtype=torch.int64))

    def codes(self, latent: Tensor) -> Tensor:
        """Codes ``[B, n]`` of a latent picture ``[B, bits, h, w]``. Zero counts as negative."""
        return ((latent > 0).flatten(2) * self.power_vals[:, None]).sum(1)

    def latent(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """The latent picture ``[B, bits, h, w]`` of codes ``[B, n]``, of 1 and -1."""
        return self.embedding[codes].transpose(1, 2).unflatten(2, grid)

    def is_as_published(self) -> bool:
        """Whether the tables, which a checkpoint holds, are what ``codes`` and ``latent`` take them for."""
        bits = len(self.power_vals)
        powers = 2 ** torch.arange(bits - 1, -1, -1, device=self.power_vals.device)
        signs = (torch.arange(2**bits, device=powers.device)[:, None] & powers > 0) * 2 - 1
        return torch.equal(self.power_vals, powers) and torch.equal(self.embedding, signs.to(self.embedding.dtype))


class Encoder(nn.Module):
    """Pictures to latent pictures."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels = sizes.channels
        self.conv_in = _conv(sizes.in_ch, sizes.ch)
        self.down = nn.ModuleList()
        for level, blocks in enumerate(sizes.num_res_blocks):
            incoming = channels[level - 1] if level else sizes.ch
            last = level == len(channels) - 1
            self.down.append(Down(incoming, channels[level], blocks, resized=not last))
        self.mid = Middle(channels[-1])
        self.norm_out = _norm(channels[-1])
        self.conv_out = _conv(channels[-1], sizes.z_channels)
        self.quant_conv = _pointwise(sizes.z_channels, sizes.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return self.quant_conv(x)


class Decoder(nn.Module):
    """Latent pictures to pictures. Its levels are counted from the finest, and run from the coarsest."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels = sizes.channels
        self.post_quant_conv = _pointwise(sizes.z_channels, sizes.z_channels)
        self.conv_in = _conv(sizes.z_channels, channels[-1])
        self.mid = Middle(channels[-1])
        self.up = nn.ModuleList()
        coarser = [*channels[1:], channels[-1]]
        for level, blocks in enumerate(sizes.num_res_blocks):
            self.up.append(Up(coarser[level], channels[level], blocks, resized=level > 0))
        self.norm_out = _norm(channels[0])
        self.conv_out = _conv(channels[0], sizes.out_ch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(self.post_quant_conv(x)))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Down(nn.Module):
    """A level of the encoder: residual blocks, then half the size unless it is the last."""

    def __init__(self, incoming: int, channels: int, blocks: int, *, resized: bool) -> None:
        super().__init__()
        self.block = _blocks(incoming, channels, blocks)
        self.downsample = Downsample(channels) if resized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.block(x))


class Up(nn.Module):
    """A level of the decoder: residual blocks, then twice the size unless it is the finest."""

    def __init__(self, incoming: int, channels: int, blocks: int, *, resized: bool) -> None:
        super().__init__()
        self.block = _blocks(incoming, channels, blocks)
        self.upsample = Upsample(channels) if resized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(self.block(x))


class Middle(nn.Module):
    """The coarsest level's two residual blocks with attention between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    """Two convolutions beside the input, which a pointwise one fits where the number of channels changes."""

    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(incoming)
        self.conv1 = _conv(incoming, channels)
        self.norm2 = _norm(channels)
        self.conv2 = _conv(channels, channels)
        self.nin_shortcut = nn.Identity() if incoming == channels else _pointwise(incoming, channels)

    def forward(self, x: Tensor) -> Tensor:
        changed = self.conv1(F.silu(self.norm1(x)))
        changed = self.conv2(F.silu(self.norm2(changed)))
        return self.nin_shortcut(x) + changed


class Attention(nn.Module):
    """Every position of the grid attends to every other, with one head, beside the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = _pointwise(channels, channels)
        self.k = _pointwise(channels, channels)
        self.v = _pointwise(channels, channels)
        self.proj_out = _pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        # [B, heads = 1, n, channels]
        q, k, v = (part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(seen.unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """Half the size. Zeros are put to the right and below alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: every pixel four times, and a convolution over it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _blocks(incoming: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels if i else incoming, channels) for i in range(count)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def _conv(incoming: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(incoming, channels, 3, padding=1)


def _pointwise(incoming: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(incoming, channels, 1)
