"""The reference of a FID: an .npz of statistics, as OpenAI publishes them for ImageNet or as ``write`` makes them.

``mu`` and ``sigma`` are mean and covariance of the network's features, ``mu_s`` and ``sigma_s`` those of its spatial
ones (for sFID), and ``arr_0`` pictures, which precision and recall compare with. A file may hold gigabytes of pictures;
they are read one by one, and only when they are asked for.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from mdm.data.documents import open_regular
from mdm.errors import MdmError, first_line
from mdm.runs import files

from mdm_imagescores.features import Measured
from mdm_imagescores.inception import FEATURES, SPATIAL
from mdm_imagescores.pictures import MAX_PIXELS, Picture
from mdm_imagescores.statistics import Array, Gaussian

PICTURES = "arr_0"


class Header(NamedTuple):
    """What stands before an array's numbers."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[np.generic]


def read_statistics(path: Path) -> tuple[Gaussian, Gaussian | None]:
    """The statistics of features, and of spatial features where the file has them. Pictures in it are not read.

    Raises:
        MdmError: the file is none of this kind, damaged, or its arrays are of other shapes or types.
    """
    with _opened(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        gaussian = _gaussian(archive, path, names, "mu", "sigma", FEATURES)
        if not names & {"mu_s", "sigma_s"}:
            return gaussian, None
        return gaussian, _gaussian(archive, path, names, "mu_s", "sigma_s", SPATIAL)


def count_pictures(path: Path) -> int:
    """How many pictures a file holds; raises an MdmError where it holds none, or what is not uint8 ``[N, H, W, 3]``."""
    with _opened(path) as archive, _member(archive, path, PICTURES) as (_, header):
        return _picture_shape(path, header)[0]


def read_arr_0(path: Path) -> Iterator[Picture]:
    """The pictures of a file one by one; raises as ``count_pictures``."""
    with _opened(path) as archive, _member(archive, path, PICTURES) as (file, header):
        count, *shape = _picture_shape(path, header)
        for _ in range(count):
            data = file.read(math.prod(shape))
            if len(data) < math.prod(shape):
                raise MdmError(f"{path}: {PICTURES} is cut short")
            yield np.frombuffer(data, np.uint8).reshape(shape)


def write(path: Path, measured: Measured) -> None:
    """Write the statistics of a set of pictures, whole or not at all."""
    pooled, spatial = measured.pooled.gaussian(), measured.spatial.gaussian()
    with files.atomic_file(path) as part, part.open("wb") as out:
        np.savez(out, mu=pooled.mean, sigma=pooled.covariance, mu_s=spatial.mean, sigma_s=spatial.covariance)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such reference") from None
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise MdmError(f"{path} cannot be read as an .npz of statistics: {first_line(error)}") from None


@contextmanager
def _member(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[tuple[IO[bytes], Header]]:
    """One array of an archive, opened behind its header. Objects, which would be unpickled, are refused."""
    try:
        opened = archive.open(f"{name}.npy")
    except KeyError:
        there = ", ".join(sorted(found.removesuffix(".npy") for found in archive.namelist())[:10]) or "nothing"
        raise MdmError(f"{path} holds no {name}, but {there}: it is not such a reference") from None
    with opened as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise MdmError(f"{path}: {name} is in version {version[0]}.{version[1]} of the format, which is not read")
        header = Header(*readers[version](file))
        if header.dtype.hasobject:
            raise MdmError(f"{path}: {name} holds Python objects, which are not read")
        yield file, header


def _gaussian(
    archive: zipfile.ZipFile, path: Path, names: set[str], mean: str, covariance: str, dimensions: int
) -> Gaussian:
    if missing := [name for name in (mean, covariance) if name not in names]:
        raise MdmError(
            f"{path} holds no {missing[0]}: a reference has mu and sigma (mdm fid-reference makes one of a folder)"
        )
    gaussian = Gaussian(
        _floats(archive, path, mean, (dimensions,)), _floats(archive, path, covariance, (dimensions, dimensions))
    )
    variances = gaussian.covariance.diagonal()
    difference = np.abs(gaussian.covariance - gaussian.covariance.T).max()
    # No entry of a covariance is larger than the largest variance.
    if variances.min() < 0 or difference > 1e-6 * variances.max():
        raise MdmError(f"{path}: {covariance} is no covariance: it is not symmetric, or a variance is below zero")
    return gaussian


def _floats(archive: zipfile.ZipFile, path: Path, name: str, shape: tuple[int, ...]) -> Array:
    with _member(archive, path, name) as (file, header):
        if header.shape != shape or header.dtype.kind != "f":
            raise MdmError(
                f"{path}: {name} is {header.dtype} of the shape {list(header.shape)} instead of floats of "
                f"{list(shape)}: it is not of the Inception of 2015-12-05"
            )
        size = math.prod(shape) * header.dtype.itemsize
        data = file.read(size)
    if len(data) < size:
        raise MdmError(f"{path}: {name} is cut short")
    array: Array = np.frombuffer(data, header.dtype).reshape(shape).astype(np.float64)  # a covariance is symmetric
    if not np.isfinite(array).all():
        raise MdmError(f"{path}: {name} holds numbers that are not finite")
    return array


def _picture_shape(path: Path, header: Header) -> tuple[int, ...]:
    shape = header.shape
    good = len(shape) == 4 and shape[3] == 3 and min(shape) > 0 and header.dtype == np.uint8 and not header.by_columns
    if not good or shape[1] * shape[2] > MAX_PIXELS:
        raise MdmError(
            f"{path}: {PICTURES} is {header.dtype} of the shape {list(shape)}, and no pictures, which are uint8 of the "
            f"shape [N, H, W, 3] and at most {MAX_PIXELS:,} pixels each"
        )
    return shape
