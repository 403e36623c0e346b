"""The trace: what each step did, enough to replay the tokens and to recompute the cumulative entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, NoReturn

from mdm.engine.rows import RowRecord
from mdm.models.transfer import Array, to_host
from mdm.protocols.hooks import PAID, Line, StepEvent
from mdm.protocols.sampler import CandidateScores, Commit
from mdm.protocols.scores import Scores
from torch import Tensor

KINDS = ("commit", "bypass", "edit", "remask")
"""What a sampler does to a position: commits a token, commits one without its usual deliberation, replaces a committed
token, or masks it again. What the engine fills in behind an end token is a ``fill``."""


def cumulative_entropy(lines: Sequence[Line]) -> float:
    """The entropy paid for the tokens of a trace (nats): commits and bypasses count."""
    return float(sum(sum(line["entropy"]) for line in lines if line["kind"] in PAID))


Logits = tuple[list[int], Tensor]
"""Positions that were scored, and float32 ``[N, V]`` for these."""
OnRow = Callable[[RowRecord, list[Line], Logits | None], None]
Refuse = Callable[[RowRecord, int, str, int], NoReturn]
"""Raises an error for a row and a step, whose scores are "not finite", or whose commit is a "strange" token or "stray"
at a position (the number given), or came with "foreign" scores."""


@dataclass(frozen=True)
class _Pending:
    """What is still on the device of a step, or of scores that were seen in it."""

    rows: Sequence[RowRecord]
    facts: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Tensor]


class Recorder:
    """Buffers trace tensors on the device; they are copied to the host with the next transfer, and written when asked.

    Args:
        fill_token: the token that is filled in behind an end token.
        on_step: called with each step's event, if given; what it does to the lines changes nothing.
        on_row: called with each row as a step leaves it, the lines of this step, and the logits it was recorded with.
        full: whether lines also carry confidences and the candidates that were compared.
        vocab_size: tokens are below it.
    """

    def __init__(
        self, mask_id: int, fill_token: int | None, on_step: Callable[[StepEvent], None] | None, *, full: bool = False,
        vocab_size: int, on_row: OnRow | None = None,
    ) -> None:  # fmt: skip
        self.mask_id, self.fill_token, self.on_step, self.full = mask_id, fill_token, on_step, full
        self.on_row = on_row
        self.vocab_size = vocab_size
        self._pending: list[_Pending] = []
        self._arrived: list[tuple[_Pending, dict[str, Array]]] = []

    def watch(self, rows: Sequence[RowRecord], scores: Scores) -> None:
        """Have an error raised for rows whose ``scores``, ``[B, K]`` or ``[B, N, K]``, are not finite."""
        entropies = scores.entropy.where(scores.valid, 0.0)
        steps = [{"step": row.step} for row in rows]
        self._pending.append(
            _Pending(tuple(rows), steps, {"watched": entropies.sum(1 if entropies.dim() == 2 else (1, 2))})
        )

    def record(
        self, rows: Sequence[RowRecord], scores: Scores, where: Tensor, commit: Commit, before: Tensor | None,
        changed: Mapping[str, Tensor], doubts: Mapping[str, Tensor], logits: Sequence[Logits | None],
    ) -> None:  # fmt: skip
        """One step of all rows.

        Args:
            where: bool ``[B, K]``, the scored positions that got a token.
            before: int64 ``[B, K]``, the tokens that stood there; None where all were masks.
            changed: bool ``[B, L]`` each: masks ``filled`` behind an end token, and end tokens ``emptied`` again.
            doubts: where the commit is wrong: ``stray`` positions, bool ``[B, K]``; ``foreign`` scores, bool ``[B]``.
            logits: of each row, for ``on_row``.
        """
        facts = [
            {
                "row": row.row_id,
                "step": row.step,
                "candidates": row.candidates,
                "forwards": row.forwards,
                "rows": row.forwarded_rows,
                "logits": own,
            }
            for row, own in zip(rows, logits, strict=True)
        ]
        columns = {"positions": scores.positions, "where": where, "tokens": commit.tokens, "entropy": scores.entropy}
        optional = {"bypass": commit.bypass, "before": before, **changed, **doubts}
        columns |= {name: value for name, value in optional.items() if value is not None}
        if self.full:
            columns["confidence"] = scores.confidence
            if commit.candidate_scores is not None:
                compared = commit.candidate_scores
                columns |= {f"candidates.{f.name}": getattr(compared, f.name) for f in fields(CandidateScores)}
        self._pending.append(_Pending(tuple(rows), facts, columns))

    def fetch(self, *more: Tensor) -> list[Array]:
        """``more`` on the host; what is pending comes in the same transfer."""
        pending, self._pending = self._pending, []
        tensors = [*more, *(t for step in pending for t in step.columns.values())]
        arrays = to_host(tensors) if tensors else []
        values = iter(arrays[len(more) :])
        self._arrived += [(step, {name: next(values) for name in step.columns}) for step in pending]
        return arrays[: len(more)]

    def write(self, refuse: Refuse) -> None:
        """Write what has arrived into the rows' traces."""
        arrived, self._arrived = self._arrived, []
        for step, columns in arrived:
            if "watched" in columns:
                _check_scores(step, columns["watched"], refuse)
                continue
            self._check_commit(step, columns, refuse)
            lines = []
            for b, (row, facts) in enumerate(zip(step.rows, step.facts, strict=True)):
                own = self._lines(facts, {name: column[b] for name, column in columns.items()})
                for line in own:
                    row.write(line)
                lines += own
                if self.on_row is not None:
                    self.on_row(row, own, facts["logits"])
            if self.on_step is not None:
                # A plain line is copied a list at a time: most steps of a run are seen by nobody but its progress.
                copies = (deepcopy(line) if self.full else _copied(line) for line in lines)
                self.on_step(StepEvent(tuple(copies)))

    def _check_commit(self, step: _Pending, columns: Mapping[str, Array], refuse: Refuse) -> None:
        tokens = columns["tokens"]
        wrong = {"stray": columns["stray"], "foreign": columns.get("foreign")}
        if tokens.size and (tokens.min() < 0 or tokens.max() >= self.vocab_size):
            wrong["strange"] = columns["where"] & ((tokens < 0) | (tokens >= self.vocab_size))
        for what, found in wrong.items():
            if found is not None and found.any():
                b, *place = (int(index[0]) for index in found.nonzero())
                number = columns["positions" if what == "stray" else "tokens"][b, place[0]] if place else 0
                refuse(step.rows[b], step.facts[b]["step"], what, int(number))

    def _lines(self, facts: Mapping[str, Any], column: Mapping[str, Array]) -> list[Line]:
        """The lines of one row's step, one for each kind; its costs stand in the first."""
        usual = "bypass" if column.get("bypass") else "commit"
        indices: dict[str, list[int]] = {}
        for i in column["where"].nonzero()[0].tolist():
            kind = usual
            if column["tokens"][i] == self.mask_id:
                kind = "remask"
            elif "before" in column and column["before"][i] != self.mask_id:
                kind = "edit"
            indices.setdefault(kind, []).append(i)
        lines = [self._line(facts, column, kind, indices[kind]) for kind in KINDS if kind in indices]
        lines = lines or [self._line(facts, column, usual, [])]
        if "confidence" in column:
            lines[0]["weighed"] = _weighed(column) if "candidates.where" in column else []
        if "emptied" in column and column["emptied"].any():
            emptied = self._filled_line(facts, "remask", column, "emptied", self.mask_id)
            if lines[-1]["kind"] == "remask":
                for name in lines[-1].keys() & {"positions", "tokens", "entropy", "confidence"}:
                    lines[-1][name] += emptied[name]
            else:
                lines.append(emptied)
        if "filled" in column and column["filled"].any():
            lines.append(self._filled_line(facts, "fill", column, "filled", self.fill_token))
        for line in lines[1:]:
            line |= {"candidates": 0, "forwards": 0, "rows": 0}
        return lines

    def _line(self, facts: Mapping[str, Any], column: Mapping[str, Array], kind: str, index: list[int]) -> Line:
        line: Line = {
            "row": facts["row"],
            "step": facts["step"],
            "positions": column["positions"][index].tolist(),
            "tokens": column["tokens"][index].tolist(),
            "entropy": column["entropy"][index].tolist(),
            "kind": kind,
            "candidates": facts["candidates"],
            "forwards": facts["forwards"],
            "rows": facts["rows"],
        }
        if "confidence" in column:
            line |= {"confidence": column["confidence"][index].tolist(), "weighed": []}
        return line

    def _filled_line(
        self, facts: Mapping[str, Any], kind: str, column: Mapping[str, Array], where: str, token: int | None
    ) -> Line:
        """What the sampler did not decide: one ``token`` at all positions of the column ``where``, at no cost."""
        positions = column[where].nonzero()[0].tolist()
        count = len(positions)
        line: Line = {
            "row": facts["row"], "step": facts["step"], "positions": positions, "tokens": [token] * count,
            "entropy": [0.0] * count, "kind": kind,
        }  # fmt: skip
        return line | ({"confidence": [1.0] * count, "weighed": []} if "confidence" in column else {})


def _copied(line: Line) -> Line:
    return {name: value.copy() if isinstance(value, list) else value for name, value in line.items()}


def _weighed(column: Mapping[str, Array]) -> list[Line]:
    """The candidates of a row that were compared."""
    return [
        {
            "positions": column["positions"][column["candidates.where"][n]].tolist(),
            "J": column["candidates.value"][n].item(),
            "C": column["candidates.cost"][n].item(),
            "H": column["candidates.uncertainty"][n].item(),
        }
        for n in column["candidates.valid"].nonzero()[0]
    ]


def _check_scores(step: _Pending, entropies: Array, refuse: Refuse) -> None:
    if not isfinite(entropies.sum()):
        for row, facts, value in zip(step.rows, step.facts, entropies.tolist(), strict=True):
            if not isfinite(value):
                refuse(row, facts["step"], "not finite", 0)
