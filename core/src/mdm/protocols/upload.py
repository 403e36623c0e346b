"""From the host to a device. A copy from ordinary memory would wait there until all that was asked before is done."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function


@wrap_torch_function(lambda tensor, device: (tensor,))  # so that a torch function mode sees the call as one
def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``, without waiting for it."""
    tensor = tensor.pin_memory() if device.type == "cuda" and tensor.is_cpu else tensor
    return tensor.to(device, non_blocking=True)


def to_device(values: Sequence[int], device: torch.device) -> Tensor:
    """int64 ``[n]`` of numbers that the host knows. Those that come again are not copied again: do not write there."""
    return _on_device(tuple(values), device)


@lru_cache(maxsize=4096)
def _on_device(values: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # later decodes use it too
        return upload(torch.tensor(values, dtype=torch.long), device)
