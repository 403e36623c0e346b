"""How canvases begin, move from block to block, and end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from mdm.engine.requests import Request
from mdm.engine.rows import RowRecord
from mdm.engine.schedule import blocks
from mdm.errors import MdmError, MdmWarning
from mdm.protocols.model import ModelSpec
from mdm.protocols.settings import DEFAULT_BLOCK_LENGTH, Settings
from mdm.protocols.state import ABSENT, SAME, State
from torch import Tensor

STEPS_PER_TOKEN, MANY_TOKENS = 16, 4096
"""How many steps a generation may have for each token of its canvas, a short one counting as of so many tokens."""


def open_rows(
    requests: Sequence[Request], spec: ModelSpec, settings: Settings, works_on: str, *,
    guided: bool = False, multiple: int = 1,
) -> tuple[list[RowRecord], State]:  # fmt: skip
    """The records and the state that ``requests`` begin with, on the host.

    Args:
        settings: those of requests that have none of their own, with a block length. Blocks are joined to so many as
            there are steps, since each takes a step of its own.
        works_on: "block", or "canvas" for a sampler that has all masks as its one block.
        guided: whether a canvas has an unconditional branch too.
        multiple: canvases are padded to a multiple of so many positions.
    """
    rows = []
    for request in requests:
        own = request.settings or settings
        most = 1 if works_on == "canvas" else own.steps
        rows.append(_open_row(request, spec, block_length_of(settings, spec), most))
        rows[-1].settings = own
    count, length = len(rows), -(-max(row.length for row in rows) // multiple) * multiple
    width = max(len(row.starts) for row in rows)
    lengths = torch.tensor([row.length for row in rows])
    targets = torch.zeros(count, length, dtype=torch.bool)
    for b, row in enumerate(rows):
        targets[b, row.targets] = True
    starts = torch.tensor([row.starts + [length] * (width - len(row.starts)) for row in rows])
    zero = torch.zeros(count, dtype=torch.long)
    state = State(
        tokens=torch.tensor([row.tokens + [0] * (length - row.length) for row in rows]),
        masked=targets,
        in_canvas=torch.arange(length) < lengths[:, None],
        targets=targets,
        starts=starts,
        blocks=block_numbers(starts, length),
        prompt_length=torch.tensor([row.prompt_length for row in rows]),
        row_id=torch.tensor([row.row_id for row in rows]),
        request=torch.tensor([row.request for row in rows]),
        block=zero - 1,
        entered_block=zero.bool(),
        step=zero,
        block_step=zero,
        budget=zero,
        planned=zero,
        mask_id=spec.mask_id,
        shift=spec.shift,
        unconditional=_unconditional(requests, rows, length, spec.mask_id) if guided else None,
    )
    return rows, advance(state)


def _unconditional(requests: Sequence[Request], rows: Sequence[RowRecord], length: int, mask_id: int) -> Tensor:
    """``State.unconditional``: a second prompt that ends where the prompt ends, or the prompt masked."""
    seen = torch.full((len(rows), length), SAME)
    for line, request, row in zip(seen, requests, rows, strict=True):
        if request.unconditional is None:
            line[: row.prompt_length] = mask_id
        else:
            line[: row.unconditional_start] = ABSENT
            line[row.unconditional_start : row.prompt_length] = torch.tensor(request.unconditional, dtype=torch.long)
        line[row.targets] = SAME
    return seen


def _open_row(request: Request, spec: ModelSpec, block_length: int, most: int | None) -> RowRecord:
    prompt, prompt_length = list(request.tokens), len(request.tokens)
    on_grid = spec.attention == "block-causal"
    layout = {"grid": on_grid, "rounds_up": spec.rounds_up}
    holes = [i for i, t in enumerate(prompt) if t == spec.mask_id]
    spans = blocks(prompt_length, request.gen_length, block_length, **layout) if request.gen_length else []
    stop = spans[-1][1] if spans else prompt_length
    if on_grid and holes:
        last = max(stop, holes[-1] + 1)
        spans = blocks(holes[0], last - holes[0], block_length, **layout)
        stop = max(stop, spans[-1][1]) if request.gen_length else prompt_length
    elif holes:
        spans.insert(0, (holes[0], spans[0][0] if spans else holes[-1] + 1))
    if most is not None and most < len(spans) and not on_grid:
        edges = [len(spans) * i // most for i in range(most + 1)]
        spans = [(spans[first][0], spans[last - 1][1]) for first, last in pairwise(edges)]
    return RowRecord(
        request=request.index,
        row_id=request.row_id,
        tokens=prompt + [spec.mask_id] * (stop - prompt_length) + list(request.suffix),
        prompt_length=prompt_length,
        targets=holes + list(range(prompt_length, stop)),
        starts=[start for start, _ in spans] + [min(spans[-1][1], stop)],
        known_slots=request.known_slots,
        unconditional_start=0 if request.unconditional is None else prompt_length - len(request.unconditional),
    )


def check_steps(name: str, request: Request, spec: ModelSpec, settings: Settings, works_on: str) -> None:
    """Say that a request has more blocks than ``settings.steps``, so that they are joined; refuse it on a grid.

    Args:
        name: what the error line calls the request.
        works_on: as in ``open_rows``.

    Raises:
        MdmError: a block-causal model has its grid of blocks, and each takes at least one step; or far more steps than
            tokens.
    """
    if settings.steps is None:
        return
    tokens = len(request.tokens) + request.gen_length
    bound = STEPS_PER_TOKEN * max(tokens, MANY_TOKENS)
    if settings.steps > bound:
        raise MdmError(f"{name}: steps {settings.steps:,} are too many: {tokens:,} tokens take at most {bound:,}")
    size, on_grid = block_length_of(settings, spec), spec.attention == "block-causal"
    count = len(_open_row(request, spec, size, 1 if works_on == "canvas" else None).blocks_with_masks)
    if settings.steps >= count:
        return
    fault = f"steps {settings.steps} over {count} blocks of {size} tokens"
    if on_grid:
        raise MdmError(
            f"{name}: {fault}: {count} blocks take at least {count} steps; give more steps or a greater block length"
        )
    joined = f"{count} blocks take at least {count} steps, so they are joined to {settings.steps} longer ones"
    warnings.warn(f"{fault}: {joined}", MdmWarning, stacklevel=3)


def block_length_of(settings: Settings, spec: ModelSpec) -> int:
    """Tokens of a block: as asked for, or the model's own, or the common default."""
    return settings.block_length or spec.block_length or DEFAULT_BLOCK_LENGTH


def block_numbers(starts: Tensor, length: int) -> Tensor:
    """int64 ``[B, L]``: ``State.blocks`` of rows with these ``starts`` ``[B, M]``."""
    return (starts[:, None] <= torch.arange(length, device=starts.device)[:, None]).sum(-1) - 1


def advance(state: State, stay: bool = False) -> State:
    """Move each row to the block of its first mask; a row without masks keeps its block, and so does one that lingers.

    ``stay``: the host knows that all rows keep their block.
    """
    if stay:
        return state.replace(entered_block=torch.zeros_like(state.entered_block), block_step=state.block_step + 1)
    none = state.starts.shape[1]  # more than the number of any block
    first = torch.where(state.masked, state.blocks, none).amin(1)
    keep = first == none if state.lingers is None else (first == none) | state.lingers
    block = torch.where(keep, state.block, first)
    entered = block != state.block
    return state.replace(block=block, entered_block=entered, block_step=(state.block_step + 1).masked_fill(entered, 0))


def fill_after_eos(
    tokens: Tensor, masked: Tensor, state: State, eos_ids: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Masks behind the first end token at or after the prompt's end become end tokens; masks before it stay.

    Args:
        eos_ids: int64 ``[E]``, on the device; the first of them is filled in.
        rows: bool ``[B]``, those that are filled; None: all.
    """
    behind = masked & (state.positions > _first_end(tokens, masked, state, eos_ids))
    if rows is not None:
        behind = behind & rows[:, None]
    return torch.where(behind, eos_ids[0], tokens), masked & ~behind


def mask_after_lost_eos(tokens: Tensor, masked: Tensor, state: State, eos_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Where a step has taken back the first end token, the end tokens that stood behind it are masks again."""
    first = _first_end(state.tokens, state.masked, state, eos_ids)
    lost = first < _first_end(tokens, masked, state, eos_ids)
    behind = lost & state.targets & (state.positions > first) & (tokens == eos_ids[0]) & (tokens == state.tokens)
    return tokens.masked_fill(behind, state.mask_id), masked | behind


def _first_end(tokens: Tensor, masked: Tensor, state: State, eos_ids: Tensor) -> Tensor:
    """int64 ``[B, 1]``: where the first end token at or after the prompt's end stands; L where there is none."""
    positions, length = state.positions, tokens.shape[1]
    ends = torch.isin(tokens, eos_ids) & state.in_canvas & ~masked & (positions >= state.prompt_length[:, None])
    return torch.where(ends, positions, length).amin(1, keepdim=True)


def trimmed(state: State, length: int) -> State:
    """The state with canvases of ``length`` positions, behind which all rows have ended."""
    names = ("tokens", "masked", "in_canvas", "targets", "blocks", "unconditional")
    cut = {name: value[:, :length] for name in names if (value := getattr(state, name)) is not None}
    return replace(state, starts=state.starts.clamp(max=length), **cut)


def join(old: State, new: State) -> State:
    """The rows of both, padded to one length."""
    length = max(old.tokens.shape[1], new.tokens.shape[1])
    width = max(old.starts.shape[1], new.starts.shape[1])
    padding = {
        "tokens": 0, "masked": 0, "in_canvas": 0, "targets": 0, "blocks": width, "starts": length, "unconditional": SAME
    }  # fmt: skip

    def both(name: str) -> Tensor:
        parts = [getattr(old, name), getattr(new, name)]
        if name in padding:
            size = width if name == "starts" else length
            parts = [torch.nn.functional.pad(p, (0, size - p.shape[1]), value=padding[name]) for p in parts]
        return torch.cat(parts)

    joined: dict[str, Any] = {f.name: both(f.name) for f in fields(State) if isinstance(getattr(old, f.name), Tensor)}
    return replace(old, **joined)
