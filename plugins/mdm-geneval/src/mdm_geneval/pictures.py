"""Pictures from files and what networks are given of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mdm.data.documents import open_regular
from mdm.errors import MdmError
from PIL import Image

LARGEST = 2048
"""Pixels of the longer side of a picture that is read."""


def read_picture(path: Path) -> Image.Image:
    """A PNG file as an RGB picture; raises an MdmError where it is none, is damaged or is too large."""
    try:
        with open_regular(path) as file, Image.open(file, formats=["PNG"]) as picture:
            if max(picture.size) > LARGEST:
                raise MdmError(f"{path} has {picture.width} x {picture.height} pixels, more than {LARGEST} in a line")
            return picture.convert("RGB")
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise MdmError(f"{path} is no PNG picture that can be read: {error}") from None


def normalised(picture: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """A picture as a network takes it: float32 ``[1, 3, H, W]``; mean and std are of values from 0 to 255."""
    import torch

    pixels = (np.asarray(picture, np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
