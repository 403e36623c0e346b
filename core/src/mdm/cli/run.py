"""``mdm run``: examples of a task, decoded and graded, one table."""

from __future__ import annotations

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from mdm.cli.flags import decode_flags, given

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--task", metavar="NAME", help="Task (default: sudoku).")
@click.option("--preset", metavar="NAME", help="Published settings of the task; `mdm plugins TASK` lists them.")
@click.option("--data", type=FILE, metavar="FILE", help="The task's examples, instead of its own.")
@click.option("--limit", type=click.IntRange(1), help="How many examples (default: all of --data, or a few).")
@click.option("--batch-size", type=click.IntRange(1), help="Prompts decoded at once (default: 16).")
@click.option(
    "--allow-code-execution", is_flag=True, default=None, help="Let the task run what the model wrote, in a sandbox."
)
@click.option("--config", "file", type=FILE, metavar="FILE", help="YAML with any of these; flags win.")
@click.option("--out", type=PATH, metavar="FOLDER", help="Where the results go; the same command there resumes.")
@decode_flags
def run(file: Path | None, out: Path | None, assignments: tuple[str, ...], as_json: bool, **flags: Any) -> int:
    """Decode a task's examples, grade them, and show a table.

    Several --sampler (or --model) make one comparison. Without arguments: the embedded model, Info-Gain,
    sudoku, a few examples.
    """
    from mdm import config as configs
    from mdm import run as runs
    from mdm.cli.progress import watch

    config = configs.build(configs.RunConfig, file, given(flags), assignments)
    folder = out or _fresh(config.task)
    try:
        with watch() as seen:
            summary = runs.run(config, folder, seen)
    except runs.Interrupted as stop:
        _report(stop.summary, folder, as_json)
        command = shlex.join(["mdm", "run", "--config", str(folder / "config.yaml"), "--out", str(folder)])
        click.echo(f"mdm: interrupted; to go on: {command}", err=True)
        return 130
    _report(summary, folder, as_json)
    return 0


def _fresh(task: str) -> Path:
    base = Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def _report(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    from mdm.cli.tables import show

    rows = summary.get("runs", [summary])
    several = len({row["model"] for row in rows}) > 1
    numbers = ("examples", "accuracy", "95% interval", "cum. entropy", "forwards", "rows", "tokens/s")
    show([*(["model"] if several else []), "sampler", *numbers], [_cells(row, several) for row in rows], right=numbers)
    errors = sum(row["errors"] for row in rows)
    if errors:
        click.echo(f"{errors} could not be graded and count as wrong: see `error` in results.jsonl")
    click.echo(f"results: {folder}")


def _cells(row: dict[str, Any], several: bool) -> list[str]:
    low, high = row["accuracy_ci95"]
    return [
        *([row["model"]] if several else []),
        row["sampler"],
        str(row["examples"]),
        f"{row['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{row['cumulative_entropy']:.3f}",
        f"{row['forwards']:,}",
        f"{row['rows']:,}",
        f"{row['tokens_per_second']:,.0f}",
    ]
