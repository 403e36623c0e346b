"""From the host to a device. A copy from ordinary memory would wait there until all that was asked before is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

_kept: ContextVar[list[Tensor] | None] = ContextVar("mdm.protocols.upload", default=None)


@wrap_torch_function(lambda tensor, device: (tensor,))  # so that a torch function mode sees the call as one
def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``, without waiting for it."""
    tensor = tensor.pin_memory() if device.type == "cuda" and tensor.is_cpu else tensor
    return tensor.to(device, non_blocking=True)


def to_device(values: Sequence[int], device: torch.device) -> Tensor:
    """int64 ``[n]`` of numbers that the host knows. Those that come again are not copied again: do not write there."""
    tensor = _on_device(tuple(values), device)
    if tensor._version:  # somebody wrote there, and nobody else is to read it
        _on_device.cache_clear()
        tensor = _on_device(tuple(values), device)
    if (kept := _kept.get()) is not None:
        kept.append(tensor)
    return tensor


@contextmanager
def keeping() -> Iterator[list[Tensor]]:
    """The tensors that ``to_device`` gives in the block, for who reads them later: others may be forgotten."""
    kept: list[Tensor] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


@lru_cache(maxsize=4096)
def _on_device(values: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # later decodes use it too
        return upload(torch.tensor(values, dtype=torch.long), device)
