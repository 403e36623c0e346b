"""The picture of a score: composition, lengths and pseudo-perplexities, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import files

from mdm_protein.sequences import AMINO_ACIDS

KINDS = (".png", ".svg", ".pdf")
BINS = 20

Record = Mapping[str, Any]


def figure(path: Path) -> Any:
    """An empty matplotlib ``Figure`` for ``path``; asked for before long work that ends in a picture.

    Raises:
        MdmError: matplotlib is missing, or ``path`` is no picture.
    """
    if path.suffix.lower() not in KINDS:
        raise MdmError(f"{path}: a picture is one of {', '.join(KINDS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MdmError("a picture needs matplotlib: pip install 'mdm-protein[plot]'") from error
    return Figure(layout="constrained", figsize=(8, 5.5))


def draw(empty: Any, records: Sequence[Record], reference: Record | None, lengths: Sequence[int], path: Path) -> None:
    """Draw sets into an ``empty`` figure and write it.

    Args:
        lengths: those of the reference's sequences.
    """
    colors = [f"C{number}" for number in range(len(records))]
    grid = empty.add_gridspec(2, 2)
    _composition(empty.add_subplot(grid[0, :]), records, reference, colors)
    scored = [record for record in records if record.get("pseudo_perplexity") is not None]
    axes = empty.add_subplot(grid[1, 0] if scored else grid[1, :])
    values = [[row["length"] for row in record["examples"]] for record in records]
    _histogram(axes, [*values, *([lengths] if lengths else [])], [*colors, *(["0.6"] if lengths else [])])
    axes.set(xlabel="length (residues)", ylabel="share of sequences")
    if scored:
        axes = empty.add_subplot(grid[1, 1])
        values = [[v for row in r["examples"] if (v := row["pseudo_perplexity"]) is not None] for r in scored]
        _histogram(axes, values, [colors[records.index(record)] for record in scored])
        axes.set(xlabel="pseudo-perplexity", ylabel="share of sequences")
    empty.legend(loc="outside upper left", fontsize="small", ncols=3)
    with files.atomic_file(path) as part:
        empty.savefig(part, format=path.suffix[1:].lower(), dpi=150)


def _composition(axes: Any, records: Sequence[Record], reference: Record | None, colors: Sequence[str]) -> None:
    """Bars beside each other for each amino acid, the most frequent of the reference, or of the first set, first."""
    sets = [*zip(records, colors, strict=True), *([(reference, "0.6")] if reference else [])]
    by = (reference or records[0])["composition"]
    letters = sorted(AMINO_ACIDS, key=lambda letter: -by[letter])
    width = 0.8 / len(sets)
    for number, (record, color) in enumerate(sets):
        places = [place + (number - (len(sets) - 1) / 2) * width for place in range(len(letters))]
        shares = [100 * record["composition"][letter] for letter in letters]
        label = f"{record['label']} (reference)" if record is reference else record["label"]
        axes.bar(places, shares, width, color=color, label=label)
    axes.set_xticks(range(len(letters)), letters)
    axes.set(ylabel="of all residues (%)")
    axes.margins(x=0.01)


def _histogram(axes: Any, values: Sequence[Sequence[float]], colors: Sequence[str]) -> None:
    """Shares of each set in bins that all have in common."""
    every = [value for each in values for value in each]
    low, high = min(every), max(every)
    if low == high:
        low, high = low - 0.5, high + 0.5
    weights = [[1 / len(each)] * len(each) for each in values]
    axes.hist(values, bins=BINS, range=(low, high), weights=weights, color=list(colors))
