"""The Inception network of 2015-12-05, by whose features FID is defined; module names are those of its ports to torch.

It differs from torchvision's: pictures are resized as TensorFlow 1 did, average pools do not count padding, the last
block pools by the maximum, and there are 1008 classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 299
"""Height and width of what the network looks at."""
FEATURES = 2048
SPATIAL_CHANNELS = 7
SPATIAL = 17 * 17 * SPATIAL_CHANNELS
CLASSES = 1008


class Features(NamedTuple):
    """What the network says of a batch."""

    pooled: Tensor
    """``[N, 2048]``: FID, precision and recall."""
    spatial: Tensor
    """``[N, 2023]``, 17 x 17 places of 7 channels: sFID."""
    logits: Tensor
    """``[N, 1008]``, without the bias: the Inception Score."""


def resize(picture: Tensor) -> Tensor:
    """A picture ``[3, H, W]`` of 0 to 255 at 299 x 299: bilinear, and a pixel's place is its index times the scale."""
    for axis in (1, 2):
        length = picture.shape[axis]
        place = torch.arange(SIZE, dtype=torch.float32, device=picture.device) * (length / SIZE)
        below = place.long().clamp(max=length - 1)
        above = (below + 1).clamp(max=length - 1)
        weight = (place - below).view(-1, 1) if axis == 1 else place - below
        low, high = picture.index_select(axis, below), picture.index_select(axis, above)
        picture = low + (high - low) * weight
    return picture


class Unit(nn.Module):
    """Convolution, batch normalisation, ReLU. Padding keeps the size, unless there is none."""

    def __init__(self, channels: int, out: int, *kernel: int, stride: int = 1, pad: bool = True) -> None:
        super().__init__()
        height, width = kernel if len(kernel) == 2 else kernel * 2
        padding = (height // 2, width // 2) if pad else 0
        self.conv = nn.Conv2d(channels, out, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class BlockA(nn.Module):
    """35 x 35 places."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(channels, 64, 1)
        self.branch5x5_1 = Unit(channels, 48, 1)
        self.branch5x5_2 = Unit(48, 64, 5)
        self.branch3x3dbl_1 = Unit(channels, 64, 1)
        self.branch3x3dbl_2 = Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3)
        self.branch_pool = Unit(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_mean_pool(x))], 1)


class BlockB(nn.Module):
    """From 35 x 35 places to 17 x 17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(channels, 384, 3, stride=2, pad=False)
        self.branch3x3dbl_1 = Unit(channels, 64, 1)
        self.branch3x3dbl_2 = Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _halve(x)], 1)


class BlockC(nn.Module):
    """17 x 17 places."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(channels, 192, 1)
        self.branch7x7_1 = Unit(channels, inner, 1)
        self.branch7x7_2 = Unit(inner, inner, 1, 7)
        self.branch7x7_3 = Unit(inner, 192, 7, 1)
        self.branch7x7dbl_1 = Unit(channels, inner, 1)
        self.branch7x7dbl_2 = Unit(inner, inner, 7, 1)
        self.branch7x7dbl_3 = Unit(inner, inner, 1, 7)
        self.branch7x7dbl_4 = Unit(inner, inner, 7, 1)
        self.branch7x7dbl_5 = Unit(inner, 192, 1, 7)
        self.branch_pool = Unit(channels, 192, 1)

    def branches(self, x: Tensor) -> list[Tensor]:
        """The four outputs, the 1 x 1 convolution's first."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), seven, double, self.branch_pool(_mean_pool(x))]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.branches(x), 1)


class BlockD(nn.Module):
    """From 17 x 17 places to 8 x 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Unit(channels, 192, 1)
        self.branch3x3_2 = Unit(192, 320, 3, stride=2, pad=False)
        self.branch7x7x3_1 = Unit(channels, 192, 1)
        self.branch7x7x3_2 = Unit(192, 192, 1, 7)
        self.branch7x7x3_3 = Unit(192, 192, 7, 1)
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, _halve(x)], 1)


class BlockE(nn.Module):
    """8 x 8 places; the second of the two blocks pools by the maximum."""

    def __init__(self, channels: int, *, by_maximum: bool) -> None:
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = Unit(channels, 320, 1)
        self.branch3x3_1 = Unit(channels, 384, 1)
        self.branch3x3_2a = Unit(384, 384, 1, 3)
        self.branch3x3_2b = Unit(384, 384, 3, 1)
        self.branch3x3dbl_1 = Unit(channels, 448, 1)
        self.branch3x3dbl_2 = Unit(448, 384, 3)
        self.branch3x3dbl_3a = Unit(384, 384, 1, 3)
        self.branch3x3dbl_3b = Unit(384, 384, 3, 1)
        self.branch_pool = Unit(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.by_maximum else _mean_pool(x)
        threes = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        doubles = [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *threes, *doubles, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """The whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2, pad=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, by_maximum=False), BlockE(2048, by_maximum=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, pictures: Tensor) -> Features:
        """The features of pictures ``[N, 3, 299, 299]`` of 0 to 255, from ``resize``."""
        x = (pictures - 128) / 128
        x = _halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = _halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        branches = self.Mixed_6d.branches(self.Mixed_6c(self.Mixed_6b(x)))
        spatial = branches[0][:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7a(self.Mixed_6e(torch.cat(branches, 1)))
        pooled = self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))
        return Features(pooled, spatial, F.linear(pooled, self.fc.weight))
