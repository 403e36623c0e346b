"""The flags that every decoding command has, and how they become a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from mdm.models.placement import DEVICE_MAPS, DTYPES, QUANTIZATIONS
from mdm.protocols.settings import SCHEDULES

F = TypeVar("F", bound=Callable[..., Any])


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """A number from 1, or auto."""
        if value == "auto":
            return "auto"
        try:
            return int(click.IntRange(1).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither auto nor a number from 1.", param, ctx)


SIZE = _Size()
"""A number of rows, or as many as fit."""

DECODE = (
    click.option("--model", multiple=True, metavar="NAME", help="Model: `tiny`, a local folder or a hub id."),
    click.option("--sampler", multiple=True, metavar="NAME", help="Sampler (default: info-gain)."),
    click.option("--cache", metavar="NAME", help="Cache (default: the model's own: block for SDAR, else none)."),
    click.option("--seed", type=int, help="Seed of examples and draws (default: 0)."),
    click.option("--gen-length", type=click.IntRange(0), help="Tokens to generate (default: the task's, or 64)."),
    click.option("--steps", type=click.IntRange(1), help="Steps of a whole generation (default: one a token)."),
    click.option(
        "--tokens-per-step", type=click.IntRange(1), multiple=True, help="Set the pace by tokens, instead of --steps."
    ),
    click.option("--schedule", type=click.Choice(SCHEDULES), help="How tokens spread over steps (default: even)."),
    click.option("--block-length", type=click.IntRange(1), help="Block length (default: the model's, or 32)."),
    click.option("--temperature", type=click.FloatRange(0), help="Of the tokens drawn (default: 0, the best one)."),
    click.option("--guidance", type=float, help="Scale of classifier-free guidance (default: 0, off)."),
    click.option("--eos-penalty", type=float, help="Taken off the end token's logit (default: 0)."),
    click.option("--pad-penalty", type=float, help="Taken off the padding token's logit (default: 0)."),
    click.option("--stop-at-eos", is_flag=True, default=None, help="Fill what follows an end token at once."),
    click.option(
        "--allowed-tokens",
        multiple=True,
        metavar="A:B",
        help="Draw only ids from A up to, not including, B (repeatable).",
    ),
    click.option("--suppressed-tokens", type=int, multiple=True, metavar="ID", help="Never draw this id (repeatable)."),
    click.option(
        "--trace",
        type=click.Choice(["plain", "full"]),
        help="full: each step also tells its confidences and the candidates it weighed (default: plain).",
    ),
    click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (default: auto)."),
    click.option("--dtype", type=click.Choice(["auto", *DTYPES]), help="Of the weights (default: auto)."),
    click.option(
        "--device-map",
        type=click.Choice(DEVICE_MAPS),
        help="Spread the weights over several devices, as accelerate does.",
    ),
    click.option(
        "--quantization", type=click.Choice(QUANTIZATIONS), help="Of the weights, by bitsandbytes or torchao."
    ),
    click.option(
        "--attn-implementation", metavar="NAME", help="transformers' attention: sdpa (its default), eager, ..."
    ),
    click.option("--offline", is_flag=True, default=None, help="Never ask the hub for the model."),
    click.option(
        "--compile", is_flag=True, default=None, help="Compile forwards and scoring: slow to begin, then faster."
    ),
    click.option("--adapter", metavar="FAMILY", help="The model's family, where its config.json does not tell."),
    click.option(
        "--max-rows", type=SIZE, help="Canvases in one forward, candidates included (default: auto, what fits)."
    ),
    click.option(
        "-o",
        "assignments",
        multiple=True,
        metavar="[PLUGIN.]OPTION=VALUE",
        help="An option of a sampler, the cache or the task; `mdm plugins NAME` lists them.",
    ),
    click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there."),
)


def decode_flags(command: F) -> F:
    """All of ``DECODE``, in their order."""
    for flag in reversed(DECODE):
        command = flag(command)
    return command


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were used, as the configuration's keys and values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flags.items()
        if value is not None and value != ()
    }
