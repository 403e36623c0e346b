"""Asks the questions that have no answer yet, and adds up the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import click
from mdm.data import validate
from mdm.errors import MdmError, printable
from mdm.runs import files
from mdm.runs.summary import wilson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mdm_writing.endpoint import Answer
from mdm_writing.entrants import Key
from mdm_writing.questions import Question

KEPT = 100_000
"""Characters of an answer that the log keeps."""
PATIENCE = 10.0
"""Seconds that requests under way are given after a Ctrl-C: they may have been paid for."""


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


class Judgement(BaseModel):
    """A line of the log."""

    model_config = ConfigDict(strict=True)
    key: str
    example: str
    repeat: int
    first: str
    second: str | None
    verdict: Annotated[float | None, Field(ge=0, le=10)]
    """None: malformed."""
    answer: str
    """The end of what was sent, control characters escaped; of a reply that is no chat completion, its beginning."""
    fault: str | None = None
    """Why the reply was no chat completion."""
    prompt_tokens: Annotated[int | None, BeforeValidator(_count)]
    """None: the endpoint did not say it in plain numbers."""
    completion_tokens: Annotated[int | None, BeforeValidator(_count)]

    @classmethod
    def of(cls, key: str, question: Question, answer: Answer) -> Judgement:
        """What is written down of an answer."""
        malformed = answer.fault is not None
        text = printable(answer.text[:KEPT] if malformed else answer.text[-KEPT:])
        return cls(
            key=key, example=question.example[0], repeat=question.example[1], first=question.first,
            second=question.second, verdict=None if malformed else question.verdict(answer.text), answer=text,
            fault=None if answer.fault is None else printable(answer.fault), prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )  # fmt: skip


class Book:
    """The judgements on disk: an append-only log, one entry for each question to each judge.

    Raises:
        MdmError: a line of the log is no judgement.
    """

    def __init__(self, path: Path, retry_malformed: bool) -> None:
        self.path = path
        self.by_key: dict[str, Judgement] = {}
        self.bought: list[Judgement] = []
        """added by this process"""
        for number, line in enumerate(files.json_lines(path), 1):
            record = validate(line, Judgement, f"{path}, line {number}")
            if record.verdict is not None or not retry_malformed:
                self.by_key[record.key] = record
        files.write_lines(path, files.json_lines(path))  # without a line that a kill tore
        self._log = files.Log(path)

    def add(self, judgement: Judgement) -> None:
        self._log.append(judgement.model_dump(exclude={"fault"} if judgement.fault is None else None))
        self.by_key[judgement.key] = judgement
        self.bought.append(judgement)

    def close(self) -> None:
        self._log.close()


@contextmanager
def opened(folder: Path, retry_malformed: bool) -> Iterator[Book]:
    """The log in ``folder``, locked against other processes."""
    with files.os_errors_as_mdm_errors(folder, "create"):
        folder.mkdir(parents=True, exist_ok=True)
    with files.exclusive_lock(folder):
        book = Book(folder / "judgements.jsonl", retry_malformed)
        try:
            yield book
        finally:
            book.close()


def settle(
    book: Book,
    questions: Sequence[Question],
    judge: str,
    ask: Callable[[str], Future[Answer]],
    workers: int,
    tick: Callable[[], None],
) -> None:
    """Ask every question that the book has no answer to.

    Each is written down as it comes. If one request fails for good, those under way are still waited for and kept;
    after a Ctrl-C this is only so for a short time, and not at all after a second one.
    """
    open_questions = {q.key(judge): q for q in questions if q.key(judge) not in book.by_key}
    waiting = iter(open_questions.items())
    running: dict[Future[Answer], tuple[str, Question]] = {}
    failure: BaseException | None = None

    def collect(patience: float | None = None) -> bool:
        """Write down what has come; False where nothing has within ``patience``."""
        nonlocal failure
        done = wait(running, patience, FIRST_COMPLETED).done
        for future in done:
            key, question = running[future]
            if (error := future.exception()) is not None:
                failure = failure or error
            elif key not in book.by_key:
                book.add(Judgement.of(key, question, future.result()))
                tick()
            del running[future]  # last: an interrupt before it finds the answer here again
        return bool(done)

    try:
        while True:
            while failure is None and len(running) < workers and (following := next(waiting, None)):
                running[ask(following[1].text)] = following
            if not running:
                break
            collect()
    except KeyboardInterrupt:
        click.echo(
            f"mdm: {len(running)} requests are under way, waiting up to {PATIENCE:g} s for them; "
            "Ctrl-C again ends at once", err=True,
        )  # fmt: skip
        end = time.monotonic() + PATIENCE
        while running and collect(max(0.0, end - time.monotonic())):
            pass
        raise
    if failure is not None:
        raise failure


def verdicts(book: Book, questions: Iterable[Question], judge: str) -> dict[Question, float | None]:
    """What is known of each question; an unanswered one is left out.

    Raises:
        MdmError: the book holds what is no verdict on one.
    """
    known: dict[Question, float | None] = {}
    for question in questions:
        if question.same:
            known[question] = 0.5
        elif (record := book.by_key.get(question.key(judge))) is not None:
            if not question.allows(record.verdict):
                raise MdmError(
                    f"{book.path}: verdict {record.verdict:g} on example {record.example} is none that was asked for: "
                    "remove the line, and it is asked again"
                )
            known[question] = record.verdict
    return known


def win_rate(first: str, second: str, known: Mapping[Question, float | None]) -> dict[str, Any]:
    """How ``second`` does against ``first``. Only examples judged in both orders count.

    An example's points are the mean of its two judgements: above a half a win, a half a tie. The win rate is the mean
    of the points, its interval Wilson's over examples.
    """
    points: dict[Key, list[float]] = {}
    leading: list[float] = []
    for question, verdict in known.items():
        if verdict is None or {question.first, question.second} != {first, second}:
            continue
        points.setdefault(question.example, []).append(verdict if question.first == second else 1 - verdict)
        leading.append(verdict)
    whole = {key: both for key, both in points.items() if len(both) == 2}
    means = [fmean(both) for both in whole.values()]
    return {
        "baseline": first,
        "challenger": second,
        "examples": len(means),
        "wins": sum(mean > 0.5 for mean in means),
        "ties": sum(mean == 0.5 for mean in means),
        "losses": sum(mean < 0.5 for mean in means),
        "win_rate": fmean(means) if means else None,
        "win_rate_ci95": list(wilson(sum(means), len(means))),
        "agreement": fmean(both[0] == both[1] for both in whole.values()) if whole else None,
        "first_shown_wins": fmean(leading) if leading else None,
    }


def score(label: str, known: Mapping[Question, float | None]) -> dict[str, Any]:
    """The mean rating of one entrant with its interval (normal, over examples)."""
    values = [v for q, v in known.items() if q.second is None and q.first == label and v is not None]
    half = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else None
    mean = fmean(values) if values else None
    interval = None if mean is None or half is None else [mean - half, mean + half]
    return {"entrant": label, "examples": len(values), "score": mean, "score_ci95": interval}


def spending(bought: Iterable[Judgement], price_in: float | None, price_out: float | None) -> dict[str, Any]:
    """Requests and tokens, as far as they are known, and their price where prices are given (per million tokens)."""
    records = list(bought)
    asked = sum(record.prompt_tokens or 0 for record in records)
    answered = sum(record.completion_tokens or 0 for record in records)
    priced = price_in is not None and price_out is not None
    return {
        "judgements": len(records),
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "cost": ((price_in or 0) * asked + (price_out or 0) * answered) / 1e6 if priced else None,
    }
