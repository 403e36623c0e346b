"""``mdm geneval-export``: a run's pictures in the layout that GenEval's own scripts read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from mdm.errors import MdmError

from mdm_geneval import GenEval, GenEvalOptions

if TYPE_CHECKING:
    from mdm.protocols import Example
    from mdm.runs.results import ExampleResult


@click.command(short_help="Write a run's pictures in GenEval's layout.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--data", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Where the run's data lies now.",
)  # fmt: skip
def export(run: Path, folder: Path, data: Path | None) -> None:
    """Write a run's pictures in GenEval's layout, for its own scripts: NNNNN/metadata.jsonl and NNNNN/samples/*.png.

    DIR must be new or empty. A run of several variants gets a folder for each of them in it.
    """
    from mdm.cli.progress import progress
    from mdm.runs import config, files
    from mdm.runs.config import RunConfig
    from mdm.runs.results import is_finished
    from mdm.runs.variants import variants

    if not (run / "config.yaml").is_file():
        raise MdmError(f"{run} is not a run's folder: it has no config.yaml")
    settings = config.parse(RunConfig, run / "config.yaml")
    if settings.task != "geneval":
        raise MdmError(f"{run} is a run of {settings.task}, not of geneval")
    source = data or settings.data
    if source is None:
        raise MdmError(f"{run} does not say where its prompts lie: give --data FILE")
    examples = list(GenEval(GenEvalOptions(grading="later")).examples(seed=settings.seed, data=source))
    lacking = 0
    with files.os_errors_as_mdm_errors(folder, "write into"), progress() as observer, _filled(folder) as part:
        for variant in variants(settings, run):
            target = part / variant.results.folder.relative_to(run)
            results = list(variant.results.by_row.values())
            for done, result in enumerate(results, 1):
                lacking += not _export(result, variant.results.folder, target, examples)
                observer.on_progress(variant.label, done, len(results), None)
        if not any(part.iterdir()):
            raise MdmError(f"{run} holds no pictures yet: let the run go on first")
    if not is_finished(run):
        click.echo(f"mdm: {run} is not finished: what is written is a part of it", err=True)
    if lacking:
        click.echo(
            f"mdm: {lacking} results have no picture; GenEval's scripts leave them out of their shares", err=True
        )
    click.echo(f"written: {folder}")


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """A folder whose content moves into the new or empty ``folder`` at the end; on failure nothing does."""
    is_new = not folder.exists()
    if not is_new and any(folder.iterdir()):
        raise MdmError(f"{folder} is not empty: name a new folder")
    part = folder / f".{os.getpid()}"
    try:
        part.mkdir(parents=True)
        yield part
        for entry in part.iterdir():
            entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # where it is empty


def _export(result: ExampleResult, source: Path, target: Path, examples: Sequence[Example]) -> bool:
    """Copy one picture; false where the result has none."""
    from mdm.runs.grading import digest

    if result.image is None or not (source / result.image).is_file():
        return False
    place = target / f"{result.index:05}"
    example = examples[result.index] if result.index < len(examples) else None
    if example is None or digest(example) != result.digest:
        raise MdmError(f"{result.id} in {source} was made for another prompt than the data has: give the run's --data")
    (place / "samples").mkdir(parents=True, exist_ok=True)
    (place / "metadata.jsonl").write_text(json.dumps(dict(example.inputs)) + "\n", encoding="utf-8")
    shutil.copyfile(source / result.image, place / "samples" / f"{result.repeat:04}.png")
    return True
