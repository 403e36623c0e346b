"""``mdm clip-score``: how well pictures show what their prompts say."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click
from mdm.errors import MdmError, MdmWarning

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
DEFAULT = "openai/clip-vit-large-patch14"


@click.command(short_help="CLIP score: do the pictures show what was asked for?")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN...")
@click.option("--clip", "name", default=DEFAULT, show_default=True, metavar="NAME", help="A folder or a hub id.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Pictures in a forward.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, with each picture's score.")
def clip_score(runs: tuple[Path, ...], name: str, device: str, batch_size: int, as_json: bool) -> None:
    """The mean cosine between CLIP's embeddings of the pictures of runs and of their prompts, variant by variant.

    About 0.2 to 0.35 for the usual CLIP; it is neither multiplied by 100 nor cut at 0.
    """
    from mdm.cli.progress import progress
    from mdm.cli.tables import show
    from mdm.models.placement import device_of
    from mdm.runs import files

    from mdm_imagescores.pictures import picture_sets, read_pictures

    sets = picture_sets(runs)
    for found in sets:
        if found.results is None:
            raise MdmError(
                f"{found.label} is no run, so nothing says what its pictures should show: name a run's folder"
            )
        if found.failed:
            warnings.warn(f"{found.label}: {found.failed} examples have no picture", MdmWarning, stacklevel=2)
    target = device_of(device)

    from mdm_imagescores.clip import Clip

    clip = Clip(name, target)
    records: list[dict[str, Any]] = []
    with progress() as observer:
        for found in sets:
            results, scores = found.results or (), list[float]()
            for start in range(0, len(results), batch_size):
                part = slice(start, start + batch_size)
                texts = [result.prompt for result in results[part]]
                scores += clip.cosines(list(read_pictures(found.paths[part])), texts).tolist()
                observer.on_progress(found.label, len(scores), len(results), None)
            if cut := sum(map(clip.is_cut, {result.prompt for result in results})):
                warnings.warn(
                    f"{found.label}: {cut} prompts have more than {clip.longest} tokens, the rest of which is not read",
                    MdmWarning, stacklevel=2,
                )  # fmt: skip
            records.append(
                {
                    "label": found.label, "clip": name, "pictures": len(scores), "failed": found.failed,
                    "clip_score": sum(scores) / len(scores),
                    "examples": [
                        {"id": result.id, "repeat": result.repeat, "row": result.row, "clip_score": score}
                        for result, score in zip(results, scores, strict=True)
                    ],
                }
            )  # fmt: skip
    if as_json:
        click.echo(files.to_json(records, indent=2))
        return
    cells = [[record["label"], str(record["pictures"]), f"{record['clip_score']:.4f}"] for record in records]
    show(["run", "pictures", "CLIP score"], cells, right=["pictures", "CLIP score"])
    click.echo(f"CLIP: {name}")
