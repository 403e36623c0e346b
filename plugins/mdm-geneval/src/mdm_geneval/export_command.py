"""``mdm geneval-export``: a run's pictures in the layout that GenEval's own scripts read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
from mdm.data import read
from mdm.errors import MdmError

from mdm_geneval.metadata import Metadata

if TYPE_CHECKING:
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
    from mdm.runs.variants import variants

    if not (run / "config.yaml").is_file():
        raise MdmError(f"{run} is not a run's folder: it has no config.yaml")
    settings = config.parse(RunConfig, run / "config.yaml")
    if settings.task != "geneval":
        raise MdmError(f"{run} is a run of {settings.task}, not of geneval")
    source = data or settings.data
    if source is None:
        raise MdmError(f"{run} does not say where its prompts lie: give --data FILE")
    prompts = [row for _, row in read(source, Metadata)]
    if folder.exists() and any(folder.iterdir()):
        raise MdmError(f"{folder} is not empty: name a new folder")
    opened = variants(settings, run)
    lacking = 0
    with files.os_errors_as_mdm_errors(folder, "write"), progress() as observer:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            for variant in opened:
                target = part / variant.results.folder.relative_to(run)
                results = list(variant.results.by_row.values())
                for done, result in enumerate(results, 1):
                    lacking += not _export(result, variant.results.folder, target, prompts)
                    observer.on_progress(variant.label, done, len(results), None)
            if not part.exists():
                raise MdmError(f"{run} holds no pictures yet: let the run go on first")
            if folder.exists():
                folder.rmdir()  # it is empty
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if lacking:
        click.echo(
            f"mdm: {lacking} results have no picture; GenEval's scripts leave them out of their shares", err=True
        )
    click.echo(f"written: {folder}")


def _export(result: ExampleResult, source: Path, target: Path, prompts: list[Metadata]) -> bool:
    """Copy one picture; false where the result has none."""
    if result.image is None or not (source / result.image).is_file():
        return False
    place = target / f"{result.index:05}"
    wanted = prompts[result.index] if result.index < len(prompts) else None
    if wanted is None or wanted.prompt != result.prompt:
        raise MdmError(f"{result.id} in {source} was made for another prompt than the data has: give the run's --data")
    (place / "samples").mkdir(parents=True, exist_ok=True)
    text = wanted.model_dump_json(by_alias=True, exclude_defaults=True)
    (place / "metadata.jsonl").write_text(text + "\n", encoding="utf-8")
    shutil.copyfile(source / result.image, place / "samples" / f"{result.repeat:04}.png")
    return True
