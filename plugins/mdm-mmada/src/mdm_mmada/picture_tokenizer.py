"""The picture tokenizer: uint8 pictures to the codes that MMaDA reads and writes, and back."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mdm.errors import MdmError
from mdm.models.checkpoints import locate, read_config
from mdm.models.placement import device_of, dtype_of
from torch import Tensor

from mdm_mmada.magvit import Magvit
from mdm_mmada.magvit_config import MagvitConfig, magvit_config
from mdm_mmada.magvit_weights import PICKLES, load_magvit


class PictureTokenizer:
    """MAGVIT-v2 on a device.

    Pictures pass the network one by one: one of 512 x 512 pixels fills a GPU, a batch takes no more memory, and
    a picture's codes and pixels are to the bit the same beside any others.
    """

    def __init__(self, network: Magvit, config: MagvitConfig) -> None:
        self.network = network
        self.config = config

    @property
    def codebook_size(self) -> int:
        """How many codes there are; they are counted from 0."""
        return int(2**self.config.bits)

    @property
    def down_factor(self) -> int:
        """Pixels of a picture's side for one code: 16 in the published network."""
        return self.config.down_factor

    @property
    def device(self) -> torch.device:
        return self.network.encoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.encoder.conv_in.weight.dtype

    @torch.no_grad()
    def encode(self, pictures: Any) -> Tensor:
        """The codes of pictures, int64 ``[B, n]``, row by row of a grid of (H / down_factor, W / down_factor).

        Args:
            pictures: uint8 ``[B, H, W, 3]``, a tensor or array, in RGB. The codes lie on the same device.

        Raises:
            MdmError: they have another type or shape, or sides that are no multiples of ``down_factor``.
        """
        pictures = _tensor(pictures, "pictures")
        rows, columns = self._grid_of(pictures)
        codes = torch.empty(len(pictures), rows * columns, dtype=torch.int64, device=pictures.device)
        with _exact_convolutions():
            for row, picture in enumerate(pictures):
                latent = self.network.encoder(to_pixel_values(picture[None].to(self.device)).to(self.dtype))
                codes[row] = self.network.quantize.codes(self._finite(latent, "encoded"))[0]
        return codes

    @torch.no_grad()
    def decode(self, codes: Any, grid: tuple[int, int] | None = None) -> Tensor:
        """The pictures of codes, uint8 ``[B, H, W, 3]`` in RGB.

        Args:
            codes: integers ``[B, n]`` below ``codebook_size``, a tensor, array or lists. The pictures lie on the
                same device.
            grid: how many rows and columns of codes a picture has; None: as many of both.

        Raises:
            MdmError: a code is none, or they do not fill the grid.
        """
        codes = _tensor(codes, "codes")
        grid = self._checked_grid(codes, grid)
        height, width = grid[0] * self.down_factor, grid[1] * self.down_factor
        pictures = torch.empty(len(codes), height, width, 3, dtype=torch.uint8, device=codes.device)
        with _exact_convolutions():
            for row, of_picture in enumerate(codes):
                decoded = self.network.decode(of_picture[None].to(self.device, torch.int64), grid)
                pictures[row] = to_uint8(self._finite(decoded, "decoded"))[0]
        return pictures

    def _grid_of(self, pictures: Tensor) -> tuple[int, int]:
        if pictures.dtype != torch.uint8 or pictures.dim() != 4 or pictures.shape[3] != 3:
            raise MdmError(
                f"pictures are uint8 of the shape [B, H, W, 3], and these are {_kind(pictures)} "
                f"of the shape {list(pictures.shape)}"
            )
        height, width = pictures.shape[1:3]
        if height % self.down_factor or width % self.down_factor or not height or not width:
            raise MdmError(
                f"a picture of {height} x {width} pixels (height x width) cannot be encoded: both are to be multiples "
                f"of {self.down_factor}; mdm_mmada.pictures.fit_picture resizes and crops it"
            )
        return height // self.down_factor, width // self.down_factor

    def _checked_grid(self, codes: Tensor, grid: tuple[int, int] | None) -> tuple[int, int]:
        whole = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
        if codes.dim() != 2 or not codes.shape[1] or not whole:
            raise MdmError(
                f"codes are integers of the shape [B, n], and these are {_kind(codes)} of the shape {list(codes.shape)}"
            )
        low, high = map(int, codes.to(torch.int64).aminmax()) if len(codes) else (0, 0)
        if low < 0 or high >= self.codebook_size:
            raise MdmError(
                f"{low if low < 0 else high} is no picture code: they go from 0 to {self.codebook_size - 1}; a code's "
                "token is the model's image_offset higher"
            )
        count = codes.shape[1]
        if grid is None:
            side = math.isqrt(count)
            if side * side != count:
                raise MdmError(f"{count} codes do not fill a square: give their grid, (rows, columns)")
            return side, side
        try:
            rows, columns = map(operator.index, grid)
        except (TypeError, ValueError):
            raise MdmError(f"grid={grid!r} is no pair of whole numbers, (rows, columns)") from None
        if rows < 1 or columns < 1 or rows * columns != count:
            raise MdmError(f"a grid of {rows} x {columns} does not hold the {count} codes of a picture")
        return rows, columns

    def _finite(self, values: Tensor, done: str) -> Tensor:
        if not bool(values.isfinite().all()):
            raise MdmError(
                f"a picture cannot be {done} in {_kind(values)}: numbers that are not finite came out"
                + ("" if self.dtype == torch.float32 else "; use dtype float32")
            )
        return values


def load_picture_tokenizer(
    path: str | Path, *, device: str = "auto", dtype: str = "auto", offline: bool = False, revision: str | None = None
) -> PictureTokenizer:
    """Load a MAGVIT-v2 checkpoint, such as ``showlab/magvitv2``, from its config.json and safetensors file.

    Args:
        path: a local folder or a hub id.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto (float32, as published: a code hangs on a sign), float32, bfloat16 or float16.
        offline: never ask the hub.
        revision: the commit of a hub model; None: its newest.

    Raises:
        MdmError: there is no such checkpoint, or it is not one of MAGVIT-v2 whose tensors are all there.
    """
    if Path(path).is_file():
        if Path(path).suffix in PICKLES:
            raise MdmError(f"{path} is a pickle: convert it to safetensors, and give the folder that it lies in")
        raise MdmError(f"{path} is a file: give the folder that it lies in, with its config.json")
    target = device_of(device)
    number = getattr(torch, "float32" if dtype == "auto" else dtype_of(dtype, target, {}))
    folder = locate(str(path), offline, revision=revision)
    config = magvit_config(read_config(folder), f"{folder / 'config.json'}")
    return PictureTokenizer(load_magvit(folder, config, device=target, dtype=number), config)


def to_pixel_values(pictures: Tensor) -> Tensor:
    """uint8 pictures ``[B, H, W, 3]`` as the network takes them: float32 ``[B, 3, H, W]`` in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(decoded: Tensor) -> Tensor:
    """What the network decoded, ``[B, 3, H, W]``, as uint8 pictures ``[B, H, W, 3]``: cut to [-1, 1], rounded down."""
    return (((decoded.float() + 1) / 2).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)


def _tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        return torch.tensor(np.ascontiguousarray(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise MdmError(f"{name} are no tensor or array of numbers: {error}") from None


def _kind(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """On a GPU: float32 convolutions in float32, where cuDNN would round to ten bits, and the same ones every time."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
