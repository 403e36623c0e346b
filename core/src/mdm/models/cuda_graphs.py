"""Forwards that come again, replayed: a CUDA graph launches at once what the host would launch piece by piece.

A replay reads the tensors that its capture read, at their addresses. So the tensors of a forward are copied into those
of its capture; kept keys and values stay where they are, and their addresses tell captures apart; what comes out is
copied before the next replay overwrites it. No GPU has run this yet; tests run all of it but the graph itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[], Tensor]
MAX_GRAPHS = 32
"""Graphs that are kept; the one unused for longest makes place."""


class CudaGraphCache:
    """``run`` (as ``mdm.models.model.run``), captured when the same shapes come a second time: the first time warms up.

    Forwards that write keys and values are run: they come once a block.

    Args:
        capture: runs a forward once more and gives what replays it into the same tensor; None after a failure.
    """

    def __init__(self, run: Callable[..., Tensor], capture: Callable[[Forward], Forward | None]) -> None:
        self.run, self.capture = run, capture
        self.seen: dict[Hashable, _Seen] = {}
        self.off = False

    def __call__(self, body: nn.Module, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        slots = None if cache is None else cache.slots
        if self.off or (slots is not None and slots.writes):
            return self.run(body, tokens, positions, mask, cache)
        given = {"tokens": tokens, "positions": positions, "mask": mask, **({} if slots is None else vars(slots))}
        key = (tuple((name, _shape(value)) for name, value in given.items()), _places(cache))
        seen = self.seen.pop(key, None)
        if seen is None:
            self._put(key, seen := _Seen(given))
            return seen.forward(self.run, body, cache)
        self._put(key, seen)
        seen.take(given)
        if seen.replay is None:
            seen.replay = self.capture(lambda: seen.forward(self.run, body, cache))
            if seen.replay is None:
                self.off = True
                self.seen.clear()
                return self.run(body, tokens, positions, mask, cache)
        return seen.replay().clone()

    def _put(self, key: Hashable, seen: _Seen) -> None:
        self.seen[key] = seen
        if len(self.seen) > MAX_GRAPHS:
            del self.seen[next(iter(self.seen))]


class _Seen:
    """Shapes that were seen: tensors of their own for a forward to read, and its replay."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in given.items()}
        self.replay: Forward | None = None

    def take(self, given: dict[str, Any]) -> None:
        for name, value in given.items():
            if isinstance(value, Tensor):
                self.own[name].copy_(value)

    def forward(self, run: Callable[..., Tensor], body: nn.Module, cache: Any) -> Tensor:
        own = dict(self.own)
        inputs = [own.pop(name) for name in ("tokens", "positions", "mask")]
        if cache is None:
            return run(body, *inputs, None)
        before, cache.slots = cache.slots, replace(cache.slots, **own)
        try:
            return run(body, *inputs, cache)
        finally:
            cache.slots = before


def _shape(value: Any) -> Hashable:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else repr(value)


def _places(cache: Any) -> Hashable:
    """Where what is kept lies, and how it lies there."""
    if cache is None:
        return None
    return tuple(
        (kept.data_ptr(), kept.shape)
        for layer in cache.layers
        for kept in (layer.keys, layer.values)
        if kept is not None
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
            said = str(error).strip().partition("\n")[0]
            warnings.warn(f"forwards are compiled, but not replayed as CUDA graphs: {said}", stacklevel=2)
            return None

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return capture
