"""``mdm bench``: what decoding costs beside the model, what a shape reaches, what options change."""

from __future__ import annotations

import json
from typing import Any

import click

JSON = click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout, and nothing else there.")


@click.group()
def bench() -> None:
    """Measure: `overhead` of decoding over the model, `decode` of a model's shape, `sweep` over options."""


@bench.command()
@click.option("--vocab", type=click.IntRange(8), default=126464, show_default=True, help="Vocabulary.")
@click.option("--hidden", type=click.IntRange(8), default=256, show_default=True, help="Hidden width.")
@click.option("--layers", type=click.IntRange(1), default=4, show_default=True, help="Layers.")
@click.option("--prompt-length", type=click.IntRange(1), default=192, show_default=True, help="Tokens of the prompt.")
@click.option("--gen-length", type=click.IntRange(1), default=64, show_default=True, help="Tokens to generate.")
@click.option("--block-length", type=click.IntRange(1), default=32, show_default=True, help="Block length.")
@click.option("--candidates", type=click.IntRange(1), default=8, show_default=True, help="Info-Gain's candidates.")
@click.option("--cache", multiple=True, metavar="NAME", help="Cache, again for more (default: none, prefix, dual).")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Prompts decoded together.")
@click.option("--pairs", type=click.IntRange(1), default=5, show_default=True, help="Interleaved measurements.")
@click.option("--compile", is_flag=True, help="Compile what runs at every step.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@JSON
def overhead(
    vocab: int, hidden: int, layers: int, cache: tuple[str, ...], pairs: int, threads: int, device: str, as_json: bool,
    **case: Any,
) -> None:  # fmt: skip
    """A whole decode against its own model calls replayed alone, and against a minimal forward.

    Random weights; Info-Gain; medians of interleaved measurements.
    """
    from mdm.bench.overhead import Case, measure
    from mdm.bench.shapes import Shape, random_model

    heads = max(1, hidden // 64)
    model = random_model(Shape("llada", vocab, hidden, layers, heads, heads, 4 * hidden), device=device)
    found = []
    for name in cache or ("none", "prefix", "dual"):
        click.echo(f"mdm: measuring {name} ...", err=True)
        found.append(measure(model, Case(cache=name, **case), pairs, threads))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from mdm.cli.tables import show

    columns = ("total/replay", "spread", "total/minimal", "replay/minimal", "operations/token", "syncs/step")
    more = ("head rows", "peak MB", "tokens/s")
    show(
        ["cache", *columns, *more],
        [
            [
                row["cache"],
                f"{row['total_over_replay']:.3f}",
                "{:.3f} to {:.3f}".format(*row["spread"]),
                f"{row['total_over_minimal']:.3f}",
                f"{row['replay_over_minimal']:.3f}",
                f"{row['operations_per_token']:.0f}",
                f"{row['syncs_per_step']:.2f}",
                f"{row['head_rows']:,}",
                f"{row['peak_bytes'] / 1e6:.1f}",
                f"{row['tokens_per_second']:.1f}",
            ]
            for row in found
        ],
        right=(*columns, *more),
    )
