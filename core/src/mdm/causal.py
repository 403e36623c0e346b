"""Autoregressive baselines: they continue their prompts by themselves, and answer as a decoded prompt does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mdm.canvas import Request, Row
from mdm.rng import Draws
from mdm.trace import StepEvent
from torch import Tensor

if TYPE_CHECKING:
    from mdm.engine import Settings


@torch.inference_mode()
def continue_all(
    model: Any,
    requests: Sequence[Request],
    settings: Settings,
    *,
    on_finish: Callable[[Row, Tensor], None],
    on_step: Callable[[StepEvent], None] | None = None,
) -> None:
    """Let ``model`` (``mdm.protocols.Autoregressive``) continue every request, in batches of like length.

    The trace has one line a token: its position, its entropy (nats), one forward of one row.
    """
    waiting = sorted(requests, key=lambda r: (r.gen_length, len(r.tokens)))
    size = settings.batch_size or len(waiting)
    while waiting:
        length = waiting[0].gen_length
        batch = [r for r in waiting[:size] if r.gen_length == length]
        waiting = waiting[len(batch) :]
        row_id = torch.tensor([r.row_id for r in batch], device=model.device)
        answers = model.generate(
            [r.tokens for r in batch], length, rules=settings.rules, temperature=settings.temperature,
            draws=Draws(settings.seed, row_id, torch.zeros_like(row_id)),
        )  # fmt: skip
        for request, (tokens, entropies) in zip(batch, answers, strict=True):
            n = len(request.tokens)
            lines = [
                {
                    "row": request.row_id, "step": step, "positions": [n + step], "tokens": [token],
                    "entropy": [entropy], "kind": "commit", "candidates": 0, "forwards": 1, "rows": 1,
                }
                for step, (token, entropy) in enumerate(zip(tokens, entropies, strict=True))
            ]  # fmt: skip
            if on_step is not None:
                on_step(StepEvent(tuple(lines)))
            end = n + len(tokens)
            row = Row(request.index, request.row_id, end, n, list(range(n, end)), [n, end], trace=lines)
            on_finish(row, torch.tensor([*request.tokens, *tokens]))
