"""Summary statistics of one variant: a row of ``summary.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum, isfinite, sqrt
from statistics import NormalDist, fmean, median, stdev
from typing import Any

from mdm.runs.grading import numbers
from mdm.runs.results import ExampleResult

Aggregate = Callable[[Mapping[str, Sequence[Mapping[str, float]]]], Mapping[str, float]]
"""From example id -> the grades of its repeats, in order, to further metrics such as pass@k."""

DIGITS = 6
"""Decimals of a mean entropy. Further ones are float32 rounding, which depends on the shape of the batch."""


def wilson(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, which is also right near 0 and 1 and for few trials."""
    if trials == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(
    results: Iterable[ExampleResult], metric: str, expected: int, repeats: int = 1, aggregate: Aggregate | None = None
) -> dict[str, Any]:
    """Summarise the results of one variant.

    The entropy is a mean over the decoded examples; forwards, rows, tokens and seconds (wall time, summed over
    processes) are sums. Tokens per forward are those of an example by the forwards that it took part in, so that they
    do not depend on the batch; they are given for all tokens, and for those before the first end token.

    A grade that is NaN counts as nothing, as one that failed does. Where a grade lies outside of 0 to 1 the accuracy is
    no share (``is_share``), and its interval is the normal one. An entropy that is not finite makes the mean None.

    Args:
        results: what is written so far, in any order.
        metric: the grade that is reported as the accuracy.
        expected: how many examples the run has.
        repeats: how often each of them is decoded. The accuracy is then the mean over the repeats, with its standard
            error. The interval counts an example's repeats as one trial, since they are not independent.
        aggregate: computes the task's metrics over repeats.
    """
    done = sorted(results, key=lambda result: (result.index, result.repeat))
    examples = [list(group) for _, group in groupby(done, key=lambda result: result.index)]
    graded = [result for result in done if result.graded(metric)]
    grades = [(result.index, result.repeat, result.grade(metric)) for result in graded]
    accuracy = _mean(grade for *_, grade in grades)
    by_repeat = [
        _mean(grade for _, repeat, grade in grades if repeat == wanted)
        for wanted in sorted({repeat for _, repeat, _ in grades})
    ]
    is_share = all(0 <= grade <= 1 for *_, grade in grades)
    names = {name: None for result in graded for name in result.metrics}
    metrics = {name: _mean(result.grade(name) for result in graded) for name in names}
    if aggregate is not None and graded:
        groups = groupby(graded, key=lambda result: result.id)
        metrics |= numbers(
            aggregate({example: [dict(result.metrics) for result in group] for example, group in groups})
        )
    tokens, seconds = sum(result.tokens for result in done), fsum(result.seconds for result in done)
    forwards = sum(result.forwards for result in done)
    entropy = _mean(result.cumulative_entropy for result in done if result.decoded)
    known = [result.tokens_until_eos for result in done if result.decoded]
    until_eos = None if None in known else sum(map(int, filter(None, known)))
    return {
        "examples": len(examples), "repeats": repeats, "done": len(done), "expected": expected * repeats,
        "complete": len(done) == expected * repeats, "graded": len(graded),
        "accuracy": accuracy if graded or not done else None, "is_share": is_share,
        "accuracy_ci95": _interval(accuracy, [_mean(of) for of in _by_index(grades)], is_share),
        "accuracy_by_repeat": by_repeat,
        "accuracy_se": stdev(by_repeat) / sqrt(len(by_repeat)) if len(by_repeat) > 1 else None,
        "metric": metric, "metrics": metrics, "errors": sum(result.error is not None for result in done),
        "first_error": next((f"{result.id}: {result.error}" for result in done if result.error is not None), None),
        "cumulative_entropy": round(entropy, DIGITS) if isfinite(entropy) else None,
        "forwards": forwards, "rows": sum(result.rows for result in done),
        "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds if seconds else 0.0,
        "tokens_per_forward": tokens / forwards if forwards else None, "tokens_until_eos": until_eos,
        "tokens_per_forward_until_eos": None if until_eos is None or not forwards else until_eos / forwards,
        "tokens_per_second_until_eos": None if until_eos is None or not seconds else until_eos / seconds,
        "steps_per_block": _distribution(steps for result in done for steps in result.block_steps or ()),
    }  # fmt: skip


def _by_index(grades: Iterable[tuple[int, int, float]]) -> list[list[float]]:
    """The grades of each example."""
    return [[grade for *_, grade in group] for _, group in groupby(grades, key=lambda grade: grade[0])]


def _interval(mean: float, examples: Sequence[float], is_share: bool) -> list[float] | None:
    """The 95 % interval of a mean: Wilson's of a share, else the normal one; None of fewer than two such examples."""
    if is_share:
        return list(wilson(mean * len(examples), len(examples)))
    if len(examples) < 2:
        return None
    half = NormalDist().inv_cdf(0.975) * stdev(examples) / sqrt(len(examples))
    return [mean - half, mean + half]


def _distribution(values: Iterable[int]) -> dict[str, Any] | None:
    """How often each value occurs, with the mean and the median; None where nothing is known."""
    counts = Counter(values)
    if not counts:
        return None
    every = sorted(counts.elements())
    return {
        "mean": fmean(every),
        "median": median(every),
        "counts": {str(value): counts[value] for value in sorted(counts)},
    }


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return fmean(numbers) if numbers else 0.0
