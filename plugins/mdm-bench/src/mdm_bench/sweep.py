"""One decode measured under every combination of caches, candidates, block lengths and batch sizes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from mdm.engine.memory import out_of_memory
from mdm.models import Model

from mdm_bench.case import Case
from mdm_bench.decode import measure


def combinations(
    base: Case,
    caches: Sequence[str],
    candidates: Sequence[int],
    block_lengths: Sequence[int],
    batch_sizes: Sequence[int],
) -> list[Case]:
    """A case for each combination; what does not vary is ``base``'s."""
    return [
        replace(base, cache=cache, candidates=count, block_length=length, batch=batch)
        for cache, count, length, batch in product(caches, candidates, block_lengths, batch_sizes)
    ]


def sweep(model: Model, cases: Sequence[Case], speed: float, **settings: Any) -> Iterator[dict[str, Any]]:
    """Yield each case's measurement as soon as it is done.

    Where a case runs out of memory, its row has its options and ``error``.
    """
    for case in cases:
        row: dict[str, Any] | None = None
        try:
            row = measure(model, case, speed, **settings)
        except Exception as error:
            if not out_of_memory(error):
                raise
        yield row or {
            "cache": case.cache, "candidates": case.candidates, "block_length": case.block_length,
            "batch_size": case.batch, "error": "out of memory",
        }  # fmt: skip


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; the columns are all names that any row has."""
    text = io.StringIO()
    names = {name: None for row in rows for name in row}
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
