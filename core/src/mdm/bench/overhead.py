"""What decoding adds to the model: a whole decode against its own model calls, replayed alone.

Three things are timed in turn, again and again, and the median of their ratios is reported: a machine that is slow for
a while is slow for all three.

total    a decode
replay   the model calls and head calls of that decode, with the tensors they were given, and nothing else
minimal  a plain forward over as many row-tokens, without keys and values from before, and the head on as many rows
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from mdm.bench.case import Case, seconds
from mdm.counters import counting
from mdm.kv import Slots, Store
from mdm.model import Model
from torch import Tensor


@dataclass(frozen=True)
class _Call:
    """One call of the model or of its head, with all that it reads."""

    tokens: Tensor | None = None
    positions: Tensor | None = None
    mask: Tensor | None = None
    cache: Store | None = None
    slots: Slots | None = None
    states: Tensor | None = None

    def again(self, model: Model) -> None:
        if self.states is not None:
            model.head(self.states)
        else:
            assert self.tokens is not None and self.positions is not None
            if self.cache is not None and self.slots is not None:
                self.cache.slots = self.slots
            model.hidden(self.tokens, self.positions, mask=self.mask, cache=self.cache)

    def minimal(self, model: Model) -> None:
        if self.states is None:
            replace(self, mask=None, cache=None).again(model)


def measure(model: Model, case: Case, pairs: int = 5, threads: int = 1) -> dict[str, Any]:
    """Ratios (medians over ``pairs``), seconds and counts of ``case``, on so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _measured(model, case, pairs)
    finally:
        torch.set_num_threads(before)


def _measured(model: Model, case: Case, pairs: int) -> dict[str, Any]:
    results = case.decode(model)
    steps = max(len(r.trace) for r in results)
    tokens = case.gen_length * case.batch
    with counting(model) as counts:
        case.decode(model, trace=False)
    calls = _recorded(model, case)
    heads = [call.states for call in calls if call.states is not None]
    times: list[tuple[float, float, float]] = []

    def total() -> None:
        case.decode(model, trace=False)

    def replay() -> None:
        for call in calls:
            call.again(model)

    def minimal() -> None:
        for call in calls:
            call.minimal(model)
        for states in heads:
            model.head(states)

    with torch.inference_mode():
        for work in (replay, minimal):
            work()
        for _ in range(pairs):
            times.append((seconds(total, model.device), seconds(replay, model.device), seconds(minimal, model.device)))
    over_replay = [t / r for t, r, _ in times]
    over_minimal = [t / m for t, _, m in times]
    return {
        "cache": case.cache,
        "total_over_replay": median(over_replay),
        "total_over_minimal": median(over_minimal),
        "replay_over_minimal": median(r / m for _, r, m in times),
        "spread": [min(over_replay), max(over_replay)],
        "seconds": median(t for t, _, _ in times),
        "tokens_per_second": tokens / median(t for t, _, _ in times),
        "operations_per_token": counts.operations / tokens,
        "syncs_per_step": counts.syncs / steps,
        "steps": steps,
        "forwards": counts.model_calls,
        "rows": counts.rows,
        "row_tokens": counts.positions,
        "head_rows": counts.head_rows,
        "largest_elements": counts.largest,
        "peak_bytes": counts.peak_bytes,
    }


def _recorded(model: Model, case: Case) -> list[_Call]:
    """The calls of one decode; a cache is cloned where it was written since the call before."""
    calls: list[_Call] = []
    hidden, head, head_part = model.hidden, model.head, model.head_part
    clones: list[Store] = []

    def recorded_hidden(tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        if cache is not None and not clones:
            clones.append(cache.clone())
        calls.append(_Call(tokens, positions, mask, clones[0] if cache else None, cache and cache.slots))
        out = hidden(tokens, positions, mask=mask, cache=cache)
        if cache is not None and cache.slots.writes:
            clones.clear()
        return out

    def recorded_head(states: Tensor) -> Tensor:
        calls.append(_Call(states=states))
        return head(states)

    def recorded_part(states: Tensor, first: int, end: int) -> Tensor:
        if first == 0:  # replayed as the model has its head, whole
            calls.append(_Call(states=states))
        return head_part(states, first, end)

    with (
        patch.object(model, "hidden", recorded_hidden),
        patch.object(model, "head", recorded_head),
        patch.object(model, "head_part", recorded_part),
    ):
        case.decode(model, trace=False)
    return calls
