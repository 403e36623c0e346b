"""``mdm generate --image``: what a text says, drawn once or several times, saved as a picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil, isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mdm.errors import MdmError
from mdm.protocols.task import Prompt

if TYPE_CHECKING:
    from mdm.models.model import Model
    from mdm.protocols.hooks import StepEvent
    from mdm.runs.config import PromptConfig

DEFAULTS = {"guidance": 3.5}
"""What holds for a picture unless a flag or a preset says otherwise: unguided ones hardly show what the text says."""

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
GAP = 8
"""Pixels between the pictures of a sheet."""


def check(file: Path) -> None:
    """Refuse, before anything is loaded, a file that no picture can be written into."""
    from mdm.runs.files import check_writable

    if file.suffix.lower() not in FORMATS:
        raise MdmError(f"--image {file}: the name should end in one of {', '.join(FORMATS)}")
    check_writable(file)


def draw(
    config: PromptConfig, model: Model, text: str, file: Path, count: int, *, watched: bool, as_json: bool
) -> None:
    """Draw ``count`` pictures of what ``text`` says, save them, and say what they cost."""
    from mdm.cli.decoding import decode, record
    from mdm.engine.memory import check_many
    from mdm.engine.pictures import for_pictures
    from mdm.runs.files import to_json

    if config.gen_length is not None:
        given = f"gen_length of the preset {config.preset}" if config.preset else "--gen-length"
        raise MdmError(f"{given} does not apply to --image: a picture has as many tokens as the model gives it")
    check_many("-n", count, 1 << 16)
    layouts = [model.lay_out(Prompt(text, kind="image"))] * count
    start = time.perf_counter()
    with _steps(None if watched else for_pictures(config, layouts, model.spec).steps) as on_step:
        results = decode(config, model, layouts, watched, on_step=on_step)
    seconds = time.perf_counter() - start
    save(file, [result.image for result in results])
    if as_json:
        drawn = [record(config, result) for result in results]
        click.echo(to_json({"image": str(file), "pictures": drawn, "seconds": seconds}))
        return
    if watched:
        _show(results[0].image)
    click.echo(str(file))
    if count > 1 and len({tuple(result.tokens) for result in results}) == 1:
        click.echo(
            "mdm: the pictures are all the same: what differs between them is drawn at a --temperature", err=True
        )
    entropy = sum(result.cumulative_entropy for result in results) / count
    costs = f"{max(r.forwards for r in results)} forwards, {sum(r.rows for r in results)} rows"
    click.echo(f"{costs}, cumulative entropy {entropy:.3f} nats, {seconds:.1f} s", err=True)


def save(file: Path, images: Sequence[Any]) -> None:
    """Save pictures, uint8 ``[H, W, 3]`` of one size, as one: side by side, then row by row."""
    import numpy as np
    from mdm.runs.files import atomic_file
    from PIL import Image  # a package whose models make pictures brings it

    columns = isqrt(len(images) - 1) + 1
    height, width = (side + GAP for side in images[0].shape[:2])
    sheet = np.full((ceil(len(images) / columns) * height - GAP, columns * width - GAP, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    with atomic_file(file) as part:
        Image.fromarray(sheet).save(part, format=FORMATS[file.suffix.lower()])


def _show(image: Any) -> None:
    """The finished picture, where the terminal has the colours for it."""
    from mdm.cli.picture_text import half_blocks
    from rich.console import Console

    console = Console(stderr=True)
    if console.color_system == "truecolor":
        console.print(half_blocks(image, console.width))


@contextmanager
def _steps(total: int | None) -> Iterator[Callable[[StepEvent], None] | None]:
    """What counts so many steps on stderr; None where the canvas itself is shown, or their number is not known."""
    from mdm.cli.progress import progress

    if total is None:
        yield None
        return
    with progress() as observer:
        yield lambda event: observer.on_progress(
            "drawing, steps", max((line["step"] + 1 for line in event.lines), default=0), total, None
        )
