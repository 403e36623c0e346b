"""What happened, step by step: enough to replay the tokens and to recompute the cumulative entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mdm.canvas import Row
from mdm.state import Commit, Scores, State, Weighed
from torch import Tensor

Line = dict[str, Any]
"""One line of trace.jsonl: row, step, positions, tokens, entropy, kind, candidates, forwards, rows.

A full trace adds ``confidence``, a list beside ``entropy``, and ``weighed``: of each candidate that was compared its
``positions``, ``J`` (what the sampler maximised), ``C`` (entropy paid) and ``H`` (state uncertainty left), in nats.
"""

DETAIL = ("confidence", "weighed")


def plain(line: Line) -> Line:
    """A line without what only a full trace has."""
    return {key: value for key, value in line.items() if key not in DETAIL}


@dataclass(frozen=True)
class StepEvent:
    """One step of all rows, as given to ``on_step``: the trace lines that the step added."""

    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Pending:
    rows: Sequence[Row]
    facts: Sequence[Line]
    at: Tensor
    where: Tensor
    tokens: Tensor
    entropy: Tensor | None
    bypass: Tensor | None
    confidence: Tensor | None = None
    weighed: Weighed | None = None


class Recorder:
    """Collects steps on the device and brings them to the host when somebody needs them.

    ``full``: the lines also say how confident the model was and what was weighed.
    """

    def __init__(self, mask_id: int, on_step: Callable[[StepEvent], None] | None, *, full: bool = False) -> None:
        self.mask_id = mask_id
        self.on_step = on_step
        self.full = full
        self._pending: list[_Pending] = []

    def commit(self, rows: Sequence[Row], state: State, scores: Scores, where: Tensor, commit: Commit) -> None:
        facts = [
            {
                "row": row.row_id,
                "step": row.step,
                "candidates": row.candidates,
                "forwards": row.forwards,
                "rows": row.forwarded_rows,
            }
            for row in rows
        ]
        for row in rows:
            row.step += 1
        detail = (scores.confidence, commit.weighed) if self.full else ()
        self._add(_Pending(tuple(rows), facts, scores.at, where, commit.tokens, scores.entropy, commit.bypass, *detail))

    def fill(self, rows: Sequence[Row], state: State, fills: Tensor, tokens: Tensor) -> None:
        facts = [{"row": row.row_id, "step": row.step - 1, "candidates": 0, "forwards": 0, "rows": 0} for row in rows]
        at = state.positions.expand_as(fills)
        self._add(_Pending(tuple(rows), facts, at, fills, tokens, None, None))

    def _add(self, pending: _Pending) -> None:
        self._pending.append(pending)
        if self.on_step is not None:
            self.on_step(StepEvent(tuple(self.flush())))

    def flush(self) -> list[Line]:
        """Write what is pending into the rows' traces."""
        added = []
        for item in self._pending:
            fill = item.entropy is None
            at, where, tokens = item.at.tolist(), item.where.tolist(), item.tokens.tolist()
            entropy = item.entropy.tolist() if item.entropy is not None else None
            bypass = item.bypass.tolist() if item.bypass is not None else None
            confidence = item.confidence.tolist() if item.confidence is not None else None
            weighed = _candidates(item.weighed, at) if item.weighed is not None else None
            for b, (row, facts) in enumerate(zip(item.rows, item.facts, strict=True)):
                chosen = [k for k, w in enumerate(where[b]) if w]
                if fill and not chosen:
                    continue
                ids = [tokens[b][k] for k in chosen]
                kind = "fill" if fill else "bypass" if bypass and bypass[b] else "commit"
                if ids and all(t == self.mask_id for t in ids):
                    kind = "remask"
                line: Line = {
                    "row": facts["row"],
                    "step": facts["step"],
                    "positions": [at[b][k] for k in chosen],
                    "tokens": ids,
                    "entropy": [entropy[b][k] if entropy else 0.0 for k in chosen],
                    "kind": kind,
                    "candidates": facts["candidates"],
                    "forwards": facts["forwards"],
                    "rows": facts["rows"],
                }
                if self.full:
                    line["confidence"] = [confidence[b][k] if confidence else 1.0 for k in chosen]
                    line["weighed"] = weighed[b] if weighed else []
                row.trace.append(line)
                added.append(line)
        self._pending.clear()
        return added


def _candidates(weighed: Weighed, at: list[list[int]]) -> list[list[Line]]:
    """Of each row the candidates that were compared."""
    columns = (weighed.where, weighed.valid, weighed.value, weighed.cost, weighed.uncertainty)
    where, valid, value, cost, uncertainty = (column.tolist() for column in columns)
    return [
        [
            {
                "positions": [at[b][k] for k, w in enumerate(where[b][n]) if w],
                "J": value[b][n],
                "C": cost[b][n],
                "H": uncertainty[b][n],
            }
            for n, compared in enumerate(valid[b])
            if compared
        ]
        for b in range(len(at))
    ]
