"""``mdm run``: decodes and grades the examples of a task and prints a table."""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.flags import Grouped, decode_flags, output_flags, run_flags, used
from mdm.cli.summary_table import is_failed, report
from mdm.errors import MdmError

if TYPE_CHECKING:
    from mdm.runs.config import RunConfig

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(cls=Grouped)
@run_flags
@click.option("--num-processes", type=click.IntRange(1), default=1, help="Number of processes that share the examples.")
@click.option("--live", is_flag=True, help="Show a canvas as it is decoded, on stderr.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first example that fails, instead of recording it.")
@click.option("--retry-failed", is_flag=True, help="Decode again what a run in --out has recorded with an error.")
@click.option("--config", "file", type=FILE, metavar="FILE", help="YAML with any of these; flags win.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the results go; the same command there resumes, and one that asks for more extends the run.",
)
@output_flags
@decode_flags
def run(
    file: Path | None, out: Path | None, num_processes: int, live: bool, fail_fast: bool, retry_failed: bool,
    quiet: bool, verbose: bool, log_file: Path | None, assignments: tuple[str, ...], as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """Decode a task's examples, grade them, and show a table.

    Several --sampler, --model or --tokens-per-step, or values of one -o, make one comparison. Without arguments: the
    embedded model, Info-Gain, sudoku, a few examples. Ends with 1 where every example failed.
    """
    from mdm.runs import config as configs, processes

    config = configs.build(configs.RunConfig, file, used(flags), assignments)
    if processes.is_distributed() and (num_processes > 1 or out is None):
        raise MdmError("a run that a launcher started in several processes needs --out, and takes no --num-processes")
    if live and (num_processes > 1 or processes.is_distributed()):
        raise MdmError("--live shows a single process: leave --num-processes out")
    if live and (quiet or verbose or log_file):
        raise MdmError("--live takes the whole of stderr: leave --quiet, --verbose and --log-file out")
    if retry_failed and out is None:
        raise MdmError("--retry-failed is for the run in --out, which is missing")
    folder = out or _new_folder(config.task)
    if num_processes > 1:
        told: dict[str, Any] = {
            "--json": as_json,
            "--fail-fast": fail_fast,
            "--retry-failed": retry_failed,
            "--quiet": quiet,
        }
        told |= {"--verbose": verbose, f"--log-file={log_file}": log_file}
        return _launch(config, folder, num_processes, [flag for flag, is_set in told.items() if is_set])
    try:
        return _run(
            config, folder, as_json, live=live, fail_fast=fail_fast, retry_failed=retry_failed,
            quiet=quiet, verbose=verbose, log_file=log_file,
        )  # fmt: skip
    except Exception as error:
        if not processes.is_launched():
            raise
        processes.report_failure(error)
        return processes.REFUSED if isinstance(error, MdmError) else 1


def _run(
    config: RunConfig, folder: Path, as_json: bool, *, live: bool, fail_fast: bool, retry_failed: bool, **output: Any
) -> int:
    """Run in this process, which may be one of several."""
    from mdm.cli.live import live_view
    from mdm.cli.progress import progress, waiting

    with waiting("starting", quiet=output["quiet"]):
        from mdm.runs import processes, run as runs
    from mdm.runs.watch import Interrupted

    if int(os.environ.get("RANK", "0")):  # one log of a run is enough
        output["log_file"] = None
    try:
        with live_view() if live else progress(**output) as observer:
            summary = runs.run(config, folder, observer, fail_fast=fail_fast, retry_failed=retry_failed)
    except Interrupted as stop:
        report(stop.summary, folder, as_json)
        if not processes.is_launched():  # the launcher prints it otherwise
            click.echo(f"mdm: {stop.why}; {_how_to_resume(folder)}", err=True)
        return processes.INTERRUPTED
    code = report(summary, folder, as_json) if summary else 0  # only the main process has one
    return 0 if processes.is_launched() else code  # to the launcher, a process that ends otherwise has failed


def _launch(config: RunConfig, folder: Path, count: int, flags: list[str]) -> int:
    """Run in ``count`` processes, which read the configuration from a file."""
    from mdm.runs import config as configs, files, processes

    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "config.yaml"
        file.write_text(configs.to_yaml(config), encoding="utf-8")
        try:
            processes.launch(["run", "--config", str(file), "--out", str(folder), *flags], count)
        except (KeyboardInterrupt, processes.PeerLost) as stop:
            click.echo(f"mdm: {str(stop) or 'interrupted'}; {_how_to_resume(folder)}", err=True)
            return processes.INTERRUPTED if isinstance(stop, KeyboardInterrupt) else 1
    rows = files.read_json(folder / "summary.json")["runs"]
    return int(any(map(is_failed, rows)))


def _how_to_resume(folder: Path) -> str:
    if not (folder / "config.yaml").exists():
        return "nothing was begun: the same command starts anew"
    return "to go on: " + shlex.join(["mdm", "run", "--config", str(folder / "config.yaml"), "--out", str(folder)])


def _new_folder(task: str) -> Path:
    from mdm.runs.results import numbered

    base = f"runs/{task}-{datetime.now():%Y%m%d-%H%M%S}"
    return next(path for path in map(Path, numbered(base)) if not path.exists())
