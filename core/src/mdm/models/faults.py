"""Where numbers that are not finite come from. Asked only once one has been seen, so it may take its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from mdm.errors import MdmError
from torch import Tensor, nn

if TYPE_CHECKING:
    from mdm.models.model import Model

AT_ONCE = 64
"""Positions whose logits are looked at together."""


def what_is_wrong(values: Tensor) -> str:
    """ "nan" or "infinity", whichever of ``values`` is one; -inf, which forbids a token, is neither. Else empty."""
    if values.isnan().any():
        return "nan"
    return "infinity" if (values == torch.inf).any() else ""


def check_weights_are_finite(model: Model) -> None:
    """Look through all weights, on whatever devices they are.

    Raises:
        MdmError: one of them holds numbers that are not finite.
    """
    for part, module in (("", model.body), ("lm_head.", model.lm_head)):
        for name, weight in (*module.named_parameters(), *module.named_buffers()):
            if weight.is_floating_point() and not weight.is_meta and (bad := int((~weight.float().isfinite()).sum())):
                raise MdmError(
                    f"{model.name or 'the model'}: weight {part}{name} holds {bad:,} numbers of {weight.numel():,} "
                    "that are nan or infinite: the checkpoint is broken, or its numbers are too large for "
                    f"{_name(weight.dtype)}"
                )


def layer_at_fault(
    model: Model, tokens: Sequence[int], block_length: int | None, positions: Sequence[int]
) -> tuple[str, list[Tensor]]:
    """What is wrong with the logits of a canvas, naming the first layer whose numbers are; empty where nothing is.

    Returns:
        Also the logits ``[K, V]`` of the ``positions``, of so many as came out right, ``AT_ONCE`` at a time.
    """
    found: list[str] = []

    def look(name: str) -> Any:
        def after(module: nn.Module, given: Any, result: Any) -> None:
            values = result[0] if isinstance(result, tuple) else result
            numbers = isinstance(values, Tensor) and values.is_floating_point()
            if not found and numbers and (wrong := what_is_wrong(values.abs())):
                found.append(f"layer {name} of {model.name or 'the model'} gives {wrong} in {_name(values.dtype)}")

        return after

    layers = [
        *model.body.named_modules(),
        *((f"lm_head.{name}".strip("."), m) for name, m in model.lm_head.named_modules()),
    ]
    hooks = [module.register_forward_hook(look(name)) for name, module in layers if not [*module.children()]]
    logits: list[Tensor] = []
    try:
        for start in range(0, len(positions), AT_ONCE):
            at = torch.tensor(positions[start : start + AT_ONCE])
            [values] = model.score_logits(torch.tensor([list(tokens)]), block_length, at)
            if wrong := what_is_wrong(values):
                return found[0] if found else f"{model.name or 'the model'} gives {wrong}", logits
            logits.append(values.float())
    finally:
        for hook in hooks:
            hook.remove()
    return "", logits


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
