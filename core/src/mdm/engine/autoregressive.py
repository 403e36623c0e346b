"""Autoregressive baselines: they continue their prompts by themselves, and answer as a decoded prompt does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.protocols.draws import Draws
from mdm.protocols.hooks import StepEvent
from mdm.scoring.statistics import statistics
from torch import Tensor

if TYPE_CHECKING:
    from mdm.engine.engine import Settings


class TokenChooser:
    """Chooses each token as a diffusion model's are chosen, by the same rules and keyed draws; notes its entropy."""

    def __init__(self, settings: Settings, draws: Draws, at: Tensor) -> None:
        self.settings, self.draws, self.at = settings, draws, at
        self.entropies: list[Tensor] = []
        """nats, ``[B]`` a step"""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        temperature = self.settings.temperature
        logits = self.settings.rules(scores, lambda: input_ids)
        stats = statistics(logits, temperature=temperature, keys=self.draws.token_keys(self.at))
        self.entropies.append(stats.entropy)
        self.draws, self.at = self.draws.later(), self.at + 1
        return torch.full_like(scores, -torch.inf).scatter(1, stats.token[:, None], 0.0)


@torch.inference_mode()
def generate(
    model: Any,
    requests: Sequence[Request],
    settings: Settings,
    *,
    on_finish: Callable[[RowRecord], None],
    on_step: Callable[[StepEvent], None] | None = None,
) -> None:
    """Let ``model`` (``mdm.protocols.model.Autoregressive``) continue every request, in batches of like length.

    The trace has one line a token: its position, its entropy (nats), one forward of one row.
    """
    waiting = sorted(requests, key=lambda r: (r.gen_length, len(r.tokens)))
    size = settings.batch_size or len(waiting)
    while waiting:
        length = waiting[0].gen_length
        batch = [r for r in waiting[:size] if r.gen_length == length]
        waiting = waiting[len(batch) :]
        row_id = torch.tensor([r.row_id for r in batch], device=model.device)
        at = torch.tensor([len(r.tokens) for r in batch], device=model.device)
        choose = TokenChooser(settings, Draws(settings.seed, row_id, torch.zeros_like(row_id)), at)
        answers = model.generate([r.tokens for r in batch], length, choose)
        paid = torch.stack(choose.entropies, 1).tolist()
        for request, tokens, entropies in zip(batch, answers, paid, strict=True):
            n = len(request.tokens)
            lines = [
                {
                    "row": request.row_id, "step": step, "positions": [n + step], "tokens": [token],
                    "entropy": [entropy], "kind": "commit", "candidates": 0, "forwards": 1, "rows": 1,
                }
                for step, (token, entropy) in enumerate(zip(tokens, entropies, strict=False))
            ]  # fmt: skip
            if on_step is not None:
                on_step(StepEvent(tuple(lines)))
            canvas = [*request.tokens, *tokens]
            end = len(canvas)
            on_finish(RowRecord(request.index, request.row_id, canvas, n, list(range(n, end)), [n, end], trace=lines))
