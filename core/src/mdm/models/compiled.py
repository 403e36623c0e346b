"""Runs a model's forward through torch.compile, as one graph; a GPU replays it (``mdm.models.cuda_graphs``).

Attention is one operation of it, which takes stored keys, candidates and masks from a context outside of the graph: so
there is one graph for one canvas and one for more, whatever the cache and the lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mdm.errors import MdmError
from mdm.models import attention, torch_compile
from mdm.models.cuda_graphs import CudaGraphCache, cuda_graphs
from mdm.models.model import Model, run, running
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode


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
    elif not attention.is_installed(model.body):
        why = "does not use sdpa attention"
    elif getattr(model.body.config, "quantization_config", None) is not None:
        why = "has quantized weights"
    elif any(hasattr(module, "_hf_hook") for module in model.body.modules()):
        why = "has weights that do not lie on one device"
    if why is not None:
        raise MdmError(f"{model.name or 'the model'} {why}, so it cannot be compiled: drop --compile")


@contextmanager
def forwards(model: Model) -> Iterator[None]:
    """Within the block, and in this thread, ``model``'s forwards are compiled, each kind when it is first met.

    Raises:
        MdmError: its body cannot be traced whole, or there are more kinds than ``torch_compile.MAX_SPECIALIZATIONS``.
    """
    forward: Callable[..., Tensor] = _compiled
    if model.device.type == "cuda":
        forward = CudaGraphCache(_compiled, cuda_graphs(model.device))

    def visible(*inputs: Any) -> Tensor:
        # Under a dispatch mode, which counts operations, the forward is run so that they can be seen.
        return forward(*inputs) if _get_current_dispatch_mode() is None else run(*inputs)

    with running(model, visible):
        yield


def _compiled(body: nn.Module, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
    from torch._dynamo import exc

    try:
        with attention.compiled_context(cache, mask):
            compiled = torch_compile.compiled(run, whole=True)
            hidden: Tensor = compiled(body, tokens.contiguous(), positions.contiguous(), None, None)
            return hidden
    except exc.FailOnRecompileLimitHit:
        raise MdmError(
            f"more than {torch_compile.MAX_SPECIALIZATIONS} kinds of forward are too many to compile: drop --compile"
        ) from None
    except exc.TorchDynamoException as error:
        reason = str(error).strip().partition("\n")[0]
        raise MdmError(f"the model's forward cannot be compiled ({reason}): drop --compile") from error
