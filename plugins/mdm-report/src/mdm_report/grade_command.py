"""``mdm grade``: grades the results of a run once more."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from mdm.cli.flags import JSON, output_flags


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--all", "everything", is_flag=True, help="Grade also what is graded already.")
@click.option(
    "-o", "assignments", multiple=True, metavar="OPTION=VALUE",
    help="An option of the task, in place of the run's; `mdm plugins TASK` lists them.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
    help="Where the run's data lies now.",
)  # fmt: skip
@click.option("--allow-code-execution", is_flag=True, help="Let the task run what the model wrote, in a sandbox.")
@output_flags
@JSON
def grade(
    run: Path, everything: bool, assignments: tuple[str, ...], data: Path | None, allow_code_execution: bool,
    quiet: bool, verbose: bool, log_file: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Grade a run's results later, or once more.

    Without --all those that are not graded yet, such as pictures that another machine made. Nothing is decoded, and
    what could not be decoded stays wrong. What is graded when Ctrl-C comes is kept.
    """
    from mdm.cli.progress import progress
    from mdm.cli.summary_table import report
    from mdm.runs import processes
    from mdm.runs.watch import Interrupted

    from mdm_report.regrade import regrade

    try:
        with progress(quiet, verbose, log_file) as observer:
            summary = regrade(
                run, assignments, observer, everything=everything, data=data, allow_code_execution=allow_code_execution
            )
    except Interrupted as stop:
        report(stop.summary, run, as_json)
        click.echo(f"mdm: {stop.why}; to go on: {shlex.join(['mdm', *sys.argv[1:]])}", err=True)
        return processes.INTERRUPTED
    return report(summary, run, as_json)
