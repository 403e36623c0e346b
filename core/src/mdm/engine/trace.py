"""What happened, step by step: enough to replay the tokens and to recompute the cumulative entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

from mdm.engine.rows import RowRecord
from mdm.models.transfer import Array, to_host
from mdm.protocols.hooks import Line, StepEvent
from mdm.protocols.model import ModelSpec
from mdm.protocols.sampler import CandidateScores, Commit
from mdm.protocols.scores import Scores
from torch import Tensor


@dataclass(frozen=True)
class _Pending:
    """A step's commit, or what was filled behind an end token in it; the tensors are still on the device."""

    rows: Sequence[RowRecord]
    facts: Sequence[Line]
    columns: Mapping[str, Tensor]
    filled: int | None = None
    """the token that was filled in; None: a commit"""


class Recorder:
    """Holds on to steps on the device; whoever transfers something takes them along.

    ``full``: the lines also say how confident the model was and what was weighed.
    """

    def __init__(self, spec: ModelSpec, on_step: Callable[[StepEvent], None] | None, *, full: bool = False) -> None:
        self.mask_id = spec.mask_id
        self.on_step = on_step
        self.full = full
        self._pending: list[_Pending] = []

    def commit(self, rows: Sequence[RowRecord], scores: Scores, where: Tensor, commit: Commit) -> None:
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
        columns = {"at": scores.positions, "where": where, "tokens": commit.tokens, "entropy": scores.entropy}
        if commit.bypass is not None:
            columns["bypass"] = commit.bypass
        if self.full:
            columns["confidence"] = scores.confidence
            if commit.candidate_scores is not None:
                columns |= {
                    f"weighed.{f.name}": getattr(commit.candidate_scores, f.name) for f in fields(CandidateScores)
                }
        self._pending.append(_Pending(tuple(rows), facts, columns))

    def fill(self, rows: Sequence[RowRecord], fills: Tensor, token: int) -> None:
        """``fills`` bool ``[B, L]``: what was filled in the step that was just committed, with ``token``."""
        facts = [{"row": row.row_id, "step": row.step - 1, "candidates": 0, "forwards": 0, "rows": 0} for row in rows]
        self._pending.append(_Pending(tuple(rows), facts, {"where": fills}, token))

    def take(self, *more: Tensor) -> list[Array]:
        """``more`` on the host; what is pending comes in the same transfer, and is written into the rows' traces."""
        pending, self._pending = self._pending, []
        tensors = [*more, *(t for item in pending for t in item.columns.values())]
        arrays = to_host(tensors) if tensors else []
        found, rest = arrays[: len(more)], iter(arrays[len(more) :])
        for item in pending:
            lines = self._lines(item, {name: next(rest) for name in item.columns})
            if self.on_step is not None:
                self.on_step(StepEvent(tuple(lines)))
        return found

    def _lines(self, item: _Pending, columns: Mapping[str, Array]) -> list[Line]:
        fill, added = item.filled is not None, []
        for b, (row, facts) in enumerate(zip(item.rows, item.facts, strict=True)):
            column = {name: values[b] for name, values in columns.items()}
            chosen = column["where"].nonzero()[0]
            if fill and not len(chosen):
                continue
            ids = [item.filled] * len(chosen) if fill else column["tokens"][chosen].tolist()
            kind = "fill" if fill else "bypass" if column.get("bypass") else "commit"
            if ids and all(t == self.mask_id for t in ids):
                kind = "remask"
            line: Line = {
                "row": facts["row"],
                "step": facts["step"],
                "positions": (chosen if fill else column["at"][chosen]).tolist(),
                "tokens": ids,
                "entropy": [0.0] * len(ids) if fill else column["entropy"][chosen].tolist(),
                "kind": kind,
                "candidates": facts["candidates"],
                "forwards": facts["forwards"],
                "rows": facts["rows"],
            }
            if self.full:
                line["confidence"] = [1.0] * len(ids) if fill else column["confidence"][chosen].tolist()
                line["weighed"] = _weighed(column) if "weighed.where" in column else []
            row.write(line)
            added.append(line)
        return added


def _weighed(column: Mapping[str, Array]) -> list[Line]:
    """The candidates of a row that were compared."""
    return [
        {
            "positions": column["at"][column["weighed.where"][n]].tolist(),
            "J": column["weighed.value"][n].item(),
            "C": column["weighed.cost"][n].item(),
            "H": column["weighed.uncertainty"][n].item(),
        }
        for n in column["weighed.valid"].nonzero()[0]
    ]
