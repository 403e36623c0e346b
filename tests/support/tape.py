"""What a CUDA graph does, on a CPU: a tape of a call's operations, which runs them again on the same tensors.

Whatever the call did in Python is not done again: a number that came from the host stays what it was. As on a GPU,
nothing may wait for a result or bring values to the device meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from mdm.models import cuda_graphs
from mdm.models.cuda_graphs import Captured
from mdm_testing.counters import _WAITS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = {torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.tolist, Tensor.numpy, Tensor.item}


class Tape(TorchDispatchMode):
    """The operations inside the block, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _WAITS and kwargs.get("output_size") is None:
            raise RuntimeError(f"{func} waits for its result")
        with self:  # composite operations come as what they are made of
            if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if not func.is_view:
            self.log.append((func, args, kwargs, [t for t in tree_leaves(out) if isinstance(t, Tensor)]))
        return out

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, outs in self.log:
                again = [t for t in tree_leaves(func(*args, **kwargs)) if isinstance(t, Tensor)]
                for own, new in zip(outs, again, strict=True):
                    if own.data_ptr() != new.data_ptr():
                        own.copy_(new)


class _Refuse(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FORBIDDEN:
            raise RuntimeError(f"{func.__name__} is not permitted when a stream is capturing")
        return func(*args, **kwargs or {})


def capture(call: Callable[[], Any]) -> Captured:
    tape = Tape()
    with _Refuse(), tape:
        result = call()
    return Captured(tape.replay, result, 0)


@contextmanager
def taped(monkeypatch: Any):
    """In the block every model's forwards are captured on tapes."""
    with monkeypatch.context() as patch:
        patch.setattr(cuda_graphs, "can_capture", cuda_graphs.is_plain)
        patch.setattr(cuda_graphs, "cuda_capture", lambda device: capture)
        yield
