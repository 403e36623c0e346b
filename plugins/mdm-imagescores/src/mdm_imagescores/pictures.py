"""Pictures from files, and the sets of them that are scored: a run's, or those of any folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mdm.data.documents import open_regular
from mdm.errors import MdmError, MdmWarning, first_line
from mdm.runs import config
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult, ResultsFolder, is_finished
from mdm.runs.variants import variants
from numpy.typing import NDArray
from PIL import Image, ImageOps

Picture = NDArray[np.uint8]
"""uint8 ``[H, W, 3]``, in RGB."""

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
MAX_PIXELS = 2**26
"""Of a picture, 8192 x 8192."""
MAX_RATIO = 100
"""Of its sides: whoever resizes the shorter one may rely on it."""
AHEAD = 8
"""Pictures that are read at once."""


@dataclass(frozen=True)
class PictureSet:
    """The pictures that one line of a table is about."""

    label: str
    paths: Sequence[Path]
    results: Sequence[ExampleResult] | None = None
    """of a run: what each picture answers"""
    failed: int = 0
    """Examples of the run that have no picture."""


def picture_sets(folders: Sequence[Path]) -> list[PictureSet]:
    """What lies in the folders: of a run the pictures of each variant in the order of the row ids, of any other folder
    all that lie in it and below it in the order of their paths.

    Raises:
        MdmError: there are none, or a run's are not all there.
    """
    return [found for folder in folders for found in _sets(folder)]


def _sets(folder: Path) -> Iterator[PictureSet]:
    name = folder.resolve().name
    if (folder / "config.yaml").is_file():
        rows = variants(config.parse(RunConfig, folder / "config.yaml"), folder)
        if not is_finished(folder):
            warnings.warn(f"{folder} is not finished: what is scored is a part of it", MdmWarning, stacklevel=2)
        for row in rows:
            yield _of_results(name if len(rows) == 1 else f"{name}/{row.label}", row.results)
    elif (folder / "results.jsonl").is_file():
        yield _of_results(name, ResultsFolder(folder))
    else:
        files = (path for path in folder.rglob("[!.]*") if path.suffix.lower() in SUFFIXES)
        paths = sorted(path for path in files if path.is_file())
        if not paths:
            raise MdmError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}), and is not the folder of a run")
        yield PictureSet(name, paths)


def _of_results(label: str, results: ResultsFolder) -> PictureSet:
    answered = [result for _, result in sorted(results.by_row.items()) if result.image is not None]
    if not answered:
        why = f"its {len(results.by_row)} results are texts or failed" if results.by_row else "nothing is drawn yet"
        raise MdmError(f"{results.folder} holds no pictures: {why}")
    names = [Path(str(result.image)) for result in answered]
    for name in names:
        if name.is_absolute() or ".." in name.parts or not (results.folder / name).is_file():
            raise MdmError(f"{results.folder / 'results.jsonl'} names {name}, and there is no such picture beside it")
    paths = [results.folder / name for name in names]
    return PictureSet(label, paths, answered, len(results.by_row) - len(answered))


def read_pictures(paths: Sequence[Path], resize: int | None = None) -> Iterator[Picture]:
    """The pictures of some files, in order; with ``resize`` as squares of that side, by Lanczos.

    Raises:
        MdmError: as ``read_picture``.
    """
    with ThreadPoolExecutor(AHEAD) as pool:
        for start in range(0, len(paths), AHEAD):
            with warnings.catch_warnings():  # of the process, hence not in a thread
                warnings.simplefilter("ignore")  # what can be read is read; bombs are refused
                part = list(pool.map(lambda path: read_picture(path, resize), paths[start : start + AHEAD]))
            yield from part


def read_picture(path: Path, resize: int | None = None) -> Picture:
    """The picture in a file, upright.

    Raises:
        MdmError: it cannot be read, is too large or too thin, holds several, or has transparent parts or more than
            eight bits a channel.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MdmError(f"{path} has more than {MAX_PIXELS:,} pixels: make it smaller")
            if max(image.size) > MAX_RATIO * min(image.size):
                raise MdmError(f"{path} is {image.width} x {image.height} pixels, too long and thin: crop it")
            # Phones put previews and depth maps behind a JPEG (MPO): these are no animation.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise MdmError(f"{path} holds several pictures: save the one that is meant")
            return _array(ImageOps.exif_transpose(image), path, resize)
    except Image.DecompressionBombError:
        raise MdmError(f"{path} has more than {MAX_PIXELS:,} pixels: make it smaller") from None
    except MdmError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise MdmError(f"{path} cannot be read as a picture: {first_line(error)}") from None


def _array(image: Image.Image, path: Path, resize: int | None) -> Picture:
    if image.mode not in MODES:
        raise MdmError(f"{path} has pixels of the kind {image.mode}: save it as RGB of eight bits")
    if image.has_transparency_data:
        least, _ = image.convert("RGBA").getchannel("A").getextrema()
        if least != 255:
            raise MdmError(f"{path} has transparent parts, behind which anything may lie: save it without")
    image = image.convert("RGB")
    if resize is not None:
        image = image.resize((resize, resize), Image.Resampling.LANCZOS)
    return np.asarray(image)
