"""Asks the questions that have no answer yet, and adds up the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mdm.runs import files
from mdm.runs.summary import wilson

from mdm_writing.endpoint import Answer
from mdm_writing.entrants import Key
from mdm_writing.questions import Question

Judgement = dict[str, Any]
"""A line of the log: key, example, repeat, first, second, verdict (None: malformed), answer and tokens."""


class Book:
    """The judgements on disk: an append-only log, one entry for each question to each judge."""

    def __init__(self, path: Path, retry_malformed: bool) -> None:
        files.write_lines(path, files.json_lines(path))  # without a line that a kill tore
        self.by_key: dict[str, Judgement] = {}
        self.bought: list[Judgement] = []
        """added by this process"""
        for record in files.json_lines(path):
            if record["verdict"] is not None or not retry_malformed:
                self.by_key[record["key"]] = record
        self._log = files.Log(path)

    def add(self, judgement: Judgement) -> None:
        self._log.append(judgement)
        self.by_key[judgement["key"]] = judgement
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
    ask: Callable[[str], Answer],
    workers: int,
    tick: Callable[[], None],
) -> None:
    """Ask every question that the book has no answer to.

    Each is written down as it comes. If one request fails for good, those under way are still waited for and kept.
    """
    open_questions = {q.key(judge): q for q in questions if q.key(judge) not in book.by_key}
    waiting = iter(open_questions.items())
    running: dict[Future[Answer], tuple[str, Question]] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                while failure is None and len(running) < workers and (following := next(waiting, None)):
                    running[pool.submit(ask, following[1].text)] = following
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    key, question = running.pop(future)
                    error = future.exception()
                    if error is not None:
                        failure = failure or error
                        continue
                    book.add(_judgement(key, question, future.result()))
                    tick()
        except KeyboardInterrupt:  # what is under way has been paid for
            for future in wait(running).done:
                if future.exception() is None:
                    book.add(_judgement(*running[future], future.result()))
            raise
    if failure is not None:
        raise failure


def _judgement(key: str, question: Question, answer: Answer) -> Judgement:
    return {
        "key": key,
        "example": question.example[0],
        "repeat": question.example[1],
        "first": question.first,
        "second": question.second,
        "verdict": question.verdict(answer.text),
        "answer": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }


def verdicts(book: Book, questions: Iterable[Question], judge: str) -> dict[Question, float | None]:
    """What is known of each question; an unanswered one is left out."""
    known: dict[Question, float | None] = {}
    for question in questions:
        if question.same:
            known[question] = 0.5
        elif (record := book.by_key.get(question.key(judge))) is not None:
            known[question] = record["verdict"]
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
    """Requests and tokens, and their price where prices are given (per million tokens)."""
    records = list(bought)
    asked, answered = (sum(record[name] for record in records) for name in ("prompt_tokens", "completion_tokens"))
    priced = price_in is not None and price_out is not None
    return {
        "judgements": len(records),
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "cost": ((price_in or 0) * asked + (price_out or 0) * answered) / 1e6 if priced else None,
    }
