"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere, and in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from mdm.cli.tables import share
from mdm.errors import MdmError, one_line, printable
from mdm.runs.watch import RunObserver, Work

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress, TaskID

EVERY = 5.0
"""Seconds between plain lines."""
PATIENCE = 2.0
"""Seconds before the first plain line: a short run prints none."""
RECENT = 30.0
"""Seconds over which a speed is measured."""
NARROW = 76
"""Columns of a terminal below which there is no room for a bar."""


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of other work. Call the function this yields with the number of steps done."""
    if not _has_bars():
        yield lambda done: click.echo(f"{what}: {done}/{total}", err=True)
        return
    with Bars() as bars:
        bars.on_progress(what, 0, total)
        yield lambda done: bars.on_progress(what, done, total)


@contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Say on a terminal what is waited for, on a line that goes again."""
    if quiet or not _has_bars():
        yield
        return
    click.echo(f"{what} ...", nl=False, err=True)
    try:
        yield
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def progress(quiet: bool = False, verbose: bool = False, log_file: Path | None = None) -> Shown:
    """An observer that shows a run's progress; a context manager.

    Args:
        quiet: nothing on stderr but warnings.
        verbose: notes at once, however short the run is.
        log_file: plain lines with their times are added to this file, whatever stderr shows.

    Raises:
        MdmError: ``quiet`` and ``verbose``, or the file cannot be written.
    """
    if quiet and verbose:
        raise MdmError("--quiet and --verbose: give one of them")
    shown: Shown = Shown() if quiet else Bars() if _has_bars() else Lines(patience=0 if verbose else PATIENCE)
    shown = shown if log_file is None else Both(shown, Log(log_file))
    if verbose:
        shown.on_settings = partial(_say_settings, shown)  # type: ignore[method-assign]
    return shown


def _say_settings(observer: RunObserver, label: str, settings: Mapping[str, Any]) -> None:
    told = (f"{name} {value}" for name, value in settings.items() if value is not None)
    observer.on_note(f"{label}: {', '.join(told)}")


def _has_bars() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Pace:
    """How far the examples of one variant have come, and how fast."""

    accuracy: float | None = None

    def __init__(self, label: str, done: int) -> None:
        self.label, self._begin, self._at = label, done, time.monotonic()
        self.done, self.total = done, 0
        self._recent = deque([Work(0, 0, 0, 0, 0.0)])

    def add(self, work: Work) -> None:
        """Take in what has been decoded."""
        self._recent.append(work)
        while work.seconds - self._recent[0].seconds > RECENT and len(self._recent) > 2:
            self._recent.popleft()

    @property
    def share(self) -> float:
        """The share that is decoded, of 0 to 1, unfinished examples included."""
        work = self._recent[-1]
        begun = (self.total - self._begin) * work.tokens / ((work.tokens + work.tokens_left) or 1)
        return min(1.0, max(self._begin + begun, self.done) / (self.total or 1))

    @property
    def speed(self) -> float:
        """Tokens per second; 0 where nothing is known."""
        first, last = self._recent[0], self._recent[-1]
        return (last.tokens - first.tokens) / ((last.seconds - first.seconds) or 1.0)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._at

    def graded(self) -> str:
        return share(self.accuracy, self.accuracy is None or 0 <= self.accuracy <= 1) if self.done else ""

    def left(self) -> str:
        """How long the rest takes; empty where nothing is known."""
        return _clock(self._recent[-1].tokens_left / self.speed) if self.speed and self.done < self.total else ""

    def line(self, ended: bool) -> str:
        """All of it in words."""
        words = [f"{self.label}: {self.done}/{self.total}"]
        words += [f"accuracy {graded}"] if (graded := self.graded()) else []
        if ended:
            return ", ".join([*words, _clock(self.seconds)])
        if (work := self._recent[-1]).steps:
            words += [f"{work.rows} in decoding, step {work.steps:,}", f"{self.speed:,.0f} tokens/s"]
        return ", ".join(words + ([f"about {left} left"] if (left := self.left()) else []))


def _clock(seconds: float) -> str:
    """A time as people write it: ``41 s``, ``12:05`` or ``3:12:05``."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02}"
    return f"{whole} s" if whole < 60 else minutes if whole < 3600 else f"{whole // 3600}:{minutes:0>5}"


class Shown(RunObserver):
    """Shows warnings, and nothing else; the base of those that show more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def on_warning(self, text: str) -> None:
        click.echo(f"mdm: {one_line(text)}", err=True)


class Paced(Shown):
    """Follows the pace of each variant."""

    def __init__(self) -> None:
        self.paces: dict[str, Pace] = {}

    def on_progress(self, label: str, done: int, total: int, accuracy: float | None = None) -> None:
        pace = self.paces.setdefault(label, Pace(label, done))
        pace.done, pace.total, pace.accuracy = done, total, accuracy
        self.show(pace)

    def on_work(self, label: str, work: Work) -> None:
        if label in self.paces:
            self.paces[label].add(work)
            self.show(self.paces[label])

    def show(self, pace: Pace) -> None: ...


class Lines(Paced):
    """Prints plain lines, for logs: every few seconds, and a last one for each variant."""

    def __init__(self, patience: float = PATIENCE) -> None:
        super().__init__()
        self._begun, self._next, self._patience = time.monotonic(), 0.0, patience
        self._ended: set[str] = set()

    def __exit__(self, *_: object) -> None:
        for pace in self.paces.values():  # what an interrupt has stopped
            self._end(pace)

    def write(self, text: str) -> None:
        click.echo(text, err=True)

    def on_note(self, text: str) -> None:
        if time.monotonic() >= self._begun + self._patience:
            self.write(printable(text))

    def show(self, pace: Pace) -> None:
        if pace.done == pace.total:
            self._end(pace)
        elif time.monotonic() >= self._next and pace.share and pace.seconds >= self._patience:
            self._next = time.monotonic() + EVERY
            self.write(printable(pace.line(ended=False)))

    def _end(self, pace: Pace) -> None:
        if pace.label not in self._ended and pace.seconds >= self._patience:
            self._ended.add(pace.label)
            self.write(printable(pace.line(ended=True)))


class Log(Lines):
    """Adds plain lines with their times to a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(patience=0)
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise MdmError(f"cannot write {path}: {error.strerror}") from error

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._file.close()

    def write(self, text: str) -> None:
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {one_line(text)}\n")

    def on_warning(self, text: str) -> None:
        self.write(f"warning: {text}")


class Both(Shown):
    """Two observers, told the same."""

    def __init__(self, *observers: Shown) -> None:
        self._observers = observers
        self.sees_steps = any(observer.sees_steps for observer in observers)
        for callback in ("on_begin", "on_step", "on_note", "on_warning", "on_progress", "on_work"):
            setattr(self, callback, self._telling(callback))

    def _telling(self, callback: str) -> Callable[..., None]:
        def tell(*args: Any, **more: Any) -> None:
            for observer in self._observers:
                getattr(observer, callback)(*args, **more)

        return tell

    def __enter__(self) -> Self:
        for observer in self._observers:
            observer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for observer in self._observers:
            observer.__exit__(*error)


class Bars(Paced):
    """One bar per variant."""

    def __init__(self) -> None:
        from rich import progress as rich_progress
        from rich.console import Console
        from rich.table import Column

        super().__init__()
        console = Console(stderr=True)
        wide = console.width >= NARROW
        self._bars: dict[str, TaskID] = {}
        self._progress = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False,
                                     table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            *([rich_progress.BarColumn(min(40, console.width - 58))] if wide else []),
            rich_progress.TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
            *([rich_progress.TimeElapsedColumn()] if wide else []),
            console=console, expand=not wide,
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

    def show(self, pace: Pace) -> None:
        label = pace.label
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(printable(label), total=1.0, note="")
        speed = f"{pace.speed:,.0f} tokens/s" if pace.speed and pace.done < pace.total else ""
        left = f"{left} left" if (left := pace.left()) else ""
        note = "  ".join(filter(None, [f"{pace.done}/{pace.total}", pace.graded(), speed, left]))
        self._progress.update(self._bars[label], completed=pace.share, note=note)
