"""Scores that are not finite: the option, the logits processor, the layer or the weight that made them so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mdm.engine.rows import RowRecord
from mdm.errors import MdmError, PromptError
from mdm.models.faults import AT_ONCE, check_weights_are_finite, layer_at_fault, what_is_wrong
from mdm.models.model import Model
from mdm.protocols.settings import Settings
from mdm.scoring.logit_rules import LogitRules, name_of
from torch import Tensor


@torch.inference_mode()
def not_finite(model: Model, row: RowRecord, step: int, seen: Tensor | None = None) -> MdmError:
    """The error for a row with scores that are not finite. Weights are no prompt's fault; all else is this row's.

    Args:
        row: its canvas as it was scored in ``step``.
        seen: int64 ``[L]``, the row of ``State.unconditional``; None without guidance.
    """
    assert row.readout is not None
    canvas, unconditional = list(row.tokens), None
    if seen is not None:
        start = row.unconditional_start
        others = seen[start : len(canvas)].tolist()
        unconditional = [token if other < 0 else other for token, other in zip(canvas[start:], others, strict=True)]
    masks = [place for place in row.targets if canvas[place] == model.spec.mask_id] or row.targets
    return explained(model, row.readout.rules, row, canvas, masks, step, unconditional)


@torch.inference_mode()
def explained(
    model: Model, rules: LogitRules, row: RowRecord, canvas: Sequence[int], positions: Sequence[int], step: int,
    unconditional: Sequence[int] | None = None,
) -> MdmError:  # fmt: skip
    """The error for scores of a row that are not finite.

    Args:
        canvas: its tokens when they were scored, and ``positions`` those that were.
        unconditional: what guidance compares with; None: nothing.
    """
    try:
        check_weights_are_finite(model)
        why = _origin(model, rules, row.settings, canvas, positions, unconditional)
    except MdmError as error:
        return error
    except Exception as error:  # whatever else is broken, this is what is told
        why = f"{type(error).__name__}: {error}"
    why = why or (
        "those of its canvas alone are finite, so a candidate of a lookahead, a logits processor that changes, stored "
        "keys and values, or the device gave others"
    )
    found = PromptError(f"the scores of row {row.row_id} in step {step} are not finite: {' '.join(why.split())}")
    found.request = row.request
    return found


def _origin(
    model: Model, rules: LogitRules, settings: Settings, canvas: Sequence[int], positions: Sequence[int],
    unconditional: Sequence[int] | None,
) -> str:  # fmt: skip
    """The first step from canvas to scores whose numbers are not finite, found by going them one by one."""
    grid = settings.block_length if model.spec.attention == "block-causal" else None
    wrong, parts = layer_at_fault(model, canvas, grid, positions)
    if not wrong and unconditional is not None:
        skipped = len(canvas) - len(unconditional)
        wrong, others = layer_at_fault(model, unconditional, grid, [p - skipped for p in positions])
        parts = [u + (settings.guidance + 1) * (c - u) for c, u in zip(parts, others, strict=False)]
    if wrong:
        half = "16" in str(model.dtype)
        return f"{wrong}{': load the model with dtype float32' if half else ''}"
    for number, logits in enumerate(parts):
        if found := what_is_wrong(logits):
            return f"guidance {settings.guidance:g} gives {found}"
        at = positions[number * AT_ONCE : (number + 1) * AT_ONCE]
        plain = LogitRules(rules.penalties, rules.suppressed, rules.allowed)
        steps = [("the penalties, allowed and suppressed tokens", plain)]
        steps += [(name_of(each), _only(each)) for each in rules.processors]
        for name, rule in steps:
            ids = torch.tensor([list(canvas)] * len(logits), device=logits.device)
            logits = rule(logits, lambda ids=ids: ids)  # type: ignore[misc]
            if found := what_is_wrong(logits):
                return f"{name} gives {found}"
            chosen = logits.clone()
            if model.spec.mask_id >= 0:
                chosen[:, model.spec.mask_id] = -torch.inf
            nothing = (chosen == -torch.inf).all(-1).nonzero().flatten().tolist()
            if nothing:
                return f"at position {at[nothing[0]]} every token is forbidden, the last of them by {name}"
    return ""


def _only(processor: object) -> LogitRules:
    return LogitRules(processors=(processor,))  # type: ignore[arg-type]
