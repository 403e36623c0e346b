"""Captures calls whose shapes repeat as CUDA graphs, and replays them: one launch in place of a thousand.

A replay reads the tensors that its capture read, at their addresses. So what a call is given is copied into tensors of
its own, and what it gives is copied before the next replay overwrites it. Whatever else it reads has to stay where it
is: weights do; a K/V store has a ``generation`` for as long as it does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from mdm.models.kv_store import KVStore
from mdm.models.model import Model
from mdm.models.placement import is_hooked
from mdm.protocols.rowwise import fast_replace
from mdm.protocols.upload import keeping
from torch import Tensor
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode

MAX_GRAPHS = 64
"""Graphs that are kept; the least recently used one makes room."""
MAX_ROW_TOKENS = 2048
"""Row-tokens of a forward up to which it is captured: with more, an 8B model computes for longer than it launches."""
PADDED_ROW_TOKENS = 512
"""Row-tokens up to which reading the weights decides how long a forward takes, so that a few rows more are free."""

LENGTH_MULTIPLE = 128
"""Canvases are padded to a multiple of so many positions, which takes little and lets prompts share captures."""


@dataclass
class GraphCounts:
    """What has been captured of a model's forwards since it was loaded."""

    captures: int = 0
    replays: int = 0
    bytes: int = 0
    """memory reserved for captures; all graphs of a model share it"""


class Captured(NamedTuple):
    """A captured call."""

    replay: Callable[[], None]
    """repeats it, into the tensors of ``result``"""
    result: Any
    bytes: int
    """memory reserved for it"""


Capture = Callable[[Callable[[], Any]], Captured | None]
"""Captures a call; None where that cannot be done."""


class GraphCache:
    """Calls of one decode at a time, captured when they come a second time with the same shapes and facts."""

    def __init__(self, capture: Capture, counts: GraphCounts) -> None:
        self.capture, self.counts = capture, counts
        self.store: KVStore | None = None
        """the last decode's, whose memory the next one takes over: graphs have its addresses"""
        self._calls: dict[Hashable, _Replay | None] = {}
        self.off = False
        """whether the decode goes on without"""

    def open(self, store: KVStore) -> None:
        """Graphs read this store from now on; those that read another are of no more use."""
        self.store = store
        self._calls = {key: call for key, call in self._calls.items() if key[0] in (None, store.generation)}  # type: ignore[index]

    def __call__(self, function: Callable[..., Any], *given: Any, store: KVStore | None, keep: Any, facts: Any) -> Any:
        """``function(*given)``, which depends on nothing but these, ``facts`` and what stays where it is.

        Args:
            given: dataclasses, tuples and lists that hold tensors, and what can be hashed.
            store: the K/V store that it reads.
            keep: what else it reads, kept alive as long as the graph.
        """
        # Under a dispatch mode, which counts operations, the call is made so that they can be seen.
        if self.off or _get_current_dispatch_mode() is not None:
            return function(*given)
        tensors: list[Tensor] = []
        key = (None if store is None else store.generation, facts, _take_apart(given, tensors))
        seen, replay = key in self._calls, self._calls.pop(key, None)
        self._calls[key] = replay
        if replay is not None:
            self.counts.replays += 1
            return replay(tensors)
        result = function(*given)  # the first time warms up; the second time it makes sure of all that is made once
        if seen:
            self._capture(key, function, given, tensors, keep)
        elif len(self._calls) > MAX_GRAPHS:
            del self._calls[next(iter(self._calls))]
        return result

    def _capture(
        self, key: Hashable, function: Callable[..., Any], given: Any, tensors: list[Tensor], keep: Any
    ) -> None:
        inputs = [tensor.clone() for tensor in tensors]
        own = _put_together(given, iter(inputs))
        with keeping() as constants:
            captured = self.capture(lambda: function(*own))
        if captured is None:
            self.off = True
            self._calls.clear()
            return
        self.counts.captures += 1
        self.counts.bytes += captured.bytes
        outputs: list[Tensor] = []
        _take_apart(captured.result, outputs)
        self._calls[key] = _Replay(captured, inputs, outputs, (keep, constants))


class _Replay(NamedTuple):
    captured: Captured
    inputs: list[Tensor]
    outputs: list[Tensor]
    keep: Any

    def __call__(self, tensors: list[Tensor]) -> Any:
        for own, value in zip(self.inputs, tensors, strict=True):
            own.copy_(value)
        self.captured.replay()
        return _put_together(self.captured.result, iter([tensor.clone() for tensor in self.outputs]))


def _take_apart(value: Any, tensors: list[Tensor]) -> Hashable:
    """The facts of a value, shapes of its tensors among them; the tensors are appended."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.dtype
    if is_dataclass(value):
        return type(value), *(_take_apart(getattr(value, f.name), tensors) for f in fields(value))
    if isinstance(value, (list, tuple)):
        return tuple(_take_apart(item, tensors) for item in value)
    hash(value)
    return value  # type: ignore[no-any-return]


def _put_together(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The value with other tensors, which come in the same order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value):
        return fast_replace(value, **{f.name: _put_together(getattr(value, f.name), tensors) for f in fields(value)})
    if isinstance(value, (list, tuple)):
        return tuple(_put_together(item, tensors) for item in value)
    return value


_free: WeakKeyDictionary[Model, dict[int, GraphCache]] = WeakKeyDictionary()
_counts: WeakKeyDictionary[Model, GraphCounts] = WeakKeyDictionary()


def counts(model: Model) -> GraphCounts:
    """What has been captured of ``model``'s forwards since it was loaded."""
    return replace(_counts.get(model, GraphCounts()))


@contextmanager
def graphs_of(model: Model) -> Iterator[GraphCache | None]:
    """A model's graphs for one decode; those of the decode before, unless another has them now. None: it has none."""
    if not can_capture(model):
        yield None
        return
    parts = (model.body, model.lm_head)
    weights = hash(tuple(t.data_ptr() for part in parts for t in (*part.parameters(), *part.buffers())))
    free = _free.setdefault(model, {})
    cache = free.pop(weights, None) or GraphCache(cuda_capture(model.device), _counts.setdefault(model, GraphCounts()))
    cache.off = False  # what could not be captured for want of memory may be by now
    try:
        yield cache
    finally:
        free.clear()  # graphs of weights that lie elsewhere now
        free[weights] = cache


def can_capture(model: Model) -> bool:
    """Whether a model's forwards can be captured: on a CUDA device, and the model's own."""
    return model.device.type == "cuda" and is_plain(model)


def is_plain(model: Model) -> bool:
    """Whether a model's forward is its own alone: a replay would not call hooks, nor what wraps or replaces it."""
    if any(getattr(getattr(model, name), "__func__", None) is not getattr(Model, name) for name in ("hidden", "head")):
        return False
    hooked = any(map(is_hooked, (*model.body.modules(), *model.lm_head.modules())))
    return not (hooked or _global_forward_hooks or _global_forward_pre_hooks)


class SharedPool:
    """Memory that graphs share as long as one of them lives.

    torch does not capture into a pool whose graphs are all gone while a tensor in it is not: then there is a new one.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new, self._pool = new, None
        self._graphs: WeakSet[Any] = WeakSet()

    def of(self, graph: Any) -> Any:
        """The pool that this graph is to be captured into."""
        if not self._graphs:
            self._pool = self._new()
        self._graphs.add(graph)
        return self._pool


def cuda_capture(device: torch.device) -> Capture:
    """How ``GraphCache`` captures on a GPU; all graphs share their memory."""
    pool, stream = SharedPool(torch.cuda.graph_pool_handle), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def capture(call: Callable[[], Any]) -> Captured | None:
        torch.cuda.empty_cache()
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.memory_reserved(device)
        try:
            # What other threads do on the device meanwhile is their own affair.
            with torch.cuda.graph(graph, pool=pool.of(graph), stream=stream, capture_error_mode="thread_local"):
                result = call()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"forwards run without CUDA graphs: {reason}", stacklevel=2)
            return None
        return Captured(graph.replay, result, torch.cuda.memory_reserved(device) - before)

    return capture
