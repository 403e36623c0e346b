"""Between host and device. To the host, where a transfer waits, everything goes in one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from mdm.protocols.upload import to_device as to_device
from torch import Tensor
from torch.overrides import wrap_torch_function

Array = Any
"""A numpy array, indexed and shaped as its tensor was."""


def to_host(tensors: Sequence[Tensor]) -> list[Array]:
    """``tensors`` of any shapes and dtypes that numpy has, bit by bit as they are, in one transfer."""
    flat = [_bytes(t) for t in tensors]
    whole = torch.cat(flat) if len(flat) > 1 else flat[0]
    data: Array = whole.numpy(force=whole.device.type != "cpu")
    arrays, begin = [], 0
    for tensor, part in zip(tensors, flat, strict=True):
        end = begin + part.numel()
        arrays.append(data[begin:end].view(_name(tensor.dtype)).reshape(tensor.shape))
        begin = end
    return arrays


@cache
def _name(dtype: torch.dtype) -> str:
    """What numpy calls it."""
    return str(dtype).removeprefix("torch.")


def _bytes(tensor: Tensor) -> Tensor:
    flat = tensor if tensor.dim() == 1 else tensor.reshape(-1)
    if flat.stride(0) != 1:  # a column of another tensor; a single number of one passes for contiguous
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


@wrap_torch_function(lambda tensor: (tensor,))  # so that a torch function mode sees the call, and not what is inside
def on_host(tensor: Tensor) -> Array:
    """The numbers of a tensor that was made on the host: nothing waits.

    Raises:
        TypeError: it lies on another device.
    """
    return tensor.numpy()
