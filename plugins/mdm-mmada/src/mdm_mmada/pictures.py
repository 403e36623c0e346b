"""Pictures from files, as uint8 arrays ``[H, W, 3]`` in RGB, and fitted to the size that a model takes.

What a file may hold beside eight bits of red, green and blue is brought there as a viewer shows it:

- transparent pixels lie over white (the published code shows the colour that is hidden behind them);
- a picture lies as its EXIF orientation says (the published code ignores it);
- palettes, greyscale and CMYK are converted by Pillow; of sixteen bits the upper eight are taken;
- colour profiles are not applied, as in the published code.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from mdm.errors import MdmError, first_line
from numpy.typing import NDArray
from PIL import Image, ImageOps

Picture = NDArray[np.uint8]
"""uint8 ``[H, W, 3]``, in RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 2**26
"""Of a picture, 8192 x 8192: what says that it has more is rather made to fill the memory."""

SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_picture(path: str | Path) -> Picture:
    """The picture that a file holds.

    Raises:
        MdmError: there is none, it cannot be read, holds several (an animation) or is too large.
    """
    if not Path(path).is_file():
        raise MdmError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what can be read is read; bombs are refused below
            with Image.open(path, formats=FORMATS) as image:
                _check_size(image.size, str(path))
                # Phones put previews and depth maps behind a JPEG (MPO): these are no animation.
                if getattr(image, "is_animated", False) and image.format != "MPO":
                    raise MdmError(f"{path} holds several pictures: save the one that is meant")
                return np.array(_to_rgb(ImageOps.exif_transpose(image), str(path)))
    except Image.UnidentifiedImageError:
        raise MdmError(f"{path} is no picture that can be read; there are {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise MdmError(f"{path} has more than {MAX_PIXELS:,} pixels: make it smaller") from None
    except MdmError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise MdmError(f"{path} cannot be read as a picture: {first_line(error)}") from None


def fit_picture(picture: Picture, size: int, *, squash: bool = False) -> Picture:
    """A picture ``[H, W, 3]`` as ``[size, size, 3]``.

    Its shorter side is resized to ``size`` (bicubic, antialiased) and the middle cut out; with ``squash`` the whole of
    it is resized to the square, whatever its sides, which is how diagrams and documents are shown to MMaDA.

    Raises:
        MdmError: it is no picture, or so long and thin that it would be too large.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise MdmError(
            f"a picture is uint8 of the shape [H, W, 3], and this is {picture.dtype} of the shape {list(picture.shape)}"
        )
    image = Image.fromarray(picture)
    if squash:
        return np.array(image.resize((size, size), Image.Resampling.BICUBIC))
    shorter = min(image.size)
    width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
    _check_size(
        (width, height), f"a picture of {image.height} x {image.width} pixels whose shorter side is made {size}"
    )
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)))


def _check_size(size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise MdmError(f"{what} has more than {MAX_PIXELS:,} pixels: make it smaller")


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    if image.mode in SIXTEEN_BITS:
        image = _eight_bits(image, path)
    if image.mode == "F":
        raise MdmError(f"{path} has floating-point pixels, of which nothing says which is white: save it as PNG")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    """The upper eight of sixteen bits of grey, which is also what Pillow makes of sixteen bits of a colour."""
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() >= 2**16:
        raise MdmError(f"{path} has pixels of more than sixteen bits: save it with eight")
    clear = values == image.info.get("transparency")  # one grey may stand for nothing
    return Image.fromarray(np.where(clear, 255, values >> 8).astype(np.uint8))
