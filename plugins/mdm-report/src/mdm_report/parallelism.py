"""Accuracy under parallelism: accuracy and tokens per forward in one number, which no hardware decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import exp
from typing import Any

TOLERATED = 5.0
"""Points of accuracy, in percent: runs that lose more against the slowest do not count."""
PENALTY = 3.0
"""The published alpha."""


def accuracy_under_parallelism(points: Iterable[tuple[float, float]], best: float) -> float:
    """AUP of d3LLM (hao-ai-lab, "AUP: when Accuracy Meets Parallelism in Diffusion Language Models").

    With tokens per forward rho_1 < rho_2 < ... and accuracies y_i in percent, of which those below y_1 - 5 are left
    out, it is rho_1 y_1 + sum of (rho_i - rho_(i-1)) (y_i W(y_i) + y_(i-1) W(y_(i-1))) / 2, where
    W(y) = min(exp(-3 (1 - y / y_max)), 1).

    Args:
        points: tokens per forward and accuracy of each run of one sampler; at least one.
        best: y_max, the highest accuracy that anything compared has reached on the task, in percent.
    """
    ordered = sorted(points)
    slowest, first = ordered[0]
    kept = [(speed, accuracy) for speed, accuracy in ordered if accuracy >= first - TOLERATED]

    def weighted(accuracy: float) -> float:
        return accuracy * min(exp(-PENALTY * (1 - accuracy / best)), 1.0) if best else 0.0

    return slowest * first + sum(
        (speed - before) * (weighted(accuracy) + weighted(earlier)) / 2
        for (before, earlier), (speed, accuracy) in pairwise(kept)
    )


def by_sampler(records: Sequence[Mapping[str, Any]], speed: str = "tokens_per_forward") -> list[float | None]:
    """For each record of a comparison the AUP of all records of its model, sampler, swept options and cache; None
    where these do not differ in their ``speed``, one of two counts of tokens per forward, or where an accuracy is no
    share."""
    if not all(record["is_share"] for record in records):
        return [None] * len(records)
    groups: dict[tuple[Any, ...], dict[float, float]] = {}
    best = max(100 * record["accuracy"] for record in records)
    keys = [(record["model"], record["sampler"], str(record.get("swept")), record["cache"]) for record in records]
    for key, record in zip(keys, records, strict=True):
        if (rho := record[speed]) is not None:
            points = groups.setdefault(key, {})
            points[rho] = max(100 * record["accuracy"], points.get(rho, 0.0))
    return [
        accuracy_under_parallelism(groups[key].items(), best) if len(groups.get(key, ())) > 1 else None for key in keys
    ]
