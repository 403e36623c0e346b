"""``mdm ray-run``: a run whose examples are decoded on a Ray cluster."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from mdm.cli.flags import JSON, output_flags
from mdm.errors import MdmError


@click.command("ray-run")
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
    help="Where the results go; the same command there resumes.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1), help="Workers, each with the model.  [default: as many as fit]")
@click.option(
    "--gpus", type=click.IntRange(0), metavar="N", help="GPUs of each worker.  [default: 1 where the cluster has any]"
)
@click.option(
    "--share", type=click.IntRange(1), metavar="N", help="Examples given to a worker at once.  [default: 4 batches]"
)
@click.option(
    "--address", metavar="ADDRESS", help="The cluster.  [default: RAY_ADDRESS, else one of this machine's own]"
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first example that fails, instead of recording it.")
@click.option("--retry-failed", is_flag=True, help="Decode again what a run in --out has recorded with an error.")
@output_flags
@JSON
def ray_run(
    file: Path, out: Path, workers: int | None, gpus: int | None, share: int | None, address: str | None,
    fail_fast: bool, retry_failed: bool, quiet: bool, verbose: bool, log_file: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Make the run of a configuration, as `mdm run --config` does, on a Ray cluster.

    One worker a device holds the model; one that dies is replaced, and its examples are decoded again. The folder is
    that of `mdm run`, written by this process as results come: either command resumes what the other began.
    """
    from mdm.cli.progress import progress
    from mdm.cli.summary_table import report
    from mdm.runs import config as configs, processes
    from mdm.runs.watch import Interrupted

    from mdm_ray.run import run

    if processes.is_distributed():
        raise MdmError("mdm ray-run starts its own workers: run it without a launcher")
    config = configs.build(configs.RunConfig, file)
    try:
        with processes.sigterm_as_interrupt(), progress(quiet, verbose, log_file) as observer:
            summary = run(
                config, out, observer, fail_fast=fail_fast, retry_failed=retry_failed,
                workers=workers, gpus=gpus, share=share, address=address,
            )  # fmt: skip
    except Interrupted as stop:
        report(stop.summary, out, as_json)
        click.echo(f"mdm: {stop.why}; to go on: {shlex.join(['mdm', *sys.argv[1:]])}", err=True)
        return processes.INTERRUPTED
    return report(summary, out, as_json)
