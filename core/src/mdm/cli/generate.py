"""``mdm generate``: one prompt, its text on stdout."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.flags import decode_flags, used
from mdm.errors import MdmError
from mdm.protocols.settings import DEFAULT_GEN_LENGTH
from mdm.protocols.task import MASK, Message, Prompt

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.model import Model
    from mdm.protocols.model import PromptStyle
    from mdm.runs.config import PromptConfig


@click.command()
@click.argument("text")
@click.option("--infill", is_flag=True, help=f"Fill the {MASK} in TEXT instead of continuing it.")
@click.option("--mask", metavar="STRING", help=f"How an infill writes a masked token (default: {MASK}).")
@click.option("--chat/--no-chat", default=None, help="TEXT is a user's message (default: as the model is used to).")
@click.option("--live", "watched", is_flag=True, help="Show the canvas as it is decoded, on stderr.")
@decode_flags
def generate(
    text: str, infill: bool, mask: str | None, chat: bool | None, watched: bool, assignments: tuple[str, ...],
    as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Decode one prompt. TEXT `-` reads it from stdin."""
    from mdm.runs import config as configs, presets
    from mdm.runs.decode_args import completion, encode, load_model

    if text == "-":
        text = sys.stdin.read()
    if infill and chat:
        raise MdmError("--infill takes TEXT as it is: it cannot be a --chat message")
    if mask == "":
        raise MdmError("--mask is empty")
    if mask and not infill:
        raise MdmError(f"--mask {mask} is how an infill writes a masked token: give --infill too")
    mask = mask or MASK
    asked = used(flags) | ({} if chat is None else {"prompt_style": "chat" if chat else "compact"})
    config = configs.build(configs.PromptConfig, None, asked, assignments)
    if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
        raise MdmError("generate takes one --model and one --sampler at one pace; `mdm run` compares several")
    # What a preset says of the length is for continuations.
    length = asked.get("gen_length", 0) if infill else config.gen_length
    gen_length = DEFAULT_GEN_LENGTH if length is None else length
    if gen_length == 0 and not (infill and mask in text):
        way_out = f"only --infill fills in the {mask} of a text" if mask in text else f"the text holds no {mask}"
        raise MdmError(f"nothing to decode: --gen-length is 0 and {way_out}")

    from mdm.runs.files import to_json

    model = load_model(config, config.model[0])
    for warning in presets.warnings(config.preset, {config.model[0]: model.spec.family}):
        click.echo(f"mdm: {warning}", err=True)
    style = config.prompt_style or model.spec.prompt_style
    ids, context = encode(model, _prompt(text, gen_length, infill, style), mask)
    start = time.perf_counter()
    result = _decode(config, model, ids, gen_length, watched)
    seconds = time.perf_counter() - start
    answer = completion(config, model, result.sequence, ids, context)
    if as_json:
        click.echo(to_json(_record(result, answer, seconds, full=config.trace == "full")))
        return
    click.echo(answer)
    costs = f"{result.forwards} forwards, {result.rows} rows"
    click.echo(f"{costs}, cumulative entropy {result.cumulative_entropy:.3f} nats, {seconds:.1f} s", err=True)


def _prompt(text: str, gen_length: int, infill: bool, style: PromptStyle) -> Prompt:
    if infill:
        return Prompt("", text, gen_length)
    return Prompt((Message("user", text),) if style == "chat" else text, "", gen_length)


def _decode(config: PromptConfig, model: Model, ids: list[int], gen_length: int, watched: bool) -> Result:
    from mdm import api
    from mdm.cli.live import live_view
    from mdm.runs.decode_args import canvas_texts, decode_settings
    from mdm.runs.variants import AUTOREGRESSIVE, without_policy

    if model.spec.attention == "causal":
        config = without_policy(config)
    sampler = next(iter(config.sampler), AUTOREGRESSIVE)
    settings = decode_settings(config, model, sampler)
    with live_view() if watched else nullcontext() as view:
        if view:
            view.on_begin(sampler, {0: canvas_texts(model, ids, gen_length)}, model.token_texts)
            settings |= {"trace": "full", "on_step": view.on_step}
        (result,) = api.decode(model, [ids], gen_length=gen_length, **settings)
    return result


def _record(result: Result, answer: str, seconds: float, *, full: bool) -> dict[str, Any]:
    """What ``--json`` prints."""
    from mdm.protocols.hooks import plain

    return {
        "text": answer, "tokens": list(result.tokens), "sequence": list(result.sequence),
        "cumulative_entropy": float(result.cumulative_entropy), "forwards": result.forwards, "rows": result.rows,
        "seconds": seconds, "trace": list(result.trace) if full else [plain(line) for line in result.trace],
    }  # fmt: skip
