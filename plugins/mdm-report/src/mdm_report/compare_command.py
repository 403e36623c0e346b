"""``mdm compare``: runs side by side, paired by example."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from mdm.cli.tables import interval, share

PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
Record = dict[str, Any]
PLAIN = (
    "label", "run", "model", "sampler", "tokens_per_step", "cache", "task", "metric", "examples", "repeats", "accuracy",
    "accuracy_se", "cumulative_entropy", "forwards", "rows", "tokens", "seconds", "forwards_per_example",
    "rows_per_example", "seconds_per_example", "errors", "tokens_per_forward", "tokens_per_forward_until_eos", "aup",
    "aup_until_eos",
)  # fmt: skip
PAIRED = ("wins", "ties", "losses", "difference", "p_value", "test", "entropy_difference")


@click.command(short_help="Compare runs, samplers and models, example by example.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN...")
@click.option("--baseline", metavar="NAME", help="Label or sampler to set the others against.  [default: the first]")
@click.option("--metric", metavar="NAME", help="Grade to compare.  [default: the task's accuracy]")
@click.option("--intersect", is_flag=True, help="Compare the examples that all have, where the runs differ in them.")
@click.option("--csv", "table", type=PATH, metavar="FILE", help="Write all numbers as CSV.")
@click.option("--plot", "picture", type=PATH, metavar="FILE", help="Draw accuracy against rows: .png, .svg or .pdf.")
@click.option("--markdown", is_flag=True, help="A Markdown table on stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
def compare(
    runs: tuple[Path, ...],
    baseline: str | None,
    metric: str | None,
    intersect: bool,
    table: Path | None,
    picture: Path | None,
    markdown: bool,
    as_json: bool,
) -> None:
    """Compare runs, and the samplers, models and paces inside of each, example by example.

    Differences are to the baseline at the same pace: with a 95% bootstrap interval, wins/ties/losses, and the exact
    McNemar test. Costs are per decoded example. Tokens per forward are given for all tokens and for those before the
    first end token. AUP, accuracy under parallelism, is one number for the runs of a sampler at several speeds.
    """
    from mdm.runs import files

    from mdm_report import compare_plot
    from mdm_report.compare import compare as compare_runs

    if picture and table and picture.resolve() == table.resolve():
        raise click.UsageError(f"--csv and --plot are both {table}: name two files")
    records = compare_runs(runs, baseline=baseline, metric=metric, intersect=intersect)
    if picture:
        compare_plot.plot(records, picture)
    if table:
        files.write_text_atomic(table, _csv(records))
    if as_json:
        click.echo(files.to_json(records, indent=2))
        return
    for record in records:  # differences are in the unit of both
        record["is_share"] = all(other["is_share"] for other in records)
    shown = [name for name, (is_shown, _) in COLUMNS.items() if is_shown(records)]
    cells = [[COLUMNS[name][1](record) for name in shown] for record in records]
    columns = [records[0]["metric"] if name == "accuracy" else name for name in shown]
    if markdown:
        click.echo(_markdown(columns, cells))
        return
    from mdm.cli.tables import show

    show(columns, cells, right=[name for name in columns if name != "run"], spare=SPARE)
    if unfinished := [record["label"] for record in records if not record["complete"]]:
        click.echo(f"incomplete: {', '.join(unfinished)}; the run's own command goes on")
    against = {record["against"]["label"] for record in records if "against" in record}
    if against:
        click.echo(f"differences are to {', '.join(sorted(against))}; entropy in nats; costs are per example")
    for path in filter(None, (table, picture)):
        click.echo(f"written: {path}")


def _always(records: list[Record]) -> bool:
    return True


def _several(records: list[Record]) -> bool:
    return len(records) > 1


def _repeated(records: list[Record]) -> bool:
    return any(record["repeats"] > 1 for record in records)


def _of_several_speeds(records: list[Record]) -> bool:
    return any(record["aup"] is not None for record in records)


def _number(value: float | None, digits: int) -> str:
    """A number that may be unknown."""
    return "" if value is None else f"{value:.{digits}f}"


def _paired(text: Callable[[Record, bool], str]) -> Callable[[Record], str]:
    return lambda record: text(record["against"], record["is_share"]) if "against" in record else ""


COLUMNS: dict[str, tuple[Callable[[list[Record]], bool], Callable[[Record], str]]] = {
    "run": (_always, lambda record: record["label"]),
    "examples": (_always, lambda record: str(record["examples"])),
    "accuracy": (_always, lambda record: share(record["accuracy"], record["is_share"])),
    "std. error": (_repeated, lambda record: share(record["accuracy_se"] or 0, record["is_share"])),
    "95% interval": (_always, lambda record: interval(record["accuracy_ci95"], record["is_share"])),
    "difference": (_several, _paired(lambda pair, is_share: share(pair["difference"], is_share, "+"))),
    "its 95% interval": (_several, _paired(lambda pair, is_share: interval(pair["difference_ci95"], is_share, "+"))),
    "wins/ties/losses": (_several, _paired(lambda pair, _: f"{pair['wins']}/{pair['ties']}/{pair['losses']}")),
    "p": (_several, _paired(lambda pair, _: f"{pair['p_value']:.3f}" if pair["p_value"] >= 0.0005 else "<0.001")),
    "cum. entropy": (_always, lambda record: _number(record["cumulative_entropy"], 3) or "NaN"),
    "forwards": (_always, lambda record: f"{record['forwards_per_example']:.1f}"),
    "rows": (_always, lambda record: f"{record['rows_per_example']:.1f}"),
    "tokens/forward": (_always, lambda record: _number(record["tokens_per_forward"], 2)),
    "to EOS": (_always, lambda record: _number(record["tokens_per_forward_until_eos"], 2)),
    "AUP": (_of_several_speeds, lambda record: _number(record["aup"], 1)),
    "seconds": (_always, lambda record: f"{record['seconds_per_example']:.3f}"),
}
"""The table's columns: whether a table of these records has the column, and a record's cell in it."""

SPARE = (
    "to EOS", "seconds", "tokens/forward", "std. error", "rows", "forwards", "its 95% interval", "cum. entropy",
    "95% interval", "examples", "p", "wins/ties/losses", "AUP",
)  # fmt: skip
"""The columns that a narrow terminal does without, the first one first."""


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _csv(records: list[Record]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    intervals = ("accuracy_ci95_low", "accuracy_ci95_high")
    paired = (
        "difference_ci95_low",
        "difference_ci95_high",
        "entropy_difference_ci95_low",
        "entropy_difference_ci95_high",
    )
    writer.writerow([*PLAIN, *intervals, "baseline", *PAIRED, *paired])
    for record in records:
        against = record.get("against", {})
        ends = [*against.get("difference_ci95", ("", "")), *against.get("entropy_difference_ci95", ("", ""))]
        writer.writerow(
            [
                *("" if record[name] is None else record[name] for name in PLAIN),
                *(record["accuracy_ci95"] or ("", "")),
                against.get("label", ""),
                *(against.get(name, "") for name in PAIRED),
                *ends,
            ]
        )
    return text.getvalue()
