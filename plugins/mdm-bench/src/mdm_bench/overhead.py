"""What decoding adds to the model: a whole decode against its own model calls, replayed alone.

Five parts are timed in turn, in several rounds, and medians of ratios are reported: a machine that is slow for a while
is slow for all of them.

total     a decode
replay    the calls of that decode, of the model and of its head, in their order and with the tensors they were given
forwards  of these, the calls of the model alone
heads     the head applied at once to all states that it was given after each forward, however decoding tiled it
plain     a forward over the same row-tokens that neither attends over cached keys and values nor stores any

Decoding takes the head in tiles that stay in a CPU's cache, which saves time that one product spends. Both yardsticks
are reported: ``total_over_replay`` has the tiles on both sides, so it is what decoding adds to the calls it makes;
``total_over_whole_head`` is total / (forwards + heads), against what a model would do by itself for the same rows. The
minimal forward is plain + heads. ``replay_over_minimal`` is (forwards + heads) / (plain + heads): a whole head on both
sides, so that tiles cannot hide what keeping keys and values costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from mdm.models import Model, compiled, cuda_graphs
from mdm.models.kv_store import KVStore, StoreView
from mdm.scoring.tiles import Scratch
from mdm_testing.counters import counting
from torch import Tensor

from mdm_bench.case import Case, seconds
from mdm_bench.decode import device_name, graphs_since

ROUNDS = 5
"""Default number of rounds: each round times every part once."""
TIME_LIMIT = 80.0
"""Seconds for one cache's rounds by default: no round is begun that would not end within them."""


@dataclass(frozen=True)
class Forward:
    """A call of the model, with all of its inputs."""

    tokens: Tensor
    positions: Tensor
    mask: Tensor | None
    cache: StoreView | None

    def again(self, model: Model, scratch: Scratch | None = None) -> None:
        model.hidden(self.tokens, self.positions, mask=self.mask, cache=self.cache)

    def plain(self, model: Model) -> None:
        model.hidden(self.tokens, self.positions)


@dataclass(frozen=True)
class Head:
    """A call of the head with ``states`` ``[T, D]``, for the tokens from ``first`` to ``end``, or (None) for all."""

    states: Tensor
    first: int = 0
    end: int | None = None

    def again(self, model: Model, scratch: Scratch) -> None:
        if self.end is None:
            model.head(self.states)
        else:
            out = scratch.buffer("logits", len(self.states), self.end - self.first, self.states)
            model.head_part(self.states, self.first, self.end, out)


@dataclass
class Recording:
    """The calls of a decode, in their order."""

    calls: list[Forward | Head] = field(default_factory=list)

    def replay(self, model: Model) -> None:
        scratch = Scratch()
        for call in self.calls:
            call.again(model, scratch)

    def forwards(self) -> list[Forward]:
        return [call for call in self.calls if isinstance(call, Forward)]

    def head_states(self) -> list[Tensor]:
        """For each forward the hidden states ``[T, D]`` that the head was given after it, each once however tiled."""
        after: list[list[Tensor]] = []
        for call in self.calls:
            if isinstance(call, Forward):
                after.append([])
            elif call.first == 0:
                after[-1].append(call.states)
        return [torch.cat(states) for states in after if states]


@contextmanager
def recording(model: Model) -> Iterator[Recording]:
    """Record the calls of ``model`` in the block.

    A cache is cloned when it was written since the call before. Tiles of the same states share them.
    """
    record = Recording()
    hidden, head, head_part = model.hidden, model.head, model.head_part
    clones: list[KVStore] = []

    def recorded_hidden(tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        if cache is not None and not clones:
            clones.append(cache.store.clone())
        view = None if cache is None else StoreView(clones[0], cache.layout)
        record.calls.append(Forward(tokens, positions, mask, view))
        out = hidden(tokens, positions, mask=mask, cache=cache)
        if cache is not None and cache.layout.writes:
            clones.clear()
        return out

    def recorded_head(states: Tensor) -> Tensor:
        record.calls.append(Head(states))
        return head(states)

    def recorded_part(states: Tensor, first: int, end: int, out: Tensor | None = None) -> Tensor:
        record.calls.append(Head(states, first, end))
        return head_part(states, first, end, out)

    with (
        patch.object(model, "hidden", recorded_hidden),
        patch.object(model, "head", recorded_head),
        patch.object(model, "head_part", recorded_part),
    ):
        yield record


def measure(
    model: Model,
    case: Case,
    pairs: int | None = None,
    threads: int = 1,
    tick: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Ratios (medians of rounds), seconds and counts of ``case``.

    Args:
        pairs: number of rounds; None: ``ROUNDS``, or as many as fit into ``TIME_LIMIT``, at least one.
        threads: number of CPU threads.
        tick: called with the number of rounds done, 0 when the first begins.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # Calls that are replayed outside of a decode run as it ran them.
        with compiled.forwards(model) if case.compile else nullcontext():
            return _measured(model, case, pairs, tick)
    finally:
        torch.set_num_threads(before)


def _measured(model: Model, case: Case, pairs: int | None, tick: Callable[[int], None]) -> dict[str, Any]:
    before = cuda_graphs.counts(model)
    with counting(model) as counts:
        case.decode(model, trace=False)
    with recording(model) as record:
        steps = max(len(result.trace) for result in case.decode(model))
    times: list[dict[str, float]] = []
    with torch.inference_mode():
        parts = _parts(model, case, record)
        # The recorded decode has warmed up all that decoding runs; only the plain forwards have shapes of their own.
        for forward in {forward.tokens.shape: forward for forward in record.forwards()}.values():
            forward.plain(model)
        model.head(max(record.head_states(), key=len))
        tick(0)
        for done in range(1, (pairs or ROUNDS) + 1):
            times.append({name: seconds(part, model.device) for name, part in parts.items()})
            tick(done)
            spent = sum(sum(part.values()) for part in times)
            if pairs is None and spent * (done + 1) / done > TIME_LIMIT:
                break
    tokens = case.gen_length * case.batch
    total = median(t["total"] for t in times)
    over_replay = [t["total"] / t["replay"] for t in times]
    config: Any = model.body.config
    return {
        "cache": case.cache,
        "vocab": model.spec.vocab_size,
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "prompt_length": case.prompt_length,
        "gen_length": case.gen_length,
        "block_length": case.block_length,
        "candidates": case.candidates,
        "batch_size": case.batch,
        "compile": case.compile,
        "graphs": case.graphs,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_name(model.device),
        "total_over_replay": median(over_replay),
        "total_over_whole_head": median(t["total"] / (t["forwards"] + t["heads"]) for t in times),
        "total_over_minimal": median(t["total"] / (t["plain"] + t["heads"]) for t in times),
        "replay_over_minimal": median((t["forwards"] + t["heads"]) / (t["plain"] + t["heads"]) for t in times),
        "spread": [min(over_replay), max(over_replay)],
        "pairs": len(times),
        "seconds": total,
        "seconds_of_parts": {name: median(t[name] for t in times) for name in times[0]},
        "tokens_per_second": tokens / total,
        "operations_per_token": counts.operations / tokens,
        "syncs_per_step": counts.syncs / steps,
        "uploads_per_step": counts.to_device / steps,
        "steps": steps,
        "forwards": counts.model_calls,
        "rows": counts.rows,
        "row_tokens": counts.positions,
        "head_rows": counts.head_rows,
        "largest_elements": counts.largest,
        "peak_bytes": counts.peak_bytes,
        **graphs_since(model, before),
    }


def _parts(model: Model, case: Case, record: Recording) -> dict[str, Callable[[], object]]:
    """The parts that are timed, in their order: those that are compared stand side by side."""
    forwards, head_states = record.forwards(), record.head_states()

    def total() -> None:
        case.decode(model, trace=False)

    def replay() -> None:
        record.replay(model)

    def heads() -> None:
        for states in head_states:
            model.head(states)

    def forwards_alone() -> None:
        for forward in forwards:
            forward.again(model)

    def plain() -> None:
        for forward in forwards:
            forward.plain(model)

    return {"total": total, "replay": replay, "heads": heads, "forwards": forwards_alone, "plain": plain}
