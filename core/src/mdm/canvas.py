"""How canvases begin, move from block to block, and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mdm.protocols import ModelSpec
from mdm.schedule import blocks, quota, split
from mdm.state import State
from torch import Tensor

if TYPE_CHECKING:
    from mdm.engine import Settings


@dataclass(frozen=True)
class Request:
    """One prompt to decode: ids that may hold masks, and how many masks follow them."""

    index: int
    tokens: Sequence[int]
    gen_length: int
    row_id: int
    suffix: Sequence[int] = ()
    """Visible tokens behind all masks."""


class Facts(NamedTuple):
    """What the host must know of a row to run its next step. The first six are numbers of positions."""

    open: int
    """masks of its block"""
    size: int
    """of its block"""
    reads: int
    """to be scored"""
    query: int
    """that a forward runs"""
    window: int
    """that an ``Evaluate`` runs"""
    writes: int
    """whose keys and values are kept"""
    entered: int
    """1: the row has just entered its block"""
    known: int
    """1: its scores are known, and need no forward unless something is to be kept"""
    done: int


UNSEEN = Facts(*[-1] * len(Facts._fields))
"""A row that the host has to look at first."""


@dataclass
class Row:
    """What the host knows of a row: its schedule, what it spent and its trace."""

    request: int
    row_id: int
    tokens: list[int]
    """the canvas, as far as its trace has come to the host"""
    prompt_length: int
    slots: list[int]
    starts: list[int]
    facts: Facts = UNSEEN
    steps: list[int] | None = None
    block: int = -1
    block_step: int = 0
    step: int = 0
    quota: tuple[int, ...] = ()
    forwards: int = 0
    """model calls of this step"""
    forwarded_rows: int = 0
    candidates: int = 0
    trace: list[dict[str, Any]] = field(default_factory=list)

    def plan_steps(self, steps: int | None) -> None:
        self.steps = None if steps is None else split(steps, len(self.starts) - 1)

    def enter(self, masks: int, settings: Settings) -> None:
        """Begin the next block, of whose ``masks`` (or positions) the schedule is made."""
        self.block += 1
        self.block_step = 0
        if self.steps is not None:
            steps = self.steps[min(self.block, len(self.steps) - 1)]
        else:
            steps = max(1, -(-masks // (settings.tokens_per_step or 1)))
        self.quota = quota(settings.schedule, masks, steps)

    def budget(self, masks: int) -> int:
        """Tokens to commit in this step; past the schedule's end, everything."""
        return self.quota[self.block_step] if self.block_step < len(self.quota) else masks

    def count(self, rows: int) -> None:
        """One more model call, of ``rows`` rows."""
        self.forwards += 1
        self.forwarded_rows += rows

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def width(self) -> int:
        """of its longest block"""
        return max(stop - start for start, stop in pairwise(self.starts))

    def write(self, line: dict[str, Any]) -> None:
        """Add a line to the trace, and its tokens to the canvas."""
        self.trace.append(line)
        for position, token in zip(line["positions"], line["tokens"], strict=True):
            self.tokens[position] = token

    def __copy__(self) -> Row:
        return replace(self, trace=list(self.trace), tokens=list(self.tokens))


def share_costs(rows: Sequence[Row]) -> None:
    """Rows that serve one request (beams) all carry what the step cost it: their canvases ride in the same calls."""
    families: dict[int, list[Row]] = {}
    for row in rows:
        families.setdefault(row.request, []).append(row)
    for family in families.values():
        forwards, spent = max(r.forwards for r in family), sum(r.forwarded_rows for r in family)
        candidates = sum(r.candidates for r in family)
        for row in family:
            row.forwards, row.forwarded_rows, row.candidates = forwards, spent, candidates


def open_rows(
    requests: Sequence[Request],
    spec: ModelSpec,
    block_length: int,
    grid: int | None,
    works_on: str,
) -> tuple[list[Row], State]:
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
        rows.append(Row(request.index, request.row_id, canvas, n, slots, starts))
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
        real=torch.arange(length) < lengths[:, None],
        slots=slots_mask,
        starts=starts_grid,
        blocks=block_numbers(starts_grid, length),
        prompt_length=torch.tensor([row.prompt_length for row in rows]),
        row_id=torch.tensor([row.row_id for row in rows]),
        request=torch.tensor([row.request for row in rows]),
        block=zero - 1,
        entered=zero.bool(),
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
        return state.having(entered=torch.zeros_like(state.entered), block_step=state.block_step + 1)
    none = state.starts.shape[1]  # more than the number of any block
    first = torch.where(state.masked, state.blocks, none).amin(1)
    block = torch.where(first == none, state.block, first)
    entered = block != state.block
    return state.having(block=block, entered=entered, block_step=(state.block_step + 1).masked_fill(entered, 0))


def fill_after_eos(tokens: Tensor, masked: Tensor, state: State, eos_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Masks behind the first EOS at or after the prompt's end become EOS; masks before it stay."""
    at = state.positions
    ids = torch.tensor(eos_ids, device=tokens.device)
    ends = torch.isin(tokens, ids) & state.real & ~masked & (at >= state.prompt_length[:, None])
    first = ends.to(torch.int8).argmax(1, keepdim=True)
    behind = masked & (at > first) & ends.any(1, keepdim=True)
    return tokens.masked_fill(behind, eos_ids[0]), masked & ~behind


def join(old: State, new: State) -> State:
    """The rows of both, padded to one length."""
    length = max(old.tokens.shape[1], new.tokens.shape[1])
    width = max(old.starts.shape[1], new.starts.shape[1])

    def both(name: str) -> Tensor:
        parts = [getattr(old, name), getattr(new, name)]
        if name in ("tokens", "masked", "real", "slots"):
            parts = [torch.nn.functional.pad(p, (0, length - p.shape[1])) for p in parts]
        elif name == "blocks":
            parts = [torch.nn.functional.pad(p, (0, length - p.shape[1]), value=width) for p in parts]
        elif name == "starts":
            parts = [torch.nn.functional.pad(p, (0, width - p.shape[1]), value=length) for p in parts]
        return torch.cat(parts)

    joined: dict[str, Any] = {f.name: both(f.name) for f in fields(State) if f.name != "mask_id"}
    return replace(old, **joined)
