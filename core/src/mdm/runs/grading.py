"""Grades decoded examples, in the background for tasks that return futures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice, takewhile
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.errors import MdmError, describe
from mdm.protocols.task import BaseTask, Example, Piece, Prompt
from mdm.runs.results import LARGEST, REPEAT_ROWS, ExampleResult

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.layout import Layout

MOST = 1000
"""How many grades an example may have."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as the engine gets it."""

    index: int
    example: Example
    prompt: Prompt
    layout: Layout
    canvas: Sequence[str | None] | None = None
    """The text of each id of the layout, None where it is masked."""
    repeat: int = 0

    @property
    def row(self) -> int:
        """Row id, which keys the random draws."""
        return self.index + self.repeat * REPEAT_ROWS

    def result(self, completion: str, **measured: Any) -> ExampleResult:
        """The result of this example; ``measured`` are the fields that say how it was decoded and graded."""
        example = self.example
        return ExampleResult(
            id=example.id, index=self.index, repeat=self.repeat, row=self.row, digest=digest(example),
            prompt=_prompt_text(self.prompt), completion=completion, canvas=self.canvas, grid=self.layout.grid,
            **measured,
        )  # fmt: skip


Texts = Callable[[Sequence[int]], Sequence[str]]
Record = Callable[[ExampleResult, "Result | None"], None]
"""Writes one graded example; its ``Result`` is None where it could not be decoded."""


@dataclass(frozen=True, eq=False)
class _Grading:
    """A decoded example and its grades, which may be still to come."""

    encoded: EncodedExample
    result: Result
    answer: str | Path
    seconds: float
    grades: Future[Mapping[str, float]]


def grade(task: BaseTask, example: Example, answer: str | Path) -> Future[Mapping[str, float]]:
    """The grades of a completion, or of a picture in a file, and what goes wrong with them."""
    grades: Future[Mapping[str, float]] = Future()
    try:
        given = task.grade_image(example, answer) if isinstance(answer, Path) else task.grade(example, answer)
        if isinstance(given, Future):
            return given
        grades.set_result(given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        grades.set_exception(error)
    return grades


def outcome(grades: Future[Mapping[str, float]]) -> tuple[dict[str, float], BaseException | None]:
    """What ``grade`` came to: the numbers, or what went wrong."""
    try:
        return numbers(grades.result()), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return {}, error


def numbers(grades: Mapping[str, float]) -> dict[str, float]:
    """Grades as plain numbers; raises a TypeError or ValueError for what is none, or is not finite."""
    if not isinstance(grades, Mapping):
        raise TypeError(f"grades are a mapping from names to numbers, not {type(grades).__name__}")
    found: dict[str, float] = {}
    for name, value in islice(grades.items(), MOST + 1):
        if not isinstance(name, str) or isinstance(value, (str, bytes, bytearray)) or len(found) == MOST:
            raise TypeError(f"grades are at most {MOST} numbers by names, not {name!r:.60}: {value!r:.60}")
        number = found[str.__str__(name)] = float(value)
        if not abs(number) <= LARGEST:
            raise ValueError(f"grade {name!r:.60} is {number}" + ", too large" * isfinite(number))
    return found


class Grader:
    """Grades decoded examples and passes each to ``record``, always in the calling thread.

    With ``fail_fast`` an example that cannot be decoded or graded stops the run instead of being recorded.
    ``end_tokens`` are those behind which an answer has no tokens any more; ``texts`` gives the text of each token.
    """

    def __init__(
        self, task: BaseTask, record: Record, fail_fast: bool, end_tokens: Collection[int], texts: Texts
    ) -> None:  # fmt: skip
        self._task, self._record, self._fail_fast = task, record, fail_fast
        self._end_tokens, self._texts = end_tokens, texts
        self._pending: list[_Grading] = []

    def add(self, encoded: EncodedExample, result: Result, answer: str | Path, seconds: float) -> None:
        """Grade one decoded example. It is recorded before this returns, or as soon as its grades are there.

        Args:
            answer: the completion, or the file of the picture.
        """
        self._pending.append(_Grading(encoded, result, answer, seconds, grade(self._task, encoded.example, answer)))
        self.collect()

    def fail(self, encoded: EncodedExample, error: BaseException, seconds: float) -> None:
        """Record one example that could not be decoded."""
        self._check_fail_fast(encoded, "decoded", error)
        costs = {"tokens": 0, "cumulative_entropy": 0.0, "forwards": 0, "rows": 0}
        self._record(encoded.result("", metrics={}, seconds=seconds, error=describe(error), **costs), None)

    def collect(self, to_the_end: bool = False) -> None:
        """Record what is graded so far; with ``to_the_end``, wait for the rest."""
        self._record_graded()
        while to_the_end and self._pending:
            wait([grading.grades for grading in self._pending], return_when=FIRST_COMPLETED)
            self._record_graded()

    def _record_graded(self) -> None:
        ended: list[str] = []
        for grading in [grading for grading in self._pending if grading.grades.done()]:
            metrics, error = outcome(grading.grades)
            try:
                metrics |= self._measured(grading.encoded, grading.result)
            except Exception as broken:
                metrics, error = {}, error or broken
            self._pending.remove(grading)
            if error is not None:
                self._check_fail_fast(grading.encoded, "graded", error)
            result, is_image = grading.result, isinstance(grading.answer, Path)
            example = grading.encoded.result(
                "" if is_image else str(grading.answer), metrics=metrics, tokens=len(result.tokens),
                image="/".join(Path(grading.answer).parts[-2:]) if is_image else None,
                cumulative_entropy=float(result.cumulative_entropy), forwards=result.forwards, rows=result.rows,
                tokens_until_eos=sum(1 for _ in takewhile(lambda token: token not in self._end_tokens, result.tokens)),
                block_steps=result.block_steps, seconds=grading.seconds, error=describe(error) if error else None,
            )  # fmt: skip
            self._record(example, result)
            if error is not None and not isinstance(error, Exception):
                ended.append(f"grading example {example.id} ended the run: {example.error}")
        if ended:  # such as SystemExit; all that is graded is recorded first
            raise MdmError(ended[0])

    def _measured(self, encoded: EncodedExample, result: Result) -> dict[str, float]:
        """What the task measures of how an answer was decoded."""
        if not self._task.measures:
            return {}
        steps = dict(zip(result.places, result.step_map, strict=True))
        texts = self._texts(result.sequence[encoded.layout.context :])
        pieces = [Piece(text, steps.get(place, -1)) for place, text in enumerate(texts, encoded.layout.context)]
        found = numbers(self._task.measure(encoded.example, pieces))
        return {name: found[name] for name in self._task.measures}

    def _check_fail_fast(self, encoded: EncodedExample, what: str, error: BaseException) -> None:
        if self._fail_fast:
            raise MdmError(f"example {encoded.example.id} could not be {what}: {describe(error)}") from error


def digest(example: Example) -> str:
    """By which two runs can tell whether an example's id means the same example in both."""
    content = json.dumps([dict(example.inputs), example.reference], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _prompt_text(prompt: Prompt) -> str:
    if isinstance(prompt.context, str):
        return prompt.context + prompt.answer
    turns = "\n".join(f"{message.role}: {message.text}" for message in prompt.context)
    return f"{turns}\nassistant: {prompt.answer}"
