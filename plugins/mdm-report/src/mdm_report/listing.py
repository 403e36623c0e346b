"""What lies below a folder of runs, and how far each of them is. Nothing is changed, and no model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from mdm.errors import MdmError, one_line
from mdm.runs import files
from mdm.runs.results import ExampleResult

from mdm_report.runs import RunVariant, read_run, summary_rows

DEPTH = 4
"""Levels of folders that are searched."""
MOST = 10_000
"""Folders that are looked into."""

NEEDED = {"variant", "complete", "done", "expected", "errors", "metric", "accuracy", "is_share"}
"""Keys of a summary's row that are shown."""


@dataclass(frozen=True)
class ListedRun:
    """A run's folder as a list has it."""

    folder: str
    changed: str
    """When something was written last, local time."""
    state: str
    """``complete``; ``running``, where a process writes into it; ``incomplete``; or ``broken``."""
    why: str | None = None
    """What is broken."""
    task: str = ""
    models: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    done: int = 0
    """Decodings that are written, of all variants and repeats."""
    expected: int | None = None
    """How many there will be; None where the run has not got that far."""
    failed: int = 0
    """Decodings that could not be decoded or graded."""
    metric: str | None = None
    accuracy: dict[str, float | None] = field(default_factory=dict)
    """Variant -> its accuracy, in the last summary that was written."""
    is_share: bool = True

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def listed(folders: list[Path]) -> list[ListedRun]:
    """The runs in and below some folders, the last written first."""
    found = dict.fromkeys(run.resolve() for folder in folders for run in islice(_runs(folder, DEPTH), MOST))
    dated = sorted(((_changed(run), run) for run in found), reverse=True)
    return [_listed(run, changed) for changed, run in dated]


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """The folders of runs in and below ``folder``; a run is not searched for others."""
    if (folder / "config.yaml").is_file() and not (folder / "config.yaml").is_symlink():
        yield folder
    elif depth:
        try:
            below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
        except OSError:
            return
        for entry in below:
            if not entry.name.startswith("."):
                yield from _runs(entry, depth - 1)


def _changed(run: Path) -> float:
    """When a run was written to last, in seconds."""
    names = ("config.yaml", "summary.json", "results*.jsonl", "*/results*.jsonl")
    return max((path.stat().st_mtime for name in names for path in run.glob(name)), default=0.0)


def _listed(run: Path, changed: float) -> ListedRun:
    where = str(run.relative_to(Path.cwd())) if run.is_relative_to(Path.cwd()) else str(run)
    when = datetime.fromtimestamp(changed).isoformat(" ", "minutes")
    is_used = False
    try:
        with files.exclusive_lock(run):
            pass
    except MdmError:
        is_used = True
    try:
        return _read(run, where, when, is_used)
    except (MdmError, LookupError, TypeError, ValueError, AttributeError) as error:
        return ListedRun(where, when, "broken", one_line(str(error)))


def _read(run: Path, where: str, when: str, is_used: bool) -> ListedRun:
    rows = summary_rows(run)
    rows = rows if all(row.keys() >= NEEDED for row in rows) else []
    is_whole = bool(rows) and all(row["complete"] is True for row in rows) and not is_used
    variants = read_run(run)
    config, expected = variants[0].config, _expected(variants, rows)
    results = [] if is_whole else [result for variant in variants for result in variant.results.by_row.values()]
    done = sum(int(row["done"]) for row in rows) if is_whole else len(results)
    return ListedRun(
        where, when, "running" if is_used else "complete" if done == expected else "incomplete",
        task=config.task, models=config.model, variants=[variant.label for variant in variants],
        done=done, expected=expected,
        failed=sum(int(row["errors"]) for row in rows) if is_whole else sum(map(_failed, results)),
        metric=str(rows[0]["metric"]) if rows else None,
        accuracy={str(row["variant"]): row["accuracy"] for row in rows},
        is_share=all(bool(row["is_share"]) for row in rows),
    )  # fmt: skip


def _expected(variants: list[RunVariant], rows: list[dict[str, Any]]) -> int | None:
    if len(rows) == len(variants):
        return sum(int(row["expected"]) for row in rows)
    config = variants[0].config
    return None if config.limit is None else config.limit * config.repeats * len(variants)


def _failed(result: ExampleResult) -> bool:
    return result.error is not None
