"""``mdm runs``: the runs below a folder, and how far each is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from mdm.cli.flags import JSON
from mdm.cli.tables import share, show
from mdm.errors import one_line

if TYPE_CHECKING:
    from mdm_report.listing import ListedRun

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
COLUMNS = ("folder", "state", "task", "model", "variants", "accuracy", "changed")
SPARE = ("changed", "model", "variants", "accuracy")
"""The columns that a narrow terminal does without, the first one first."""


@click.command(short_help="List runs, and how far each is.")
@click.argument("folders", nargs=-1, type=FOLDER, metavar="[FOLDER...]")
@JSON
def runs(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the runs in and below some folders, by default runs/, the last written first.

    Of a run of several variants the accuracy is that of the best one.
    """
    from mdm.runs.files import to_json

    from mdm_report.listing import listed

    where = list(folders) or [Path("runs")]
    found = listed(where)
    if as_json:
        click.echo(to_json([run.as_json() for run in found], indent=2))
        return
    if not found:
        click.echo(f"no runs in {', '.join(map(str, where))}: `mdm run` makes one")
        return
    cells = [
        [run.folder, _state(run), run.task, ", ".join(run.models), _variants(run), _accuracy(run), run.changed]
        for run in found
    ]
    show(COLUMNS, cells, right=["accuracy"], spare=SPARE)
    for run in found:
        if run.why is not None:
            click.echo(one_line(f"{run.folder}: {run.why}"))


def _state(run: ListedRun) -> str:
    """How far it is, and what failed of it."""
    text = run.state
    if run.state in ("running", "incomplete"):
        text += f", {run.done} of {'?' if run.expected is None else run.expected}"
    return text + (f", {run.failed} failed" if run.failed else "")


def _variants(run: ListedRun) -> str:
    return (
        ", ".join(run.variants)
        if len(run.variants) <= 3
        else f"{', '.join(run.variants[:2])}, {len(run.variants)} in all"
    )


def _accuracy(run: ListedRun) -> str:
    graded = {label: accuracy for label, accuracy in run.accuracy.items() if accuracy is not None}
    if not graded or not run.done:
        return ""
    best = max(graded, key=lambda label: graded[label])
    return share(graded[best], run.is_share) + (f" ({best})" if len(graded) > 1 else "")
