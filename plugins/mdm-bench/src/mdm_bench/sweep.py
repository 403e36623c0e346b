"""The same decode over a grid of options: candidates, block length, cache, batch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from mdm.engine.memory import out_of_memory
from mdm.models import Model
from mdm_report import pictures

from mdm_bench.case import Case
from mdm_bench.decode import measure

AXES = {"cache": "cache", "candidates": "N", "block_length": "block", "batch_size": "batch"}
"""Columns that a sweep varies, and what they are called in a table and a picture."""


def grid(
    base: Case, cache: Sequence[str], candidates: Sequence[int], block: Sequence[int], batch: Sequence[int]
) -> list[Case]:
    """All combinations."""
    return [
        replace(base, cache=c, candidates=n, block_length=length, batch=b)
        for c, n, length, b in product(cache, candidates, block, batch)
    ]


def sweep(model: Model, cases: Sequence[Case], speed: float, **settings: Any) -> Iterator[dict[str, Any]]:
    """The measurement of each case as it is done; of one that finds no memory only its options, and ``error``."""
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
    """All that was measured; a case without memory has its options and ``error`` only."""
    text = io.StringIO()
    names = {name: None for row in rows for name in row}
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Tokens a second and the share of the roofline over the axis with the most values, a line for each of the rest.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    numeric = [axis for axis in AXES if axis != "cache"]
    over = max(numeric, key=lambda axis: len({row[axis] for row in rows}))
    rest = [axis for axis in AXES if axis != over and len({row[axis] for row in rows}) > 1]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            label = " ".join(str(row[axis]) if axis == "cache" else f"{AXES[axis]} {row[axis]}" for axis in rest)
            lines.setdefault(label, []).append(row)
    drawn = pictures.figure(path, figsize=(9, 4))
    for panel, (key, text) in zip(
        drawn.subplots(1, 2),
        {"tokens_per_second": "tokens a second", "share_of_roofline": "share of the roofline"}.items(),
        strict=True,
    ):
        for label, points in lines.items():
            points = sorted(points, key=lambda row: row[over])
            panel.plot([row[over] for row in points], [row[key] for row in points], marker="o", label=label or None)
        panel.set(xlabel=AXES[over], ylabel=text, ylim=(0, None))
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    if rest:
        drawn.legend(*panel.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    pictures.save(drawn, path)
