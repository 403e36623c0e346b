"""What a run came to: the table of ``summary.json``, or its JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from mdm.cli.plugins import settings_text
from mdm.cli.tables import interval, share, show
from mdm.errors import MdmError, one_line

Row = dict[str, Any]
"""One row of a summary."""


def report(summary: dict[str, Any], folder: Path, as_json: bool) -> int:
    """Show what ``summary.json`` in ``folder`` says, as a table or as JSON.

    Returns the exit code of the command that made it: 1 where every example of a variant failed.
    """
    from mdm.runs import files, presets

    try:
        rows = summary["runs"]
        metrics = dict.fromkeys(row["metric"] for row in rows)
        columns = _columns(rows, " or ".join(metrics))
        cells = [[cell(row) if _is_told(name, row) else "" for name, cell in columns.items()] for row in rows]
        errors, failed = sum(row["errors"] for row in rows), [row for row in rows if is_failed(row)]
        unfinished = [row["variant"] for row in rows if not row["complete"]]
        resolved = dict.fromkeys(settings_text(row.get("resolved") or {}) for row in rows)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        path = folder / "summary.json"
        raise MdmError(f"{path} is not the summary of a run: the run's own command writes it again") from error
    if as_json:
        click.echo(files.to_json(summary, indent=2))
        return int(bool(failed))
    if len(failed) < len(rows):
        show(list(columns), cells, [name for name in columns if name not in ("model", "sampler")], spare=SPARE)
    for row in failed:
        click.echo(one_line(f"{row['variant']}: every example failed: {row.get('first_error') or 'see results.jsonl'}"))
    if unfinished:
        click.echo(f"incomplete: {', '.join(unfinished)}; the same command goes on")
    if rows[0]["preset"]:
        click.echo(presets.remark(rows[0]["preset"], rows[0]["task"]))
    if any(row["cumulative_entropy"] is None for row in rows):
        click.echo("an entropy that is NaN, null in results.jsonl, leaves no mean")
    if errors:
        click.echo(f"{errors} could not be decoded or graded and count as wrong: --retry-failed decodes them again")
    for text in filter(None, resolved):
        click.secho(f"auto: {text}", dim=True)
    click.echo(f"results: {folder}")
    return int(bool(failed))


def is_failed(row: Row) -> bool:
    """Whether none of its examples could be decoded or graded."""
    return bool(0 < row["done"] == row["errors"])


def _is_told(column: str, row: Row) -> bool:
    return bool(row["done"]) or column in GIVEN or column in row.get("swept", {})


def _columns(rows: list[Row], metric: str) -> dict[str, Callable[[Row], str]]:
    """The columns of a table, without those that say nothing: a model or K that all rows share, repeats of one.

    The grade is headed by the name of the task's metric, and each option of a sweep has a column.
    """
    keys = {"model": "model", "K": "tokens_per_step"}
    hidden = {column for column, key in keys.items() if len({row[key] for row in rows}) == 1}
    if all(row["repeats"] == 1 for row in rows):
        hidden |= {"repeats", "std. error"}
    if all(row["accuracy"] is None for row in rows):
        hidden |= {"std. error", "95% interval"}
    columns: dict[str, Callable[[Row], str]] = {}
    for column, cell in CELLS.items():
        if column == "examples":
            swept = dict.fromkeys(name for row in rows for name in row.get("swept", {}))
            columns |= {name: partial(_swept, name) for name in swept}
        if column not in hidden:
            columns[metric if column == "accuracy" else column] = cell
    return columns


def _swept(name: str, row: Row) -> str:
    return str(row.get("swept", {}).get(name, ""))


def _examples(row: Row) -> str:
    """How many are decoded; of how many, where some are missing."""
    return str(row["examples"]) if row["complete"] else f"{row['examples']} of {row['expected'] // row['repeats']}"


GIVEN = ("model", "sampler", "K", "examples", "repeats")
"""The columns of which a variant that has not begun has something to say, beside the options of a sweep."""
SPARE = ("rows", "std. error", "repeats", "forwards", "95% interval", "tokens/s", "cum. entropy", "examples")
"""The columns that a narrow terminal does without, the first one first."""
CELLS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row["model"],
    "sampler": lambda row: row["sampler"],
    "K": lambda row: str(row["tokens_per_step"]),
    "examples": _examples,
    "repeats": lambda row: str(row["repeats"]),
    "accuracy": lambda row: share(row["accuracy"], row["is_share"]) or "not graded",
    "std. error": lambda row: share(row["accuracy_se"] or 0, row["is_share"]),
    "95% interval": lambda row: interval(row["accuracy_ci95"], row["is_share"]),
    "cum. entropy": lambda row: "NaN" if row["cumulative_entropy"] is None else f"{row['cumulative_entropy']:.3f}",
    "forwards": lambda row: f"{row['forwards']:,}",
    "rows": lambda row: f"{row['rows']:,}",
    "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
}
"""Column -> its cell in a row. K is the number of tokens per step."""
