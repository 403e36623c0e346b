"""Runs the layers of a model's forward through torch.compile: one layer is compiled, and all others use what it gave.

The rows of a forward are laid end to end, so that a layer meets one row of some length whatever the number of rows; and
attention is one operation, which takes the rows, stored keys, candidates and masks from a context outside of what is
compiled. So one compilation serves all caches, lengths and batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from mdm.errors import MdmError
from mdm.models import attention, torch_compile
from mdm.models.model import Model, run, running
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

_in_this_thread: ContextVar[bool] = ContextVar("mdm.models.compiled", default=False)


def require(model: Model) -> None:
    """Refuse a model that cannot be compiled.

    Raises:
        MdmError: there is no compiler for its device; its forward is not that of a transformers body with our
            attention; its weights are quantized or do not lie on one device.
    """
    torch_compile.require(model.device.type)
    why = None
    if type(model).hidden is not Model.hidden:
        why = "has a forward of its own"
    elif not attention.is_installed(model.body) or not isinstance(getattr(model.body, "layers", None), nn.ModuleList):
        why = "does not use sdpa attention"
    elif getattr(model.body.config, "quantization_config", None) is not None:
        why = "has quantized weights"
    elif any(hasattr(module, "_hf_hook") for module in model.body.modules()):
        why = "has weights that do not lie on one device"
    if why is not None:
        raise MdmError(f"{model.name or 'the model'} {why}, so it cannot be compiled: drop --compile")


@contextmanager
def forwards(model: Model) -> Iterator[None]:
    """Within the block, and in this thread, ``model``'s layers are compiled, when they are first met.

    Raises:
        MdmError: a layer cannot be traced whole, or there are more kinds than ``torch_compile.MAX_SPECIALIZATIONS``.
    """
    layers: Any = model.body.layers
    for number, layer in enumerate(layers):
        if not hasattr(layer.forward, "is_dispatched"):
            layer.forward = _dispatched(layer, number)
    with running(model, _forward):
        yield


def _dispatched(layer: nn.Module, number: int) -> Callable[..., Tensor]:
    """The layer's forward, or in a thread that compiles what is compiled of it: its class's, one for all layers."""
    eager = layer.forward
    function, whose = (eager, ()) if "forward" in vars(layer) else (type(layer).forward, (layer,))

    @wraps(eager)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not _in_this_thread.get():
            return eager(*args, **kwargs)
        with attention.in_layer(number):
            return torch_compile.compiled(function, whole=True)(*whose, *args, **kwargs)

    dispatched: Any = forward
    dispatched.is_dispatched = True
    return dispatched  # type: ignore[no-any-return]


def _forward(body: nn.Module, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
    from torch._dynamo import exc

    # Under a dispatch mode, which counts operations, the forward is run so that they can be seen.
    if _get_current_dispatch_mode() is not None:
        return run(body, tokens, positions, mask, cache)
    rows = tokens.shape[0]
    token = _in_this_thread.set(True)
    try:
        with torch_compile.limits(), attention.end_to_end(rows, mask, cache):
            hidden = run(body, tokens.reshape(1, -1), positions.reshape(1, -1), None, None)
        return hidden.view(rows, -1, hidden.shape[-1])
    except exc.FailOnRecompileLimitHit:
        raise MdmError(
            f"more than {torch_compile.MAX_SPECIALIZATIONS} kinds of forward are too many to compile: drop --compile"
        ) from None
    except exc.TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise MdmError(f"the model's forward cannot be compiled ({reason}): drop --compile") from error
    finally:
        _in_this_thread.reset(token)
