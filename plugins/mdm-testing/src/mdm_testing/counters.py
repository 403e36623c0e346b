"""What a decode costs, counted: model calls, rows of the head, waits for the device, operations, memory.

Counts do not vary as times do. Used by ``mdm bench``, by tests and by the conformance kit::

    with counting(model) as counts:
        mdm.decode(model, prompts)
    counts.syncs

PyTorch's dispatch and function modes see the operations of the thread that entered them and of no other, so what other
threads do in the meantime is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from mdm.protocols.upload import upload
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from mdm.models import Model

aten = torch.ops.aten
_WAITS = {
    aten.item.default,
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.allclose.default,
    aten.nonzero.default,
    aten.nonzero_numpy.default,
    aten.argwhere.default,
    aten.masked_select.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten._unique.default,
    aten._unique2.default,
    aten.bincount.default,
}
"""Operations whose result, or whose result's shape, the host has to know before it can go on."""
_TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
"""Methods that bring a tensor to the host; on a CPU no operation shows it."""
_FROM_VALUES = {torch.tensor, torch.as_tensor}
"""Functions that make a tensor of Python values: with a device named, the values are copied to it at once."""
_INDEXING = {Tensor.__getitem__, Tensor.__setitem__}


@dataclass
class Counts:
    """What happened inside ``counting``."""

    model_calls: int = 0
    rows: int = 0
    """canvases that went through the model"""
    positions: int = 0
    """row-tokens that went through the model"""
    head_rows: int = 0
    """hidden states that went through the head"""
    head_logits: int = 0
    """logits that the head made of them"""
    syncs: int = 0
    """times the host waited for a result: each is a device to host transfer on an accelerator"""
    to_device: int = 0
    """tensors of the host that went to the device"""
    pageable: int = 0
    """those among them that did not go by ``mdm.protocols.upload``: on an accelerator each of these copies waits"""
    operations: int = 0
    """operations outside the model and its head"""
    model_operations: int = 0
    largest: int = 0
    """elements of the largest tensor made"""
    live_bytes: int = 0
    peak_bytes: int = 0
    """largest sum of tensors made inside and alive at one time; a kernel's own temporaries are not seen"""


@contextmanager
def counting(model: Model | None = None, *, operations: bool = True) -> Iterator[Counts]:
    """Count what this thread does in the block; model calls and head rows are ``model``'s.

    On a CPU nothing ever waits, so a sync is whatever would make an accelerator's host wait. Without ``operations``
    only the model's calls and their rows are counted, which costs no time. A model is counted by one thread at a time.
    """
    counts = Counts()
    mode = _Operations(counts)
    with _model_calls(model, mode):
        if operations:
            with _Methods(counts), mode:
                yield counts
        else:
            yield counts


class _Operations(TorchDispatchMode):
    """Sees every operation; composite ones as the operations that they are made of."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts
        self.in_model = 0
        self._storages: dict[int, weakref.finalize[..., Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        waits = _waits(func, args, kwargs)
        if not waits and func not in _WAITS:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if not func.is_view:
            if self.in_model:
                self.counts.model_operations += 1
            else:
                self.counts.operations += 1
        self.counts.syncs += waits
        # A view, or what was written into, is memory that was there before: a weight, if nothing else.
        if not func.is_view and not func._schema.is_mutable:
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, Tensor):
                    self._count_memory(tensor)
        return out

    def _count_memory(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size, counts = storage._cdata, storage.nbytes(), self.counts
        if key in self._storages:
            return
        counts.largest = max(counts.largest, size // tensor.element_size())
        counts.live_bytes += size
        counts.peak_bytes = max(counts.peak_bytes, counts.live_bytes)

        def gone() -> None:
            del self._storages[key]
            counts.live_bytes -= size

        self._storages[key] = weakref.finalize(storage, gone)


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    if func in _WAITS:
        return kwargs.get("output_size") is None
    if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
        # A boolean index is a nonzero, unless one number goes everywhere: that is a masked_fill.
        fill = func is not aten.index.Tensor and args[2].numel() == 1
        return not fill and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if func is aten._to_copy.default:
        device = kwargs.get("device")
        return device is not None and torch.device(device).type == "cpu" and args[0].device.type != "cpu"
    if func is aten.copy_.default:
        return bool(args[0].device.type == "cpu" and args[1].device.type != "cpu")
    return False


class _Methods(TorchFunctionMode):
    """Counts what no operation shows on a CPU, each call once however it is made of others.

    ``mdm.models.transfer.on_host`` is a function that torch can override, so it comes here whole: what it calls inside
    is not seen, and the numbers it reads were made on the host. So is ``mdm.protocols.upload.upload``.

    The host's own tensors are those that functions made without a device and without a tensor from elsewhere. What was
    there before counting began counts as the device's, and so does what torch.from_numpy makes, which no mode sees.
    """

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, before, out = kwargs or {}, self.counts.syncs, None
        moves = _moves(func, args, kwargs)
        try:
            out = func(*args, **kwargs)
        finally:
            if func in _TO_HOST or (func is Tensor.to and _names_the_cpu(args, kwargs)):
                self.counts.syncs = before + 1
            self.counts.to_device += moves
            self.counts.pageable += moves and func is not upload
        if moves and args and out is args[0] and _on_host(out):
            return out.view(out.shape)  # the same numbers, as a tensor of the device
        if not moves and _stays_on_host(args, kwargs):
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, Tensor):
                    tensor._mdm_on_host = True  # type: ignore[attr-defined]
        return out


def _on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "_mdm_on_host")


def _stays_on_host(args: Any, kwargs: Any) -> bool:
    """Whether what is made of these is the host's: nothing among them names, or lies on, the device."""
    if kwargs.get("device") is not None:
        return False
    flat = [x for value in (*args, *kwargs.values()) for x in (value if isinstance(value, (tuple, list)) else (value,))]
    return all(_on_host(x) for x in flat if isinstance(x, Tensor))


def _moves(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call copies numbers of the host to the device."""
    if func in _FROM_VALUES:
        return kwargs.get("device") is not None
    if func is upload:
        return True
    if func is Tensor.to and _on_host(args[0]):
        to = [*args[1:], *kwargs.values()]
        return any(isinstance(x, torch.device) or (isinstance(x, Tensor) and not _on_host(x)) for x in to)
    if func is Tensor.cuda:
        return _on_host(args[0])
    if func is Tensor.copy_:
        return not _on_host(args[0]) and _on_host(args[1])
    if func is Tensor.new_tensor:
        return not _on_host(args[0])
    if func in _INDEXING and not _on_host(args[0]):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, (list, range)) or (_on_host(i) and i.dim() > 0) for i in index)
    return False


def _names_the_cpu(args: Any, kwargs: Any) -> bool:
    """Whether ``Tensor.to`` is told "cpu" as text, which code does that means the host; a device may be any."""
    return "cpu" in (*(a for a in args[1:] if isinstance(a, str)), kwargs.get("device"))


@contextmanager
def _model_calls(model: Model | None, mode: _Operations) -> Iterator[None]:
    if model is None:
        yield
        return
    counts, hidden, head, head_part = mode.counts, model.hidden, model.head, model.head_part

    def inside(method: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        mode.in_model += 1
        try:
            return method(*args, **kwargs)
        finally:
            mode.in_model -= 1

    def counted_hidden(tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        counts.model_calls += 1
        counts.rows += tokens.shape[0]
        counts.positions += tokens.numel()
        return inside(hidden, tokens, *args, **kwargs)

    def counted_head(states: Tensor) -> Tensor:
        counts.head_rows += states.shape[:-1].numel()
        logits = inside(head, states)
        counts.head_logits += logits.numel()
        return logits

    reached = -1

    def counted_part(states: Tensor, first: int, end: int, *args: Any) -> Tensor:
        nonlocal reached  # a part that goes on where the last one ended is of the same states
        counts.head_rows += states.shape[:-1].numel() if first != reached else 0
        reached = end
        logits = inside(head_part, states, first, end, *args)
        counts.head_logits += logits.numel()
        return logits

    with (
        patch.object(model, "hidden", counted_hidden),
        patch.object(model, "head", counted_head),
        patch.object(model, "head_part", counted_part),
    ):
        yield


@contextmanager
def layers_run(model: Model) -> Iterator[list[tuple[int, list[list[int]]]]]:
    """Which positions the layers compute in the block: for each call of a layer its number, and those of each canvas.

    For full forwards and for cache modes inside the layers; padding of shorter canvases is left out of the latter only.
    """
    calls: list[tuple[int, list[list[int]]]] = []

    def seen(number: int) -> Callable[..., None]:
        def look(module: Any, given: Any, kwargs: Any) -> None:
            forward, (rows, width) = kwargs["past_key_values"], kwargs["hidden_states"].shape[:2]
            places = getattr(forward, "positions", None)
            if places is None:
                calls.append((number, [list(range(width))] * rows))
                return
            valid = torch.ones_like(places).bool() if forward.valid is None else forward.valid
            calls.append((number, [line[counts].tolist() for line, counts in zip(places, valid, strict=True)]))

        return look

    layers: Any = model.body.layers
    hooks = [
        layer.self_attn.register_forward_pre_hook(seen(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
