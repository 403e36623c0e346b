"""A checkpoint's files, looked at before anything is built from them: what kind they are, and what headers say.

Imports no torch.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mdm.data import documents
from mdm.errors import MdmError
from pydantic import BaseModel, Field, ValidationError

Shapes = dict[str, tuple[int, ...]]
"""A weight's published name -> its shape."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXTS = (".json", ".jinja", ".txt", ".model")
"""Files beside the weights that transformers reads as a whole."""

_SHARD = re.compile(r"[\w.\-]{1,200}\.safetensors", re.ASCII)
_COUNT = re.compile(r"(n|num)_(\w+_)?(layers?|experts)")


class _Index(BaseModel):
    weight_map: dict[str, str] = Field(min_length=1, max_length=1_000_000)


def check_files(folder: Path) -> None:
    """Refuse a checkpoint in which a file is a pipe, a device or a folder, or too large to be what its name says.

    Raises:
        MdmError: it names the file.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix not in (*TEXTS, ".safetensors"):
            continue
        try:
            status = path.stat()
        except OSError as error:
            raise MdmError(f"{path} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise MdmError(f"{path} cannot be read: it is not a regular file")
        if path.suffix in TEXTS and status.st_size > documents.LARGEST_FILE:
            raise MdmError(f"{path} cannot be read: it has more than {documents.LARGEST_FILE:,} bytes")


def weight_shapes(folder: Path) -> Shapes:
    """The shapes of all weights, from the files' headers.

    Raises:
        MdmError: there are no weights or only pickled ones, a shard is missing, damaged or elsewhere, or the shards do
            not hold what the index says.
    """
    named, shapes = _named(folder), Shapes()
    for path in weight_paths(folder):
        for weight, shape in _header(path, folder):
            if weight in shapes:
                raise MdmError(f"{folder}: two shards hold the weight {weight}")
            shapes[weight] = shape
    if lacking := sorted(named.keys() - shapes.keys()):
        raise MdmError(f"{folder}: no shard holds the weight {lacking[0]}, which {INDEX} names")
    return shapes


def weight_paths(folder: Path) -> list[Path]:
    """The files of the weights: one, or the shards that an index names.

    Raises:
        MdmError: there are none, or the index cannot be read.
    """
    return [folder / name for name in sorted(set(_named(folder).values()))] or [folder / WEIGHTS]


def _named(folder: Path) -> dict[str, str]:
    """Weight -> its shard, as the index says; empty where all weights are in one file."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return {}
    if not index.exists():
        if pickled := [path for end in ("bin", "pt", "pth") for path in folder.glob(f"*.{end}")]:
            raise MdmError(f"{folder} has its weights in {pickled[0].name}, a pickle: convert them to safetensors")
        raise MdmError(f"{folder} holds neither {WEIGHTS} nor {INDEX}: these are the weights")
    try:
        named = _Index.model_validate(documents.read_json(index)).weight_map
    except ValidationError as error:
        raise MdmError(f"{index} cannot be read: it maps no weights to files ({error.errors()[0]['msg']})") from None
    if wrong := [name for name in named.values() if not _SHARD.fullmatch(name)]:
        raise MdmError(f"{index} names {min(wrong)[:100]!r}, which is no safetensors file of its own folder")
    return named


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose weights are not all there, or whose config.json asks for more layers or experts than
    there are weights for: building them would take the time and memory of as many as it says. Reads headers alone.

    Raises:
        MdmError: as ``weight_shapes``; or it names the key.
    """
    shapes = weight_shapes(folder)
    most = max([len(shapes), *(shape[0] for shape in shapes.values() if shape)])
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key, value in part.items():
            if _COUNT.fullmatch(key) and isinstance(value, int) and value > most:
                raise MdmError(
                    f"{folder}: config key {key!r} is {value}, and the checkpoint has {len(shapes)} weights: "
                    "it does not fit its config.json"
                )


def whole_numbers(folder: Path) -> set[str]:
    """The weights that are stored as integers."""
    from safetensors import safe_open

    found = set()
    for path in weight_paths(folder):
        with safe_open(path, framework="pt") as file:
            found |= {name for name in file.keys() if file.get_slice(name).get_dtype()[0] in "IU"}  # noqa: SIM118
    return found


def check_counts(folder: Path, config: Mapping[str, Any], counted: Mapping[str, str]) -> None:
    """Refuse a config.json that asks for other layers or experts than the checkpoint holds weights of.

    ``counted``: config key -> what stands before the number in the names of weights, such as ``layers`` or ``experts``;
    of stacked weights, whose names have none, the first axis is counted.

    Raises:
        MdmError: it names the key.
    """
    shapes = weight_shapes(folder)
    for key, part in counted.items():
        numbers = {int(found[1]) for name in shapes if (found := re.search(rf"\b{part}\.(\d{{1,9}})\.", name))}
        stacked = {shape[0] for name, shape in shapes.items() if re.search(rf"\b{part}\.\D*$", name) and shape}
        held = max(stacked, default=0) if not numbers else 1 + max(numbers)
        if config[key] != held:
            raise MdmError(f"{folder}: config key {key!r} is {config[key]}, and the weights are of {held} {part}")


def renamed(name: str, key_mapping: Mapping[str, str]) -> str:
    """The network's name of a published weight; the first pattern that matches decides, as transformers has it."""
    for pattern, replacement in key_mapping.items():
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return name


def _header(path: Path, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    try:
        documents.open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                yield name, tuple(file.get_slice(name).get_shape())
    except FileNotFoundError:
        raise MdmError(f"{folder}: {path.name} is missing, a shard that {INDEX} names") from None
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise MdmError(f"{folder}: {path.name} is damaged or incomplete: {why}") from None
