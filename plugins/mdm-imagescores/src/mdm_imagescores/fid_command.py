"""``mdm fid`` and ``mdm fid-reference``: sets of pictures against a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mdm.errors import MdmError

if TYPE_CHECKING:
    from mdm_imagescores.scores import Meter

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
PATH = click.Path(path_type=Path, exists=True)
COLUMNS = {"fid": "FID", "sfid": "sFID", "inception_score": "IS", "precision": "precision", "recall": "recall"}
DIGITS = {"fid": 2, "sfid": 2, "inception_score": 2, "precision": 3, "recall": 3}

_SHARED: list[Callable[[Any], Any]] = [
    click.option(
        "--inception", required=True, type=FILE, metavar="FILE", help="Weights of the Inception network, safetensors."
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Pictures in a forward."),
    click.option(
        "--resize", type=click.IntRange(1, 8192), metavar="N", help="First make the pictures N x N, by Lanczos."
    ),
]


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both commands."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(short_help="FID, sFID, Inception Score, precision and recall.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN...")
@click.option(
    "--reference", required=True, type=PATH, metavar="PATH", help="An .npz of statistics, or a folder of pictures."
)
@_shared
@click.option("--precision-recall", is_flag=True, help="These too: they need the reference's pictures.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
def fid(runs: tuple[Path, ...], reference: Path, precision_recall: bool, as_json: bool, **flags: Any) -> None:
    """Score the pictures of runs, variant by variant, or of any folders, against a reference.

    FID and sFID say how far the pictures are from the reference's as a whole (lower is better), the Inception Score how
    clear and how diverse they are, precision how many look like the reference, recall how much of the reference they
    reach. --resize concerns the pictures that are scored, not the reference.
    """
    from mdm.cli.tables import show
    from mdm.runs import files

    from mdm_imagescores.pictures import picture_sets
    from mdm_imagescores.scores import check_set, open_reference, score

    sets = picture_sets(runs)
    for found in sets:
        check_set(found)
    opened = open_reference(reference, precision_recall)
    with _meter(flags) as meter:
        against = opened(meter)
        records = [score(found, against, meter, flags["resize"]) | {"reference": str(reference)} for found in sets]
    if as_json:
        click.echo(files.to_json(records, indent=2))
        return
    names = [name for name in COLUMNS if name in records[0]]
    cells = [[r["label"], str(r["pictures"]), *(f"{r[name]:.{DIGITS[name]}f}" for name in names)] for r in records]
    numbers = ["pictures", *(COLUMNS[name] for name in names)]
    show(["run", *numbers], cells, right=numbers)
    click.echo(f"reference: {reference}")


@click.command(short_help="Make the reference of a FID from a folder of pictures.")
@click.argument("folder", type=FOLDER)
@click.option("--out", required=True, type=FILE, metavar="FILE.npz", help="The statistics go there.")
@_shared
def fid_reference(folder: Path, out: Path, **flags: Any) -> None:
    """Write what `mdm fid --reference` needs of a folder of pictures: mean and covariance of their features.

    So the folder is measured once. For precision and recall give `mdm fid` the folder itself.
    """
    from mdm.runs import files

    from mdm_imagescores import reference_file
    from mdm_imagescores.scores import single_set

    if out.suffix != ".npz":
        raise MdmError(f"--out {out}: the name should end in .npz")
    found = single_set(folder)
    files.check_writable(out)
    with _meter(flags) as meter:
        measured = meter.measure_set(found, flags["resize"])
    reference_file.write(out, measured)
    click.echo(f"written: {out}, of {len(found.paths)} pictures")


@contextmanager
def _meter(flags: Mapping[str, Any]) -> Iterator[Meter]:
    """The network of the flags, watched by a progress bar."""
    from mdm.cli.progress import progress
    from mdm.models.placement import device_of

    from mdm_imagescores.inception_weights import load_inception
    from mdm_imagescores.scores import Meter

    network = load_inception(flags["inception"], device_of(flags["device"]))
    with progress() as observer:
        yield Meter(network, flags["batch_size"], observer)
