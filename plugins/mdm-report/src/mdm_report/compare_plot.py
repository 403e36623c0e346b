"""Pictures of comparisons: accuracy against cost or speed, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
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


def plot_speed(comparisons: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw accuracy against tokens per forward, a panel for each comparison, whose title is its key.

    A sampler has the same colour and sign in all panels, and its paces are one line. Samplers that no other one of the
    panel exceeds in both are named beside their points too.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    rows = ceil(len(comparisons) / 2)
    figure = pictures.figure(path, figsize=(12, 1 + 4.2 * rows))
    figure.set_facecolor("white")
    panels = figure.subplots(rows, min(2, len(comparisons)), squeeze=False).flat
    samplers = sorted({record["sampler"] for records in comparisons.values() for record in records})
    handles: dict[str, Any] = {}
    for axes, (title, records) in zip(panels, comparisons.items(), strict=False):
        for number, sampler in enumerate(samplers):
            points = sorted(
                (record["tokens_per_forward"], 100 * record["accuracy"])
                for record in records
                if record["sampler"] == sampler and record["tokens_per_forward"]
            )
            if points:
                style = {"marker": "osD^vP*X"[number // 10 % 8], "color": f"C{number % 10}"}  # colours repeat after ten
                [handles[sampler]] = axes.plot(*zip(*points, strict=True), linewidth=0.8, markersize=5, **style)
        axes.margins(0.1)
        middle = sum(axes.get_xlim()) / 2
        for at, names in ahead(records).items():
            left = at[0] <= middle
            more = f" and {len(names) - 3} more" * (len(names) > 3)
            axes.annotate(
                ", ".join(names[:3]) + more, at, xytext=(4 if left else -4, 5), textcoords="offset points", fontsize=7,
                horizontalalignment="left" if left else "right",
            )  # fmt: skip
        axes.set(xlabel="tokens per forward", ylabel="accuracy in %")
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    for axes in panels:  # what is left of the last row
        axes.set_visible(False)
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize="small")
    pictures.save(figure, path)


def ahead(records: Sequence[Mapping[str, Any]]) -> dict[tuple[float, float], list[str]]:
    """Point -> the samplers there, of the points that no other one exceeds in both speed and accuracy."""
    points: dict[tuple[float, float], list[str]] = {}
    for record in records:
        if record["tokens_per_forward"]:
            point = record["tokens_per_forward"], 100 * record["accuracy"]
            points.setdefault(point, []).append(record["sampler"])
    return {
        at: names
        for at, names in points.items()
        if not any(other != at and other[0] >= at[0] and other[1] >= at[1] for other in points)
    }
