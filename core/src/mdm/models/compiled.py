"""A model's forward as one compiled graph, which a GPU replays (``mdm.models.cuda_graphs``).

Attention is one operation of it, which meets kept keys, candidates and masks outside of the graph
(``mdm.models.attention.unseen``): so there is one graph for one canvas and one for more, whatever the cache and the
lengths.
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
    """Say so where ``model`` cannot be compiled.

    Raises:
        MdmError: there is no compiler for its device; its forward is not that of a transformers body with our
            attention; its weights are quantized or do not lie on one device.
    """
    torch_compile.require(model.device.type)
    why = None
    if type(model).hidden is not Model.hidden:
        why = "has a forward of its own"
    elif not attention.is_installed(model.body):
        why = "attends by something else than sdpa"
    elif getattr(model.body.config, "quantization_config", None) is not None:
        why = "has quantized weights"
    elif any(hasattr(module, "_hf_hook") for module in model.body.modules()):
        why = "has weights that do not lie on one device"
    if why is not None:
        raise MdmError(f"{model.name or 'the model'} {why}, and that cannot be compiled: leave compile out")


@contextmanager
def forwards(model: Model) -> Iterator[None]:
    """Within the block, and in this thread, ``model``'s forwards are compiled, each kind when it is first met.

    Raises:
        MdmError: its body cannot be traced whole, or there are more kinds than ``torch_compile.KINDS``.
    """
    made: Callable[..., Tensor] = _compiled
    if model.device.type == "cuda":
        made = CudaGraphCache(_compiled, cuda_graphs(model.device))

    def seen_through(*given: Any) -> Tensor:
        # Who counts operations is to see them.
        return made(*given) if _get_current_dispatch_mode() is None else run(*given)

    with running(model, seen_through):
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
            f"more than {torch_compile.KINDS} kinds of forward are too many to compile: leave compile out"
        ) from None
    except exc.TorchDynamoException as error:
        said = str(error).strip().partition("\n")[0]
        raise MdmError(f"the model's forward cannot be compiled ({said}): leave compile out") from error
