"""Autoregressive baselines: they continue their prompts by themselves, and answer as a decoded prompt does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import isfinite
from typing import Any

import torch
from mdm.engine.faults import explained
from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.protocols.draws import Draws
from mdm.protocols.hooks import Line, StepEvent
from mdm.protocols.settings import Settings
from mdm.protocols.upload import to_device
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.statistics import statistics
from torch import Tensor


class TokenChooser:
    """Chooses each token as a diffusion model's are chosen, by the same rules and keyed draws; notes its entropy.

    Args:
        positions: int64 ``[B]``, where the first token of each row goes.
    """

    def __init__(self, settings: Settings, rules: LogitRules, draws: Draws, positions: Tensor) -> None:
        self.settings, self.rules, self.draws, self.positions = settings, rules, draws, positions
        self.entropies: list[Tensor] = []
        """nats, ``[B]`` a step"""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = self.rules(scores, lambda: input_ids)
        stats = statistics(
            logits, temperature=self.settings.temperature, keys=self.draws.token_keys(self.positions),
            top_p=self.settings.top_p, top_k=self.settings.top_k,
        )  # fmt: skip
        self.entropies.append(stats.entropy)
        self.draws, self.positions = self.draws.later(), self.positions + 1
        return torch.full_like(scores, -torch.inf).scatter(1, stats.token[:, None], 0.0)


@torch.inference_mode()
def generate(
    model: Any,
    requests: Sequence[Request],
    settings: Settings,
    rules: LogitRules,
    *,
    on_finish: Callable[[RowRecord], None],
    on_step: Callable[[StepEvent], None] | None = None,
) -> None:
    """Let ``model`` (``mdm.protocols.Autoregressive``) continue every request, in batches of like length.

    The trace has one line a token: its position, its entropy (nats), one forward of one row.
    """
    waiting = sorted(requests, key=lambda r: (r.gen_length, len(r.tokens)))
    size = settings.batch_size if isinstance(settings.batch_size, int) else len(waiting)
    while waiting:
        length = waiting[0].gen_length
        batch = [r for r in waiting[:size] if r.gen_length == length]
        waiting = waiting[len(batch) :]
        row_id = to_device([r.row_id for r in batch], model.device)
        positions = to_device([len(r.tokens) for r in batch], model.device)
        draws = Draws(settings.seed, row_id, torch.zeros_like(row_id))
        choose = TokenChooser(settings, rules, draws, positions)
        answers = model.generate([r.tokens for r in batch], length, choose)
        entropies = torch.stack(choose.entropies, 1).tolist()
        for request, tokens, row_entropies in zip(batch, answers, entropies, strict=True):
            row = _record(request, tokens, row_entropies, settings)
            for line in row.trace:
                if not isfinite(line["entropy"][0]):
                    [place] = line["positions"]
                    raise explained(model, rules, row, row.tokens[:place], [place], line["step"])
            if on_step is not None:
                on_step(StepEvent(tuple(deepcopy(row.trace))))
            on_finish(row)


def _record(request: Request, tokens: Sequence[int], entropies: Sequence[float], settings: Settings) -> RowRecord:
    start = len(request.tokens)
    lines: list[Line] = [
        {
            "row": request.row_id, "step": step, "positions": [start + step], "tokens": [token],
            "entropy": [entropy], "kind": "commit", "candidates": 0, "forwards": 1, "rows": 1,
        }
        for step, (token, entropy) in enumerate(zip(tokens, entropies, strict=False))
    ]  # fmt: skip
    canvas = [*request.tokens, *tokens]
    return RowRecord(
        request=request.index, row_id=request.row_id, tokens=canvas, prompt_length=start,
        targets=list(range(start, len(canvas))), starts=[start, len(canvas)], trace=lines,
        steps_taken=[len(lines)], settings=settings,
    )  # fmt: skip
