"""How canvases begin, move from block to block, and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.engine.schedule import blocks
from mdm.protocols.model import ModelSpec
from mdm.protocols.state import State
from torch import Tensor


def open_rows(
    requests: Sequence[Request],
    spec: ModelSpec,
    block_length: int,
    grid: int | None,
    works_on: str,
) -> tuple[list[RowRecord], State]:
    """The rows and the state that ``requests`` begin with, on the host."""
    rows = []
    for request in requests:
        prompt, n = list(request.tokens), len(request.tokens)
        holes = [i for i, t in enumerate(prompt) if t == spec.mask_id]
        spans = blocks(n, request.gen_length, block_length, grid=grid is not None) if request.gen_length else []
        stop = spans[-1][1] if spans else n
        if grid and holes:
            last = max(stop, holes[-1] + 1)
            spans = blocks(holes[0], last - holes[0], block_length, grid=True)
            stop = max(stop, spans[-1][1]) if request.gen_length else n
        elif holes:
            spans.insert(0, (holes[0], spans[0][0] if spans else holes[-1] + 1))
        if works_on == "canvas" and not grid:
            spans = [(spans[0][0], spans[-1][1])]
        canvas = prompt + [spec.mask_id] * (stop - n) + list(request.suffix)
        slots = holes + list(range(n, stop))
        starts = [s for s, _ in spans] + [min(spans[-1][1], stop)]
        rows.append(RowRecord(request.index, request.row_id, canvas, n, slots, starts))
    length = max(row.length for row in rows)
    width = max(len(row.starts) for row in rows)
    tokens = torch.tensor([row.tokens + [0] * (length - row.length) for row in rows])
    lengths = torch.tensor([row.length for row in rows])
    slots_mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, row in enumerate(rows):
        slots_mask[b, row.slots] = True
    starts_grid = torch.tensor([row.starts + [length] * (width - len(row.starts)) for row in rows])
    count = len(rows)
    zero = torch.zeros(count, dtype=torch.long)
    state = State(
        tokens=tokens,
        masked=slots_mask,
        in_canvas=torch.arange(length) < lengths[:, None],
        targets=slots_mask,
        starts=starts_grid,
        blocks=block_numbers(starts_grid, length),
        prompt_length=torch.tensor([row.prompt_length for row in rows]),
        row_id=torch.tensor([row.row_id for row in rows]),
        request=torch.tensor([row.request for row in rows]),
        block=zero - 1,
        entered_block=zero.bool(),
        step=zero,
        block_step=zero,
        budget=zero,
        mask_id=spec.mask_id,
    )
    return rows, advance(state)


def block_numbers(starts: Tensor, length: int) -> Tensor:
    """int64 ``[B, L]``: ``State.blocks`` of rows with these ``starts`` ``[B, M]``."""
    return (starts[:, None] <= torch.arange(length, device=starts.device)[:, None]).sum(-1) - 1


def advance(state: State, stay: bool = False) -> State:
    """Each row's block: that of its first mask; a row without masks keeps its block, as all do that are to ``stay``."""
    if stay:
        return state.replace(entered_block=torch.zeros_like(state.entered_block), block_step=state.block_step + 1)
    none = state.starts.shape[1]  # more than the number of any block
    first = torch.where(state.masked, state.blocks, none).amin(1)
    block = torch.where(first == none, state.block, first)
    entered = block != state.block
    return state.replace(block=block, entered_block=entered, block_step=(state.block_step + 1).masked_fill(entered, 0))


def fill_after_eos(tokens: Tensor, masked: Tensor, state: State, eos_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Masks behind the first EOS at or after the prompt's end become EOS; masks before it stay."""
    at = state.positions
    ids = torch.tensor(eos_ids, device=tokens.device)
    ends = torch.isin(tokens, ids) & state.in_canvas & ~masked & (at >= state.prompt_length[:, None])
    first = ends.to(torch.int8).argmax(1, keepdim=True)
    behind = masked & (at > first) & ends.any(1, keepdim=True)
    return tokens.masked_fill(behind, eos_ids[0]), masked & ~behind


def join(old: State, new: State) -> State:
    """The rows of both, padded to one length."""
    length = max(old.tokens.shape[1], new.tokens.shape[1])
    width = max(old.starts.shape[1], new.starts.shape[1])

    def both(name: str) -> Tensor:
        parts = [getattr(old, name), getattr(new, name)]
        if name in ("tokens", "masked", "in_canvas", "targets"):
            parts = [torch.nn.functional.pad(p, (0, length - p.shape[1])) for p in parts]
        elif name == "blocks":
            parts = [torch.nn.functional.pad(p, (0, length - p.shape[1]), value=width) for p in parts]
        elif name == "starts":
            parts = [torch.nn.functional.pad(p, (0, width - p.shape[1]), value=length) for p in parts]
        return torch.cat(parts)

    joined: dict[str, Any] = {f.name: both(f.name) for f in fields(State) if f.name != "mask_id"}
    return replace(old, **joined)
