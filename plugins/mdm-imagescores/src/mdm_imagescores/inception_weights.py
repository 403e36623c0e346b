"""The Inception network's weights from a safetensors file: every tensor in its place and none beside."""

from __future__ import annotations

from pathlib import Path

import torch
from mdm.errors import MdmError, first_line
from safetensors import SafetensorError, safe_open

from mdm_imagescores.inception import Inception

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
GRAPH = ".pb"
FLOATS = ("F64", "F32", "F16", "BF16")
COUNTER = ".num_batches_tracked"
"""Of training; a file may leave it out."""
WAY_OUT = "README.md of mdm-imagescores has the five lines that make a safetensors file of the public weights, once"


def load_inception(path: Path, device: str) -> Inception:
    """The network with the weights in ``path``, in float32 on ``device``.

    Raises:
        MdmError: it is no safetensors file, or a tensor is missing, unexpected, or of another shape or type.
    """
    if path.suffix.lower() in (*PICKLES, GRAPH):
        kind = "a TensorFlow graph" if path.suffix.lower() == GRAPH else "a pickle, which may run anything"
        raise MdmError(f"{path} is {kind}, and is not read: {WAY_OUT}")
    if not path.is_file():
        raise MdmError(f"{path}: there is no such file; {WAY_OUT}")
    with torch.device("meta"):
        network = Inception()
    expected = network.state_dict()
    weights = {name: tuple(tensor.shape) for name, tensor in expected.items() if not name.endswith(COUNTER)}
    try:
        with safe_open(path, framework="pt", device=device) as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            found = {name: tuple(part.get_shape()) for name, part in slices.items()}
            _check_header(
                path, found, weights | {name: () for name in found if name in expected and name not in weights}
            )
            for name in weights:
                if (kind := slices[name].get_dtype()) not in FLOATS:
                    raise MdmError(f"{path}: tensor {name} is of type {kind}, which no weights are")
            tensors = {name: file.get_tensor(name).float() for name in weights}
    except (OSError, SafetensorError) as error:
        raise MdmError(f"{path} is no safetensors file, or a damaged one ({first_line(error)}); {WAY_OUT}") from None
    counters = {name: torch.zeros((), dtype=torch.int64, device=device) for name in expected if name.endswith(COUNTER)}
    network.load_state_dict(tensors | counters, assign=True)
    return network.requires_grad_(False).eval()


def _check_header(path: Path, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    for fault, names in (
        ("lacks", expected.keys() - found.keys()),
        ("holds a surplus", found.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise MdmError(f"{path} {fault} tensor {min(names)}{more}: it is not the Inception of 2015-12-05")
    for name, shape in expected.items():
        if found[name] != shape:
            raise MdmError(
                f"{path}: tensor {name} has the shape {list(found[name])} instead of {list(shape)}: "
                "it is not the Inception of 2015-12-05"
            )
