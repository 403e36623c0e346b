"""``mdm trace``: what runs decoded, step by step, to look at."""

from __future__ import annotations

from pathlib import Path

import click

RUNS = click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")


@click.group()
def trace() -> None:
    """Look at how runs decoded. RUN is a folder that `mdm run` wrote; several are set side by side."""


@trace.command()
@RUNS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Which file.  [default: trace.html in the (first) run]",
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many examples.")
@click.option("--example", "examples", multiple=True, metavar="ID", help="These examples, whatever --limit.")
def view(runs: tuple[Path, ...], out: Path | None, limit: int, examples: tuple[str, ...]) -> None:
    """Write one HTML file that shows the decoding step by step. It needs no network.

    A run with `--trace full` also shows confidences and the candidates that were weighed.
    """
    from mdm.runs import files

    from mdm_report import view as views
    from mdm_report.view import data

    path = out or runs[0] / "trace.html"
    found = data.load(runs, limit=limit, examples=examples)
    files.write_text_atomic(path, views.page(found))
    _tell(path, len(found["samples"]), found["left_out"])


@trace.command()
@RUNS
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A .png, .svg or .pdf.")
@click.option("--example", metavar="ID", help="Which example.  [default: the first]")
@click.option("--by", type=click.Choice(["step", "entropy"]), default="step", show_default=True, help="Colours.")
def plot(runs: tuple[Path, ...], out: Path, example: str | None, by: str) -> None:
    """Draw one example for a paper: the order of decoding by sampler, and the cumulative entropy.

    Needs matplotlib.
    """
    from mdm_report.view import data, plot

    plot.draw(data.load(runs, limit=1, examples=[example] if example else []), out, by)
    _tell(out, 1, 0)


def _tell(path: Path, shown: int, left_out: int) -> None:
    rest = f"; {left_out} more: raise --limit or name them with --example" if left_out else ""
    click.echo(f"{path} ({shown} example{'s' if shown > 1 else ''}{rest})")
