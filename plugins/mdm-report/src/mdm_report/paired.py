"""Statistics of two variants that decoded the same examples.

They are scipy's: a percentile bootstrap over examples for the interval of a mean difference, and the exact binomial
test of wins against losses, which on accuracies of 0 and 1 is McNemar's exact test (McNemar 1947).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from mdm.errors import MdmError
from mdm.runs.results import ExampleResult

from mdm_report.runs import Key

RESAMPLES = 9999
"""Bootstrap resamples."""


def paired(
    keys: Iterable[Key],
    ours: Mapping[Key, list[ExampleResult]],
    baseline: Mapping[Key, list[ExampleResult]],
    metric: str,
) -> dict[str, Any]:
    """Wins, ties and losses of ours against the baseline, with mean differences (ours minus the baseline's).

    An example with repeats counts once, with the mean of its repeats. Entropies (nats) are compared where both decoded
    the example.

    Raises:
        MdmError: scipy is not installed.
    """
    stats, keys = _scipy_stats(), list(keys)
    grades = [(_grade(ours[key], metric), _grade(baseline[key], metric)) for key in keys]
    differences = [a - b for a, b in grades]
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    pairs = ((_entropy(ours[key]), _entropy(baseline[key])) for key in keys)
    entropy_differences = [a - b for a, b in pairs if a is not None and b is not None]
    return {
        "wins": wins,
        "ties": len(grades) - wins - losses,
        "losses": losses,
        "difference": fmean(differences),
        "difference_ci95": _bootstrap(differences),
        "p_value": float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        "test": "mcnemar-exact" if {x for pair in grades for x in pair} <= {0.0, 1.0} else "sign-exact",
        "entropy_difference": fmean(entropy_differences) if entropy_differences else 0.0,
        "entropy_difference_ci95": _bootstrap(entropy_differences),
    }


def _grade(results: Sequence[ExampleResult], metric: str) -> float:
    return fmean(result.grade(metric) for result in results)


def _entropy(results: Sequence[ExampleResult]) -> float | None:
    """Mean over the repeats that were decoded; None where there is none, or an entropy that is no number."""
    decoded = [result.cumulative_entropy for result in results if result.decoded]
    return fmean(decoded) if decoded and all(map(isfinite, decoded)) else None


def _bootstrap(differences: Sequence[float]) -> list[float]:
    """The 95 % percentile interval of a mean. The generator is seeded: the same differences give the same interval."""
    if len(set(differences)) < 2:  # nothing varies
        return [differences[0], differences[0]] if differences else [0.0, 0.0]
    import numpy

    interval = _scipy_stats().bootstrap(
        (numpy.asarray(differences),), numpy.mean, n_resamples=RESAMPLES, method="percentile",
        batch=max(1, 10**7 // len(differences)), rng=numpy.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return [float(interval.low), float(interval.high)]


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MdmError("comparing needs scipy: pip install scipy") from error
    return stats
