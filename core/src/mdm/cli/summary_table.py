"""What a run came to: the table of ``summary.json``, or its JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from mdm.cli.tables import interval, share, show
from mdm.errors import MdmError

Row = dict[str, Any]
"""One row of a summary."""


def report(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Show what ``summary.json`` in ``folder`` says, as a table or as JSON."""
    if as_json:
        from mdm.runs.files import to_json

        click.echo(to_json(summary, indent=2))
        return
    from mdm.runs import presets

    try:
        rows = summary["runs"]
        columns = _columns(rows)
        cells = [[CELLS[name](row) for name in columns] for row in rows]
        errors = sum(row["errors"] for row in rows)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        path = folder / "summary.json"
        raise MdmError(f"{path} is not the summary of a run: the run's own command writes it again") from error
    show(columns, cells, right=[name for name in columns if name not in ("model", "sampler")])
    if rows[0]["preset"]:
        click.echo(presets.remark(rows[0]["preset"], rows[0]["task"]))
    if any(row["cumulative_entropy"] is None for row in rows):
        click.echo("an entropy that is NaN, null in results.jsonl, leaves no mean")
    if errors:
        click.echo(f"{errors} could not be decoded or graded and count as wrong: see `error` in results.jsonl")
    click.echo(f"results: {folder}")


def _columns(rows: list[Row]) -> list[str]:
    """The columns of a table, without those that say nothing: a model or K that all rows share, repeats of one."""
    keys = {"model": "model", "K": "tokens_per_step"}
    hidden = {column for column, key in keys.items() if len({row[key] for row in rows}) == 1}
    if all(row["repeats"] == 1 for row in rows):
        hidden |= {"repeats", "std. error"}
    if all(row["accuracy"] is None for row in rows):
        hidden |= {"std. error", "95% interval"}
    return [column for column in CELLS if column not in hidden]


CELLS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row["model"],
    "sampler": lambda row: row["sampler"],
    "K": lambda row: str(row["tokens_per_step"]),
    "examples": lambda row: str(row["examples"]),
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
