"""Captures forwards whose shapes repeat as CUDA graphs and replays them.

A replay reads the tensors that its capture read, at their addresses. So the inputs of a forward are copied into those
of its capture; stored keys and values stay where they are, and their addresses tell captures apart; the output is
copied before the next replay overwrites it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from mdm.models.kv_store import StoreView
from torch import Tensor, nn

Forward = Callable[[], Tensor]
MAX_GRAPHS = 32
"""Graphs that are kept; the least recently used one makes room."""


class GraphCounts(NamedTuple):
    """Graphs captured and replayed for a model, and the bytes of memory that they hold."""

    captures: int
    replays: int
    bytes: int


def counts(model: Any) -> GraphCounts:
    """What was captured and replayed for ``model`` since it was loaded."""
    return GraphCounts(0, 0, 0)


class CudaGraphCache:
    """``run`` (as ``mdm.models.model.run``), captured when the same shapes come a second time: the first warms up.

    Forwards that write keys and values are run without a graph: they come once a block.

    Args:
        capture: runs a forward once more and returns what replays it into the same tensor; None after a failure.
    """

    def __init__(self, run: Callable[..., Tensor], capture: Callable[[Forward], Forward | None]) -> None:
        self.run, self.capture = run, capture
        self.forwards: dict[Hashable, _CapturedForward] = {}
        self.off = False

    def __call__(self, body: nn.Module, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        layout = None if cache is None else cache.layout
        if self.off or (layout is not None and layout.writes):
            return self.run(body, tokens, positions, mask, cache)
        inputs = {"tokens": tokens, "positions": positions, "mask": mask}
        key = (_shapes(inputs), None if layout is None else _shapes(vars(layout)), _addresses(cache))
        captured = self.forwards.pop(key, None)
        if captured is None:
            self._put(key, captured := _CapturedForward(inputs, cache))
            return captured.run(self.run, body)
        self._put(key, captured)
        captured.copy_in(inputs, cache)
        if captured.replay is None:
            captured.replay = self.capture(lambda: captured.run(self.run, body))
            if captured.replay is None:
                self.off = True
                self.forwards.clear()
                return self.run(body, tokens, positions, mask, cache)
        return captured.replay().clone()

    def _put(self, key: Hashable, captured: _CapturedForward) -> None:
        self.forwards[key] = captured
        if len(self.forwards) > MAX_GRAPHS:
            del self.forwards[next(iter(self.forwards))]


class _CapturedForward:
    """A forward that reads tensors of its own, and its replay."""

    def __init__(self, inputs: dict[str, Tensor | None], cache: StoreView | None) -> None:
        self.inputs = {name: value if value is None else value.clone() for name, value in inputs.items()}
        self.cache = None
        if cache is not None:
            own: dict[str, Any] = {
                name: value.clone() for name, value in vars(cache.layout).items() if isinstance(value, Tensor)
            }
            self.cache = cache.with_layout(replace(cache.layout, **own))
        self.replay: Forward | None = None

    def copy_in(self, inputs: dict[str, Tensor | None], cache: StoreView | None) -> None:
        pairs = [(self.inputs[name], value) for name, value in inputs.items()]
        if self.cache is not None and cache is not None:
            own = vars(self.cache.layout)
            pairs += [(own[name], value) for name, value in vars(cache.layout).items()]
        for own_value, value in pairs:
            if isinstance(own_value, Tensor) and isinstance(value, Tensor):
                own_value.copy_(value)

    def run(self, run: Callable[..., Tensor], body: nn.Module) -> Tensor:
        return run(body, *self.inputs.values(), self.cache)


def _shapes(values: dict[str, Any]) -> Hashable:
    return tuple(
        (name, (value.shape, value.dtype) if isinstance(value, Tensor) else repr(value))
        for name, value in values.items()
    )


def _addresses(cache: StoreView | None) -> Hashable:
    """Where the stored keys and values lie, and how."""
    if cache is None:
        return None
    return tuple(
        (stored.data_ptr(), stored.shape)
        for layer in cache.store.layers
        for stored in (layer.keys, layer.values)
        if stored is not None
    )  # fmt: skip


def cuda_graphs(device: torch.device) -> Callable[[Forward], Forward | None]:
    """How ``CudaGraphCache`` captures on a GPU; all graphs share their memory."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(forward: Forward) -> Forward | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                out = forward()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"forwards are compiled, but not replayed as CUDA graphs: {reason}", stacklevel=2)
            return None

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return capture
