"""What the host knows of a row, beside the state on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from mdm.engine.schedule import num_transfer_tokens, split
from mdm.models.transfer import Array
from mdm.protocols.hooks import Line
from mdm.protocols.settings import Settings
from torch import Tensor

if TYPE_CHECKING:
    from mdm.scoring.readout import Readout


class RowCounts(NamedTuple):
    """Per-row counts that the host needs to launch the next step, of positions where nothing else is said."""

    masked: int
    """masks of the row's block"""
    block_size: int
    scored: int
    """positions that the sampler wants scored"""
    query: int
    """positions that a forward runs"""
    window: int
    """positions that an ``Evaluate`` runs"""
    write: int
    """positions whose keys and values are stored"""
    entered: int
    """1: the row has just entered its block"""
    known: int
    """1: its scores are known, and need no forward unless something is to be stored"""
    finished: int
    watched: int = 0
    """positions whose values every layer computes"""
    picked: int = 0
    """how many of these a layer picks"""


@dataclass(frozen=True)
class NamedCounts:
    """Numbers of rows on the device, ``values`` int64 ``[F, B]``, with a name for each line."""

    names: tuple[str, ...]
    values: Tensor

    @staticmethod
    def of(sets: Mapping[str, Tensor], flags: Mapping[str, Tensor]) -> NamedCounts:
        """How many positions each of ``sets`` (bool ``[B, L]``) holds, and ``flags`` (bool ``[B]``), in one sum."""
        values = torch.cat([torch.stack([*sets.values()]).sum(-1), torch.stack([*flags.values()])])
        return NamedCounts((*sets, *flags), values)

    def __getitem__(self, name: str) -> Tensor:
        return self.values[self.names.index(name)]

    def on_host(self, values: Array) -> dict[str, list[int]]:
        """Name -> a number for each row, of the transferred ``values``."""
        return dict(zip(self.names, values.tolist(), strict=True))


def row_counts(columns: Mapping[str, Sequence[int]]) -> list[RowCounts]:
    """The counts of each row."""
    known = (columns[name] for name in RowCounts._fields if name in columns)
    return [RowCounts(*row) for row in zip(*known, strict=True)]


def common_counts(counts: Sequence[RowCounts], valid: Sequence[int]) -> RowCounts | None:
    """What all candidates that a row may commit lead to; None where they differ.

    These are the ``valid`` ones, or the first candidate where none is.
    """
    possible = [each for each, may in zip(counts, valid, strict=True) if may] or list(counts[:1])
    return possible[0] if all(each == possible[0] for each in possible) else None


MOST_IDLE = 16
"""Steps that a sampler may look ahead, one after the other, and commit nothing."""


@dataclass
class RowRecord:
    """A row's schedule, what it has cost so far, and its trace."""

    request: int
    row_id: int
    tokens: list[int]
    """the canvas, as far as its trace has come to the host"""
    prompt_length: int
    targets: list[int]
    """positions that were masked when the row began"""
    starts: list[int]
    """where each block starts, and where the last one ends"""
    unconditional_start: int = 0
    """where the prompt of guidance's unconditional branch begins"""
    known_slots: int = 0
    """visible tokens that count as slots of the row's picture"""
    settings: Settings = field(default_factory=Settings, repr=False)
    readout: Readout | None = field(default=None, repr=False)
    """what scores its positions"""
    counts: RowCounts | None = None
    """None: the host has to fetch them first"""
    next_counts: RowCounts | None = None
    """those of the next step, where a lookahead has told them"""
    block_steps: list[int] | None = None
    """steps of each block that has masks; None: they follow from the tokens per step"""
    block: int = -1
    """how many blocks were entered before this one"""
    block_step: int = 0
    steps_taken: list[int] = field(default_factory=list)
    """steps in each block that was entered"""
    step: int = 0
    schedule: tuple[int, ...] = ()
    """tokens to commit in each step of the block"""
    budget: int = 0
    """tokens to commit in this step"""
    masked_before: int = 0
    """masks of the block when the sampler last decided"""
    fewest: int = 0
    """masks that the block had at the least, and ``stalled``: steps since it came to so few"""
    stalled: int = 0
    forwards: int = 0
    """model calls of this step"""
    forwarded_rows: int = 0
    """canvases that these calls ran for this row"""
    candidates: int = 0
    """candidates that were run in this step"""
    trace: list[Line] = field(default_factory=list)

    @cached_property
    def blocks_with_masks(self) -> list[tuple[int, int]]:
        """Where the blocks to decode begin and end, in their order."""
        return [span for span in pairwise(self.starts) if any(span[0] <= p < span[1] for p in self.targets)]

    def final_stop(self) -> int:
        """The position up to which no step changes the canvas any more, as far as the trace has come to the host."""
        arrived = self.trace[-1]["step"] + 1 if self.trace else 0
        left = sum(end <= arrived for end in accumulate(self.steps_taken[: max(self.block, 0)]))
        spans = self.blocks_with_masks
        return spans[left][0] if left < len(spans) else self.length

    def split_steps(self) -> None:
        """Spread the steps of a generation over the blocks that have masks."""
        steps = self.settings.steps
        self.block_steps = None if steps is None else split(steps, len(self.blocks_with_masks))

    def enter_block(self, size: int) -> None:
        """Begin the next block and schedule its ``size`` masks (or positions)."""
        settings = self.settings
        self.block += 1
        self.block_step = self.stalled = 0
        self.fewest = self.length
        self.steps_taken.append(0)
        if self.block_steps is not None:
            steps = self.block_steps[min(self.block, len(self.block_steps) - 1)]
        else:
            steps = max(1, -(-size // (settings.tokens_per_step or 1)))
        self.schedule = num_transfer_tokens(settings.schedule or "even", size, steps, size + self.known_slots)

    def begin_step(self, masked: int) -> None:
        """Begin a step with ``masked`` masks left; past the schedule's end all of them are due."""
        self.forwards = self.forwarded_rows = self.candidates = 0
        self.next_counts = None
        self.budget = self.schedule[self.block_step] if self.block_step < len(self.schedule) else masked
        self.masked_before = masked
        self.stalled = 0 if masked < self.fewest else self.stalled + 1
        self.fewest = min(masked, self.fewest)

    def end_step(self) -> None:
        """Go on to the next step, whose counts a lookahead may have told already."""
        self.step += 1
        self.steps_taken[-1] += 1
        self.block_step += 1
        self.counts = self.next_counts

    def may_be_stuck(self) -> bool:
        """Whether the last step was to commit tokens of this block and left all its masks.

        A step that looked ahead may do so ``MOST_IDLE`` times.
        """
        assert self.counts is not None
        if not self.block_step or self.counts.entered or self.counts.finished or not self.budget:
            return False
        if self.candidates and self.stalled < MOST_IDLE:
            return False
        return self.counts.masked >= max(self.masked_before, 1)

    def committed_nothing(self) -> bool:
        """Whether the trace, if it has come to the host, says that the last step at most masked masks."""
        assert self.counts is not None
        last = [line for line in self.trace[-5:] if line["step"] == self.step - 1]
        own = [line for line in last if line["kind"] != "fill"]
        # Where as many are masked as were filled in behind an end token, tokens were masked.
        more = self.counts.masked > self.masked_before or any(
            line["positions"] for line in last if line["kind"] == "fill"
        )
        return bool(own) and not any(line["positions"] and (more or line["kind"] != "remask") for line in own)

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def width(self) -> int:
        """Length of the row's longest block."""
        return max(stop - start for start, stop in pairwise(self.starts))

    def write(self, line: Line) -> None:
        """Add a line to the trace, and its tokens to the canvas."""
        self.trace.append(line)
        for position, token in zip(line["positions"], line["tokens"], strict=True):
            self.tokens[position] = token

    def copy(self) -> RowRecord:
        """A record of a row that goes its own way from here."""
        return replace(self, trace=list(self.trace), tokens=list(self.tokens), steps_taken=list(self.steps_taken))


def count_calls(rows: Sequence[RowRecord], owners: Sequence[int | None], calls: Sequence[slice], branches: int) -> None:
    """Note what model calls cost.

    Args:
        owners: the row of each canvas that was run; None: it was run to fill the batch.
        calls: which of these canvases shared a call.
        branches: forwards of a canvas (2 with guidance).
    """
    for call in calls:
        served = [owner for owner in owners[call] if owner is not None]
        for owner in set(served):
            rows[owner].forwards += 1
        for owner in served:
            rows[owner].forwarded_rows += branches


def share_costs(rows: Sequence[RowRecord]) -> None:
    """Rows that serve one request (beams) all carry what the step cost it: their canvases ride in the same calls."""
    by_request: dict[int, list[RowRecord]] = {}
    for row in rows:
        by_request.setdefault(row.request, []).append(row)
    for beams in by_request.values():
        forwards, canvases = max(row.forwards for row in beams), sum(row.forwarded_rows for row in beams)
        candidates = sum(row.candidates for row in beams)
        for row in beams:
            row.forwards, row.forwarded_rows, row.candidates = forwards, canvases, candidates
