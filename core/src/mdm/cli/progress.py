"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click
from mdm.cli.tables import share
from mdm.errors import one_line, printable
from mdm.runs.watch import RunObserver

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress, TaskID

EVERY = 5.0
"""Seconds between plain lines."""
PATIENCE = 2.0
"""Seconds before the first plain line: a short run prints none."""


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of other work. Call the function this yields with the number of steps done."""
    if not sys.stderr.isatty():
        yield lambda done: click.echo(f"{what}: {done}/{total}", err=True)
        return
    with Bars() as bars:
        bars.on_progress(what, 0, total)
        yield lambda done: bars.on_progress(what, done, total)


def progress(quiet: bool = False, verbose: bool = False, log_file: Path | None = None) -> Lines | Bars:
    """An observer that shows a run's progress on stderr; a context manager."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines(RunObserver):
    """Prints plain lines, for logs."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._next = self._begun + PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def on_note(self, text: str) -> None:
        if time.monotonic() >= self._begun + PATIENCE:
            click.echo(printable(text), err=True)

    def on_warning(self, text: str) -> None:
        click.echo(f"mdm: {one_line(text)}", err=True)

    def on_progress(self, label: str, done: int, total: int, accuracy: float | None) -> None:
        if done and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            graded = "" if accuracy is None else f", accuracy {share(accuracy, 0 <= accuracy <= 1)}"
            click.echo(f"{label}: {done}/{total}{graded}", err=True)


class Bars(RunObserver):
    """One bar per variant."""

    def __init__(self) -> None:
        from rich import progress as rich_progress
        from rich.console import Console

        self._bars: dict[str, TaskID] = {}
        self._progress = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"), rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(), rich_progress.TextColumn("{task.fields[note]}"),
            rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._display: Progress | Live = self._progress

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def on_note(self, text: str) -> None:
        self._progress.console.print(printable(text), style="dim", highlight=False, markup=False)

    def on_warning(self, text: str) -> None:
        self._progress.console.print(f"mdm: {one_line(text)}", style="yellow", highlight=False, markup=False)

    def on_progress(self, label: str, done: int, total: int, accuracy: float | None = None) -> None:
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=total, note="")
        note = share(accuracy, accuracy is None or 0 <= accuracy <= 1) if done else ""
        self._progress.update(self._bars[label], completed=done, note=note)
