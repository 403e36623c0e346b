"""``mdm generate``: one prompt, its text on stdout."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from mdm.cli.flags import decode_flags, given
from mdm.errors import MdmError
from mdm.protocols.task import MASK, Message, Prompt


@click.command()
@click.argument("text")
@click.option("--infill", is_flag=True, help=f"Fill the {MASK} in TEXT instead of continuing it.")
@click.option("--mask", metavar="STRING", default=MASK, show_default=True, help="How TEXT writes a masked token.")
@click.option("--chat/--no-chat", default=None, help="TEXT is a user's message (default: as the model is used to).")
@click.option("--live", "watched", is_flag=True, help="Show the canvas as it is decoded, on stderr.")
@decode_flags
def generate(
    text: str,
    infill: bool,
    mask: str,
    chat: bool | None,
    watched: bool,
    assignments: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Decode one prompt. TEXT `-` reads it from stdin."""
    from mdm.runs import config as configs
    from mdm.runs.decode_args import decode_settings, encode, load_model

    if text == "-":
        text = sys.stdin.read()
    if infill and chat:
        raise MdmError("--infill takes TEXT as it is: it cannot be a --chat message")
    if not mask:
        raise MdmError("--mask is empty")
    config = configs.build(configs.DecodeConfig, None, given(flags), assignments)
    if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
        raise MdmError("generate takes one --model and one --sampler at one pace; `mdm run` compares several")
    masked = text.replace(mask, MASK)
    gen_length = config.gen_length if config.gen_length is not None else 0 if infill else 64
    if gen_length == 0 and MASK not in masked:
        raise MdmError(f"nothing to decode: --gen-length is 0 and the text holds no {mask}")

    from mdm import api
    from mdm.protocols.hooks import plain
    from mdm.runs.variants import AUTOREGRESSIVE, without_policy

    model = load_model(config, config.model[0])
    if model.spec.attention == "causal":
        config = without_policy(config)
    if infill:
        prompt = Prompt("", masked, gen_length)
    elif chat or (chat is None and model.spec.prompt_style == "chat"):
        prompt = Prompt((Message("user", masked),), "", gen_length)
    else:
        prompt = Prompt(masked, "", gen_length)
    ids, context = encode(model, prompt)
    sampler = next(iter(config.sampler), AUTOREGRESSIVE)
    settings = decode_settings(config, model, sampler)
    start = time.perf_counter()
    if watched:
        from mdm.cli.live import live_view

        canvas = [
            None if i == model.spec.mask_id else text for i, text in zip(ids, model.token_texts(ids), strict=True)
        ]
        with live_view() as seen:
            seen.on_begin(sampler, {0: [*canvas, *[None] * gen_length]}, model.token_texts)
            (result,) = api.decode(
                model, [ids], gen_length=gen_length, on_step=seen.on_step, **settings | {"trace": "full"}
            )
    else:
        (result,) = api.decode(model, [ids], gen_length=gen_length, **settings)
    seconds = time.perf_counter() - start
    completion = model.decode(result.sequence[context:])
    cost = {
        "cumulative_entropy": float(result.cumulative_entropy),
        "forwards": result.forwards,
        "rows": result.rows,
        "seconds": seconds,
    }
    if as_json:
        sequence, tokens = list(result.sequence), list(result.tokens)
        trace = list(result.trace) if config.trace == "full" else [plain(line) for line in result.trace]
        answer = {"text": completion, "tokens": tokens, "sequence": sequence, **cost, "trace": trace}
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    click.echo(completion)
    click.echo(
        f"{result.forwards} forwards, {result.rows} rows, cumulative entropy {cost['cumulative_entropy']:.3f} nats, "
        f"{seconds:.1f} s",
        err=True,
    )
