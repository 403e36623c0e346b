"""The picture of a comparison: accuracy against cost, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdm_report import pictures


def plot(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy against rows per example, with 95 % intervals; a sampler's paces are one line.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    figure = pictures.figure(path, figsize=(7, 4.5))
    lines: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        lines.setdefault(tuple(record[key] for key in ("model", "sampler", "cache", "run")), []).append(record)
    axes = figure.subplots()
    for number, points in enumerate(lines.values()):
        points = sorted(points, key=lambda record: record["rows_per_example"])
        x = [record["rows_per_example"] for record in points]
        y = [record["accuracy"] for record in points]
        ends = [record["accuracy_ci95"] or (record["accuracy"],) * 2 for record in points]
        low = [max(0.0, accuracy - end) for accuracy, (end, _) in zip(y, ends, strict=True)]
        high = [max(0.0, end - accuracy) for accuracy, (_, end) in zip(y, ends, strict=True)]
        label = " ".join(word for word in points[0]["label"].split() if word != f"K{points[0]['tokens_per_step'] or 1}")
        marker = "osD^vP*X"[number // 10 % 8]  # colours repeat after ten
        axes.errorbar(x, y, yerr=[low, high], marker=marker, capsize=2, linewidth=1, elinewidth=0.6, label=label)
        for record, at in zip(points, zip(x, y, strict=True), strict=True):
            if record["tokens_per_step"]:
                text = f"K{record['tokens_per_step']}"
                axes.annotate(text, at, xytext=(3, 3), textcoords="offset points", fontsize=7)
    axes.set(xlabel="rows through the model per example", ylabel=records[0]["metric"])
    rows = [record["rows_per_example"] for record in records if record["rows_per_example"]]
    if rows and max(rows) > 5 * min(rows):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="minor", labelsize="x-small")
    axes.set_title(records[0]["task"], fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    pictures.save(figure, path)
