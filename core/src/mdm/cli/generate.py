"""``mdm generate``: one prompt, its text on stdout, or its picture in a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.flags import Grouped, decode_flags, used
from mdm.cli.progress import waiting
from mdm.errors import MdmError, printable
from mdm.protocols.settings import DEFAULT_GEN_LENGTH
from mdm.protocols.task import MASK, Message, Picture, Prompt

if TYPE_CHECKING:
    from mdm.models.layout import Layout
    from mdm.models.model import Model
    from mdm.protocols.model import PromptStyle
    from mdm.runs.config import PromptConfig

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(cls=Grouped)
@click.argument("text")
@click.option("--infill", is_flag=True, help=f"Fill the {MASK} in TEXT instead of continuing it.")
@click.option("--mask", metavar="STRING", help=f"How an infill writes a masked token.  [default: {MASK}]")
@click.option("--chat/--no-chat", default=None, help="TEXT is a user's message.  [default: as the model is used to]")
@click.option(
    "--image", "image", type=FILE, help="Draw what TEXT says into this file (.png, .jpg, .webp), guided by 3.5."
)
@click.option("-n", "count", type=click.IntRange(1), help="How many pictures; several make one sheet.  [default: 1]")
@click.option("--look", type=FILE, help="TEXT is about the picture in this file.")
@click.option("--candidates", metavar="N|all", help="The sampler's option of that name: candidates it compares.")
@click.option("--live", "watched", is_flag=True, help="Show the canvas as it is decoded, on stderr.")
@decode_flags
def generate(
    text: str, infill: bool, mask: str | None, chat: bool | None, image: Path | None, count: int | None,
    look: Path | None, candidates: str | None, watched: bool, assignments: tuple[str, ...], as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Decode one prompt. TEXT `-` reads it from stdin."""
    from mdm.runs import config as configs, presets
    from mdm.runs.decode_args import load_model

    if text == "-":
        if sys.stdin is None:
            raise MdmError("TEXT - is read from stdin, which is closed")
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise MdmError("TEXT - is read from stdin, which is not in UTF-8") from error
    _check_kind(infill, mask, chat, image, count, look)
    asked = used(flags) | ({} if chat is None else {"prompt_style": "chat" if chat else "compact"})
    if candidates is not None:
        assignments = (*assignments, f"candidates={candidates}")
    if image is not None:
        from mdm.cli import pictures

        pictures.check(image)
        asked = pictures.DEFAULTS | asked if "preset" not in asked else asked
    config = configs.build(configs.PromptConfig, None, asked, assignments)
    if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
        raise MdmError("generate takes one --model and one --sampler at one pace; `mdm run` compares several")
    if (image or look) is not None and config.image_tokenizer is None:
        raise MdmError(
            f"{'--image' if image else '--look'} needs what turns pictures into codes and back: "
            "--image-tokenizer, such as showlab/magvitv2"
        )
    # What a preset says of the length is for continuations.
    length = asked.get("gen_length", 0) if infill else config.gen_length
    gen_length = DEFAULT_GEN_LENGTH if length is None else length
    mask = mask or MASK
    if image is None and gen_length == 0 and not (infill and mask in text):
        way_out = f"only --infill fills in the {mask} of a text" if mask in text else f"the text holds no {mask}"
        raise MdmError(f"nothing to decode: --gen-length is 0 and {way_out}")

    with waiting(f"loading {config.model[0]}"):
        model = load_model(config, config.model[0])
    for warning in presets.warnings(config.preset, {config.model[0]: model.spec.family}):
        click.echo(f"mdm: {warning}", err=True)
    if image is not None:
        pictures.draw(config, model, text, image, count or 1, watched=watched, as_json=as_json)
        return
    style = "chat" if look else config.prompt_style or model.spec.prompt_style
    layout = model.lay_out(_prompt(text, gen_length, infill, style, look), mask)
    _print(config, model, layout, watched, as_json)


def _check_kind(
    infill: bool, mask: str | None, chat: bool | None, image: Path | None, count: int | None, look: Path | None
) -> None:
    """Refuse flags that ask for different kinds of answers, or that change nothing."""
    if infill and chat:
        raise MdmError("--infill takes TEXT as it is: it cannot be a --chat message")
    if mask == "":
        raise MdmError("--mask is empty")
    if mask and not infill:
        raise MdmError(f"--mask {mask} is how an infill writes a masked token: give --infill too")
    if count is not None and image is None:
        raise MdmError("-n is how many pictures are drawn: give --image too")
    if image is not None:
        others = {"--infill": infill, "--chat": chat, "--no-chat": chat is False, "--look": look}
        for flag in (flag for flag, value in others.items() if value):
            raise MdmError(f"{flag} does not apply to --image, which draws what TEXT says")
    if look is not None and (infill or chat is False):
        raise MdmError(f"{'--infill' if infill else '--no-chat'} does not apply to --look, which asks in a chat")


def _prompt(text: str, gen_length: int, infill: bool, style: PromptStyle, look: Path | None) -> Prompt:
    if infill:
        return Prompt("", text, gen_length)
    message = Message("user", text if look is None else (Picture(look), text))
    return Prompt((message,) if style == "chat" else text, "", gen_length)


def _print(config: PromptConfig, model: Model, layout: Layout, watched: bool, as_json: bool) -> None:
    """Decode a prompt for a text, and print this."""
    from mdm.cli.decoding import decode, record
    from mdm.runs.decode_args import as_asked, completion
    from mdm.runs.files import to_json

    start = time.perf_counter()
    (result,) = decode(config, model, [layout], watched)
    seconds = time.perf_counter() - start
    answer = completion(config, model, as_asked(result, layout), layout)
    if as_json:
        click.echo(to_json({"text": answer} | record(config, result) | {"seconds": seconds}))
        return
    click.echo(printable(answer) if sys.stdout.isatty() else answer, color=True)  # a pipe gets it as it is
    costs = f"{result.forwards} forwards, {result.rows} rows"
    click.echo(f"{costs}, cumulative entropy {result.cumulative_entropy:.3f} nats, {seconds:.1f} s", err=True)
