"""Sets of pictures against a reference: what ``mdm fid`` computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.errors import MdmError, MdmWarning
from mdm.runs.watch import RunObserver

from mdm_imagescores import reference_file, statistics
from mdm_imagescores.features import Measured, measure
from mdm_imagescores.inception import FEATURES, Inception
from mdm_imagescores.pictures import Picture, PictureSet, picture_sets, read_pictures
from mdm_imagescores.statistics import Array, Gaussian


@dataclass(frozen=True)
class Meter:
    """The network, how many pictures it sees at once, and who watches."""

    network: Inception
    batch_size: int
    observer: RunObserver

    def measure(self, label: str, pictures: Iterable[Picture], count: int, keep: bool = False) -> Measured:
        """Measure ``count`` pictures; ``keep`` their features for precision and recall."""
        return measure(
            self.network, pictures, batch_size=self.batch_size, keep=keep,
            on_progress=lambda done: self.observer.on_progress(label, done, count, None),
        )  # fmt: skip

    def measure_set(self, found: PictureSet, resize: int | None = None, keep: bool = False) -> Measured:
        """Measure the pictures of a set, made squares of side ``resize`` before."""
        return self.measure(found.label, read_pictures(found.paths, resize), len(found.paths), keep)


@dataclass(frozen=True)
class Reference:
    """What sets of pictures are scored against."""

    pooled: Gaussian
    spatial: Gaussian | None
    """for sFID, where it is known"""
    features: Array | None
    """``[N, 2048]`` of its pictures, for precision and recall"""


def open_reference(path: Path, keep: bool) -> Callable[[Meter], Reference]:
    """A file of statistics or a folder of pictures; ``keep``: its pictures' features are wanted.

    What is wrong with it shows here, before anything is measured.

    Raises:
        MdmError: it is neither, or has no pictures and these are wanted.
    """
    if path.is_dir():
        found = single_set(path)
        return lambda meter: _of(meter.measure_set(found, keep=keep))
    pooled, spatial = reference_file.read_statistics(path)
    if not keep:
        return lambda meter: Reference(pooled, spatial, None)
    count = reference_file.count_pictures(path)

    def measured(meter: Meter) -> Reference:
        pictures = reference_file.read_arr_0(path)
        return Reference(pooled, spatial, meter.measure(path.name, pictures, count, keep=True).features)

    return measured


def _of(measured: Measured) -> Reference:
    return Reference(measured.pooled.gaussian(), measured.spatial.gaussian(), measured.features)


def single_set(folder: Path) -> PictureSet:
    """The pictures of a folder; raises an MdmError where it is a run of several variants, or as ``check_set``."""
    found, *more = picture_sets([folder])
    if more:
        raise MdmError(f"{folder} is a run of {len(more) + 1} variants: name the folder of one of them")
    check_set(found)
    return found


def check_set(found: PictureSet) -> None:
    """Warn of what makes the figures of a set doubtful; raises an MdmError where it is too small for a covariance."""
    count = len(found.paths)
    if count < 2:
        raise MdmError(f"{found.label} holds {count} picture: a FID needs 2 at least, and says little below 10,000")
    if count <= FEATURES:
        warnings.warn(
            f"{found.label} holds {count} pictures, no more than a feature has dimensions ({FEATURES:,}): its FID is "
            "far too high, and comparable only with that of as many pictures",
            MdmWarning, stacklevel=2,
        )  # fmt: skip
    if found.failed:
        warnings.warn(f"{found.label}: {found.failed} examples have no picture", MdmWarning, stacklevel=2)


def score(found: PictureSet, reference: Reference, meter: Meter, resize: int | None = None) -> dict[str, Any]:
    """The scores of a set: FID and Inception Score always, sFID, precision and recall where the reference has them."""
    measured = meter.measure_set(found, resize, keep=reference.features is not None)
    meter.observer.on_note(f"{found.label}: distance to the reference")
    scores = {"fid": statistics.frechet_distance(reference.pooled, measured.pooled.gaussian())}
    if reference.spatial is not None:
        scores["sfid"] = statistics.frechet_distance(reference.spatial, measured.spatial.gaussian())
    scores["inception_score"] = statistics.inception_score(measured.logits)
    if reference.features is not None and measured.features is not None:
        scores["precision"], scores["recall"] = statistics.precision_recall(
            reference.features, measured.features,
            lambda done, total: meter.observer.on_progress(f"{found.label}: neighbours", done, total, None),
        )  # fmt: skip
    return {"label": found.label, "pictures": len(found.paths), "failed": found.failed, **scores}
