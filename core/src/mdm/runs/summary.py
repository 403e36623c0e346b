"""What ``summary.json`` says of one row of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import fsum, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Any

from mdm.runs.results import Outcome

Aggregate = Callable[[Mapping[str, Sequence[Mapping[str, float]]]], Mapping[str, float]]
"""Example id -> the grades of its repeats, in order; gives further metrics (pass@k)."""

DIGITS = 6
"""Decimals of a mean entropy: those after it are the rounding of float32, and differ with a batch's shape."""


def wilson(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion: honest at 0, at 1 and for few trials."""
    if trials == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(
    outcomes: Iterable[Outcome], metric: str, expected: int, repeats: int = 1, aggregate: Aggregate | None = None
) -> dict[str, Any]:
    """Entropy is a mean over what could be decoded; forwards, rows, tokens and seconds are sums.

    Args:
        outcomes: what is done so far, in any order.
        metric: the grade that is the accuracy.
        expected: how many examples the run has.
        repeats: how often each of them is decoded. The accuracy is then the mean, with its standard error over the
            repeats; the interval takes an example's repeats as one trial, as they are not independent.
        aggregate: the task's metrics over repeats.
    """
    done = sorted(outcomes, key=lambda outcome: (outcome.index, outcome.repeat))
    count = len(done)
    examples = [list(group) for _, group in groupby(done, key=lambda outcome: outcome.index)]
    accuracy = _mean(outcome.metrics.get(metric, 0.0) for outcome in done)
    by_repeat = [
        _mean(outcome.metrics.get(metric, 0.0) for outcome in done if outcome.repeat == repeat)
        for repeat in sorted({outcome.repeat for outcome in done})
    ]
    names = {name: None for outcome in done for name in outcome.metrics}
    metrics = {name: _mean(outcome.metrics.get(name, 0.0) for outcome in done) for name in names}
    if aggregate is not None and done:
        metrics |= aggregate({group[0].id: [dict(outcome.metrics) for outcome in group] for group in examples})
    tokens, seconds = sum(outcome.tokens for outcome in done), fsum(outcome.seconds for outcome in done)
    return {
        "examples": len(examples),
        "complete": count == expected * repeats,
        "repeats": repeats,
        "accuracy": accuracy,
        "accuracy_ci95": list(wilson(accuracy * len(examples), len(examples))),
        "accuracy_by_repeat": by_repeat,
        "accuracy_se": stdev(by_repeat) / sqrt(len(by_repeat)) if len(by_repeat) > 1 else None,
        "metric": metric,
        "metrics": metrics,
        "errors": sum(outcome.error is not None for outcome in done),
        "cumulative_entropy": round(_mean(outcome.cumulative_entropy for outcome in done if outcome.decoded), DIGITS),
        "forwards": sum(outcome.forwards for outcome in done),
        "rows": sum(outcome.rows for outcome in done),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else 0.0
