"""Decoded examples become outcomes, graded beside the decoding where a task grades slowly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError
from mdm.protocols.task import BaseTask, Example, Prompt
from mdm.runs.results import Outcome

if TYPE_CHECKING:
    from mdm.api import Result

REPEAT_ROWS = 10**9
"""Row ids between an example's repeats: row 3000000017 is repeat 3 of example 17; repeat 0 has the example's index."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as the engine gets it."""

    index: int
    example: Example
    prompt: Prompt
    ids: list[int]
    context: int
    """How many of ``ids`` are the context, which is not graded."""
    gen_length: int
    masks: int
    canvas: Sequence[str | None] | None = None
    """The text of each id, None where it is masked."""
    repeat: int = 0

    @property
    def row(self) -> int:
        """What keys the draws."""
        return self.index + self.repeat * REPEAT_ROWS

    def outcome(self, completion: str, **facts: Any) -> Outcome:
        example = self.example
        return Outcome(
            id=example.id, index=self.index, repeat=self.repeat, row=self.row, digest=_digest(example),
            prompt=_shown(self.prompt), completion=completion, tokens=self.masks,
            canvas=self.canvas, **facts,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Waiting:
    item: EncodedExample
    result: Result
    completion: str
    seconds: float
    grades: Future[Mapping[str, float]]


class Grader:
    """Grades results and hands each outcome with its trace to ``record``, always in the thread that calls.

    With ``fail_fast`` an example that cannot be decoded or graded stops the run instead of being recorded.
    """

    def __init__(self, task: BaseTask, record: Callable[[Outcome, Sequence[Any]], None], fail_fast: bool) -> None:
        self._task, self._record, self._fail_fast = task, record, fail_fast
        self._waiting: list[_Waiting] = []

    def add(self, item: EncodedExample, result: Result, completion: str, seconds: float) -> None:
        """One decoded example: recorded before this returns, or as soon as its grades are there."""
        grades: Any = Future()
        try:
            found = self._task.grade(item.example, completion)
            if isinstance(found, Future):
                grades = found
            else:
                grades.set_result(found)
        except Exception as error:
            grades.set_exception(error)
        self._waiting.append(_Waiting(item, result, completion, seconds, grades))
        self.collect()

    def fail(self, item: EncodedExample, error: Exception, seconds: float) -> None:
        """One example that could not be decoded."""
        self._stop_at(item, "decoded", error)
        facts = {"metrics": {}, "cumulative_entropy": 0.0, "forwards": 0, "rows": 0}
        self._record(item.outcome("", seconds=seconds, error=_said(error), **facts), [])

    def collect(self, to_the_end: bool = False) -> None:
        """Record what is graded by now; ``to_the_end`` waits for the rest."""
        self._take([waiting for waiting in self._waiting if waiting.grades.done()])
        while to_the_end and self._waiting:
            ready, _ = wait([waiting.grades for waiting in self._waiting], return_when=FIRST_COMPLETED)
            self._take([waiting for waiting in self._waiting if waiting.grades in ready])

    def _take(self, ready: Sequence[_Waiting]) -> None:
        for waiting in ready:
            self._waiting.remove(waiting)
            metrics, fault = {}, None
            try:
                metrics = {name: float(value) for name, value in waiting.grades.result().items()}
            except Exception as error:
                self._stop_at(waiting.item, "graded", error)
                fault = _said(error)
            result = waiting.result
            outcome = waiting.item.outcome(
                waiting.completion, metrics=metrics, cumulative_entropy=float(result.cumulative_entropy),
                forwards=result.forwards, rows=result.rows, seconds=waiting.seconds, error=fault,
            )  # fmt: skip
            self._record(outcome, result.trace)

    def _stop_at(self, item: EncodedExample, what: str, error: Exception) -> None:
        if self._fail_fast:
            raise MdmError(f"example {item.example.id} could not be {what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _digest(example: Example) -> str:
    """Tells whether two runs mean the same by an example's id."""
    content = json.dumps([dict(example.inputs), example.reference], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _shown(prompt: Prompt) -> str:
    if isinstance(prompt.context, str):
        return prompt.context + prompt.answer
    turns = "\n".join(f"{message.role}: {message.content}" for message in prompt.context)
    return f"{turns}\nassistant: {prompt.answer}"
