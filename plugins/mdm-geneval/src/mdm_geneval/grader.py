"""Detector and CLIP together, on a thread of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mdm.errors import MdmError, first_line
from mdm.models.checkpoints import read_config
from mdm.models.placement import device_of
from mdm.models.weight_files import check_weights

from mdm_geneval.metadata import CLASSES, Metadata
from mdm_geneval.verdict import Detected, Rules, faults, objects_that_count

FILES = ("*.json", "*.txt", "model.safetensors", "model-*.safetensors")
"""What is downloaded of a checkpoint on the hub."""


class PictureGrader:
    """Grades pictures in the order in which they come, while the caller does something else.

    Both models are loaded at once, so that what is wrong with them is said before anything is decoded, and so that
    what they take of a GPU's memory is known when batches are planned.
    """

    def __init__(self, options: Any) -> None:
        """``options`` are those of the task.

        Raises:
            MdmError: a model cannot be had or used, or the device is not there.
        """
        from mdm_geneval.colors import ColorReader
        from mdm_geneval.detector import Detector

        self._rules: Rules = options
        try:
            device = device_of(options.device)
            folders = (
                _folder(options.detector, "detector", "mask2former"), _folder(options.clip, "clip", "clip")
            )  # fmt: skip
            self._detector, self._colors = Detector(folders[0], device), ColorReader(folders[1], device)
        except MdmError as error:
            raise MdmError(
                f"{error}; -o geneval.grading=later makes pictures without it, for `mdm grade` later or elsewhere"
            ) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mdm-geneval")

    def grade(self, metadata: Metadata, image: Path) -> Future[Mapping[str, float]]:
        """The grades of a picture, which are still to come."""
        return self._thread.submit(self._grade, metadata, image)

    def _grade(self, metadata: Metadata, image: Path) -> Mapping[str, float]:
        from mdm_geneval.pictures import read_picture

        picture = read_picture(image)
        found = self._detector(picture)
        names = [CLASSES[label] for label in found.labels.tolist()]
        places = {name: [place for place, other in enumerate(names) if other == name] for name in set(names)}

        def colors_of(name: str, objects: Sequence[Detected]) -> list[str]:
            cuts = [(thing.box[:4].tolist(), found.masks[places[name][thing.index]].numpy()) for thing in objects]
            return self._colors(picture, name, cuts)

        kept = objects_that_count(self._rules, metadata.tag, found.rows(names))
        return {"accuracy": float(not faults(self._rules, metadata, kept, colors_of))}

    def close(self) -> None:
        """End the thread, once the picture in hand is graded."""
        self._thread.shutdown(cancel_futures=True)


def _folder(name: str, option: str, kind: str) -> Path:
    """The folder of a checkpoint of this kind, downloaded where it has to be, with all of its weights.

    Raises:
        MdmError: there is none.
    """
    folder = Path(name)
    if not folder.is_dir():
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise MdmError(f"-o {option}={name}: there is no such folder")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
        except Exception as error:
            raise MdmError(
                f"-o {option}={name}: the hub did not give it ({first_line(error)}): download it once with a "
                "connection, or name a folder"
            ) from error
    config = read_config(folder)
    found = config.get("model_type")
    if found != kind:
        raise MdmError(f"-o {option}={name}: it is a {found!r} checkpoint, and a {kind!r} one is needed")
    check_weights(folder, config)
    return folder
