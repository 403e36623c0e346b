"""MAGVIT-v2's weights from a safetensors file: every tensor in its place and none beside, read once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mdm.errors import MdmError, first_line
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mdm_mmada.magvit import Magvit
from mdm_mmada.magvit_config import MagvitConfig

FILES = ("model.safetensors", "pytorch_model.safetensors")
"""Where weights lie, the first that is there; ``showlab/magvitv2`` has the second."""
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = ("I64", "I32")


def load_magvit(folder: Path, config: MagvitConfig, *, device: str, dtype: torch.dtype) -> Magvit:
    """The network of ``config`` with the weights that lie in ``folder``, which are its only copy.

    Raises:
        MdmError: there are no weights or only pickled ones, the file is damaged, or a tensor is missing, surplus,
            of another shape or type; or its codebook is not lookup-free.
    """
    path = _weights_file(folder)
    with torch.device("meta"):
        network = Magvit(config)
    expected = network.state_dict()
    try:
        with safe_open(path, framework="pt", device=device) as file:
            check_header(_header(file), expected, path)
            tensors = {
                name: file.get_tensor(name).to(dtype if wanted.is_floating_point() else wanted.dtype)
                for name, wanted in expected.items()
            }
    except (OSError, SafetensorError) as error:
        raise MdmError(f"{path} is damaged or incomplete: {first_line(error)}") from None
    network.load_state_dict(tensors, assign=True)
    if not network.quantize.is_as_published():
        raise MdmError(
            f"{path}: the codebook (quantize.embedding, quantize.power_vals) does not hold the signs of "
            f"{config.bits} bits, highest first: its codes would mean other pictures"
        )
    return network.requires_grad_(False).eval()


def _weights_file(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    if pickled := sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES):
        raise MdmError(f"{folder} has its weights in {pickled[0]}, a pickle: convert them to safetensors")
    raise MdmError(f"{folder} holds neither {' nor '.join(FILES)}: these are the weights")


def check_header(found: Mapping[str, tuple[tuple[int, ...], str]], expected: Mapping[str, Tensor], path: Path) -> None:
    """Compare the shapes and types that a file's header gives its tensors with the ones that the network needs.

    Raises:
        MdmError: it names a tensor that is missing, surplus, or of another shape or type.
    """
    faults = {"lacks": expected.keys() - found.keys(), "holds a surplus": found.keys() - expected.keys()}
    for fault, names in faults.items():
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise MdmError(f"{path} {fault} tensor {min(names)}{more}: it does not fit its config.json")
    for name, wanted in expected.items():
        shape, kind = found[name]
        if shape != tuple(wanted.shape):
            raise MdmError(
                f"{path}: tensor {name} has the shape {_shape(shape)} instead of {_shape(wanted.shape)}: "
                "it does not fit its config.json"
            )
        if kind not in (FLOATS if wanted.is_floating_point() else INTEGERS):
            raise MdmError(f"{path}: tensor {name} is of type {kind}, which these weights are not in")


def _header(file: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and type of every tensor of an open file."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
