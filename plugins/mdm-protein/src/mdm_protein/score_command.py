"""``mdm protein-score``: how protein-like, diverse and new the sequences of runs and FASTA files are."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from mdm_protein.score import Record, Reference
    from mdm_protein.sets import SequenceSet

PATH = click.Path(path_type=Path, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)
NAME = "protein-score.json"
"""The file beside a run in which its scores are kept."""
COLUMNS = (
    "set", "id", "repeat", "sequence", "length", "standard", "entropy", "low_complexity", "longest_run",
    "longest_repeat", "nearest", "nearest_words", "nearest_identity", "pseudo_perplexity", "plddt", "ptm",
)  # fmt: skip
"""Of the CSV."""


@click.command(short_help="Score protein sequences: likelihood, composition, repeats, novelty, pLDDT.")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="RUN_OR_FASTA...")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FASTA",
    help="Real proteins to compare with.",
)
@click.option(
    "--align",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="Align with the N of the reference that share most words.  [default: none]",
)
@click.option("--scorer", metavar="NAME", help="Masked language model for the pseudo-perplexity: a folder or a hub id.")
@click.option("--stride", type=click.IntRange(1), default=1, show_default=True, help="Score every N-th residue.")
@click.option(
    "--window",
    type=click.IntRange(1),
    default=1022,
    show_default=True,
    help="Residues the scorer sees; of a longer sequence those around the one it scores.",
)
@click.option("--fold", metavar="NAME", help="ESMFold for pLDDT and pTM: a folder or a hub id.")
@click.option(
    "--fold-up-to",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Residues of the longest sequence that is folded.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Rows in a scorer's forward.")
@click.option("--fasta", type=FILE, metavar="FILE", help="Write the sequences as FASTA, but for empty ones.")
@click.option("--csv", "table", type=FILE, metavar="FILE", help="Write the measures of each sequence as CSV.")
@click.option(
    "--plot",
    "picture",
    type=FILE,
    metavar="FILE",
    help="Draw composition, lengths and pseudo-perplexities: .png, .svg or .pdf.",
)
@click.option("--out", type=FILE, metavar="FILE", help=f"Where the scores are kept.  [default: {NAME} in each run]")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, with each sequence's measures.")
def protein_score(
    paths: tuple[Path, ...],
    reference: Path | None,
    align: int,
    fasta: Path | None,
    table: Path | None,
    picture: Path | None,
    out: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Score the sequences of runs, variant by variant, and of FASTA files.

    Letters alone give composition, entropy, low complexity, repeats and diversity. --reference adds the divergence from
    its composition and what each sequence shares with the nearest of it; --scorer the pseudo-perplexity; --fold pLDDT.
    A run's scores are kept in its folder; the same command, stopped, goes on where it was.
    """
    from mdm.runs import files

    from mdm_protein import plot
    from mdm_protein.score import Reference
    from mdm_protein.sequences import fasta as fasta_lines
    from mdm_protein.sets import sequence_sets

    _check_flags(flags, align, reference)
    sets = sequence_sets(paths)
    places = [out or (one.source / NAME if one.source.is_dir() else None) for one in sets]
    documents = dict.fromkeys(place for place in places if place is not None)
    written = [*filter(None, (fasta, table, picture)), *documents]
    if len({path.resolve() for path in written}) < len(written):
        raise click.UsageError("two of --fasta, --csv, --plot and --out are one file: name several")
    for path in written:
        files.check_writable(path)
    empty = plot.figure(picture) if picture else None
    against = Reference.read(reference, align) if reference else None
    records, of_reference = _measured(sets, places, against, flags)
    asked = {
        "reference": of_reference, "align": align if reference else None, "scorer": flags["scorer"],
        "stride": flags["stride"] if flags["scorer"] else None,
        "window": flags["window"] if flags["scorer"] else None, "fold": flags["fold"],
    }  # fmt: skip
    for path in documents:
        here = [record for record, place in zip(records, places, strict=True) if place == path]
        files.write_json(path, asked | {"sets": here})
    if fasta:
        entries = ((one, entry) for one in sets for entry in one.entries if entry.sequence)
        lines = fasta_lines((f"{_plain(one.label)}/{entry.name}", entry.sequence) for one, entry in entries)
        files.write_text_atomic(fasta, "".join(lines))
    if table:
        files.write_text_atomic(table, _csv(records))
    if picture:
        plot.draw(empty, records, of_reference, against.found.lengths if against else [], picture)
    if as_json:
        click.echo(files.to_json(asked | {"sets": records}, indent=2))
        return
    _show(records, of_reference)
    for what in ("reference", "scorer", "fold"):
        if name := reference if what == "reference" else flags[what]:
            click.echo(f"{what}: {name}")
    for path in written:
        click.echo(f"written: {path}")


def _check_flags(flags: Mapping[str, Any], align: int, reference: Path | None) -> None:
    """Refuse flags that say how to do what is not asked for."""
    if align and reference is None:
        raise click.UsageError("--align aligns with a reference: give --reference FASTA")
    asked = {**flags, "network": flags["scorer"] or flags["fold"]}
    needs = {"stride": "scorer", "window": "scorer", "batch_size": "scorer", "fold_up_to": "fold", "device": "network"}
    context = click.get_current_context()
    for flag, need in needs.items():
        if asked[need] is None and context.get_parameter_source(flag) is ParameterSource.COMMANDLINE:
            wanted = "--scorer and --fold" if need == "network" else f"--{need}"
            raise click.UsageError(f"--{flag.replace('_', '-')} is of {wanted}, which is not given")


def _measured(
    sets: Sequence[SequenceSet], places: Sequence[Path | None], reference: Reference | None, flags: Mapping[str, Any]
) -> tuple[list[Record], Record | None]:
    """The measures of sets and of the reference. What networks say is kept in a log beside each place, as it comes."""
    from mdm.cli.progress import progress

    from mdm_protein.kept import Kept
    from mdm_protein.score import Meter

    networks = _networks(flags)
    with progress() as observer, ExitStack() as logs:
        meter = Meter(observer, reference, **networks)
        kept = {
            place: logs.enter_context(closing(Kept(place.with_name(place.name + "l") if place and networks else None)))
            for place in dict.fromkeys(places)
        }
        records = [meter.measure(one, kept[place]) for one, place in zip(sets, places, strict=True)]
        return records, meter.measure_reference()


def _networks(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The networks of the flags, loaded before anything is measured."""
    found: dict[str, Any] = {}
    if flags["scorer"] is None and flags["fold"] is None:
        return found
    from mdm.models.placement import device_of

    device = device_of(flags["device"])
    if flags["scorer"] is not None:
        from mdm_protein.perplexity import Pace, Scorer

        found["scorer"] = Scorer(flags["scorer"], device, Pace(flags["batch_size"], flags["stride"], flags["window"]))
    if flags["fold"] is not None:
        from mdm_protein.folding import Folder

        found |= {"folder": Folder(flags["fold"], device), "fold_up_to": flags["fold_up_to"]}
    return found


def _plain(label: str) -> str:
    """A label without blanks, as the first word of a FASTA header."""
    return "_".join(label.split())


def _csv(records: Sequence[Record]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        for row in record["examples"]:
            writer.writerow([record["label"], *("" if row.get(c) is None else row[c] for c in COLUMNS[1:])])
    return text.getvalue()


def _number(name: str, digits: int) -> Callable[[Record], str]:
    return lambda record: "" if record.get(name) is None else f"{record[name]:.{digits}f}"


def _percent(name: str) -> Callable[[Record], str]:
    return lambda record: "" if record.get(name) is None else f"{record[name]:.1%}"


def _length(record: Record) -> str:
    length = record["length"]
    if length["least"] == length["most"]:
        return str(length["least"])
    return f"{length['mean']:.0f} ({length['least']}-{length['most']})"


ROWS: dict[str, Callable[[Record], str]] = {
    "sequences": lambda record: str(record["sequences"]),
    "without a sequence": lambda record: str(record["failed"]) if record.get("failed") else "",
    "length (residues)": _length,
    "letters of the 20": _percent("standard"),
    "distinct": _percent("distinct"),
    "diversity (3-mers)": _number("diversity", 3),
    "entropy (bits)": _number("entropy", 2),
    "low complexity": _percent("low_complexity"),
    "longest run (residues)": _number("longest_run", 1),
    "longest repeat": _number("longest_repeat", 1),
    "divergence (bits)": _number("divergence", 4),
    "nearest: 3-mers shared": _number("nearest_words", 3),
    "nearest: identity": _percent("nearest_identity"),
    "pseudo-perplexity": _number("pseudo_perplexity", 2),
    "pLDDT (0 to 100)": _number("plddt", 1),
    "pTM (0 to 1)": _number("ptm", 3),
}
"""The table's rows; one that no set has is left out."""


def _show(records: Sequence[Record], reference: Record | None) -> None:
    from mdm.cli.tables import show

    columns = [*records, *([reference] if reference else [])]
    names = [record["label"] for record in records] + (["reference"] if reference else [])
    cells = [[name, *(cell(record) for record in columns)] for name, cell in ROWS.items()]
    show(["means over sequences", *names], [row for row in cells if any(row[1:])], right=names)
    if reference and reference["measured"] < reference["sequences"]:
        click.echo(f"of the reference {reference['measured']} sequences, evenly spread, are measured by themselves")
