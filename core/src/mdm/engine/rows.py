"""What the host knows of a row, beside the state on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from mdm.engine.schedule import quota, split

if TYPE_CHECKING:
    from mdm.engine.engine import Settings


class RowCounts(NamedTuple):
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


UNSEEN = RowCounts(*[-1] * len(RowCounts._fields))
"""A row that the host has to look at first."""


@dataclass
class RowRecord:
    """What the host knows of a row: its schedule, what it spent and its trace."""

    request: int
    row_id: int
    tokens: list[int]
    """the canvas, as far as its trace has come to the host"""
    prompt_length: int
    slots: list[int]
    starts: list[int]
    facts: RowCounts = UNSEEN
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

    def __copy__(self) -> RowRecord:
        return replace(self, trace=list(self.trace), tokens=list(self.tokens))


def share_costs(rows: Sequence[RowRecord]) -> None:
    """Rows that serve one request (beams) all carry what the step cost it: their canvases ride in the same calls."""
    families: dict[int, list[RowRecord]] = {}
    for row in rows:
        families.setdefault(row.request, []).append(row)
    for family in families.values():
        forwards, spent = max(r.forwards for r in family), sum(r.forwarded_rows for r in family)
        candidates = sum(r.candidates for r in family)
        for row in family:
            row.forwards, row.forwarded_rows, row.candidates = forwards, spent, candidates
