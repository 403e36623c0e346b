"""``mdm bench``: the cost of decoding over the model, the speed of a model's shape, the effect of options."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from mdm.cli.progress import PATIENCE, steps
from mdm.runs.files import to_json

if TYPE_CHECKING:
    from mdm.models import Model

    from mdm_bench.case import Case

F = TypeVar("F", bound=Callable[..., Any])
COUNT = click.IntRange(1)
HEAD = 64
"""Width of a head of `overhead`'s model, where it has more than one."""
PATH = click.Path(path_type=Path)
GRAPHS = click.option("--graphs/--no-graphs", default=True, help="Replay forwards as CUDA graphs (on a GPU).")
JSON = click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout, and nothing else there.")


@click.group(short_help="Measure decoding: its cost, its speed, its options.")
def bench() -> None:
    """Measure: `overhead` of decoding over the model, `decode` of a model's shape, `sweep` over options."""


def _width(ctx: click.Context, param: click.Parameter, hidden: int) -> int:
    if hidden % 2 or (hidden >= 2 * HEAD and hidden % HEAD):
        raise click.BadParameter(
            f"{hidden}: choose an even number below {2 * HEAD}, or a multiple of {HEAD}", ctx, param
        )
    return hidden


def _threads(ctx: click.Context, param: click.Parameter, threads: int) -> int:
    cores = os.cpu_count() or 1
    if threads > cores:
        raise click.BadParameter(f"{threads}: this machine has {cores} cores", ctx, param)
    return threads


def _finite(ctx: click.Context, param: click.Parameter, number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"{number} is no number of GB/s", ctx, param)
    return number


@bench.command()
@click.option("--vocab", type=click.IntRange(8), default=126464, show_default=True, help="Vocabulary.")
@click.option(
    "--hidden", type=click.IntRange(8), default=256, show_default=True, callback=_width,
    help="Hidden width: even, from 128 on a multiple of 64.",
)  # fmt: skip
@click.option("--layers", type=click.IntRange(1), default=4, show_default=True, help="Layers.")
@click.option("--prompt-length", type=click.IntRange(1), default=192, show_default=True, help="Tokens of the prompt.")
@click.option("--gen-length", type=click.IntRange(1), default=64, show_default=True, help="Tokens to generate.")
@click.option("--block-length", type=click.IntRange(1), default=32, show_default=True, help="Block length.")
@click.option("--candidates", type=click.IntRange(1), default=8, show_default=True, help="Info-Gain's candidates.")
@click.option("--cache", multiple=True, metavar="NAME", help="Cache, again for more.  [default: none, prefix, dual]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Prompts decoded together.")
@click.option("--pairs", type=click.IntRange(1), help="Rounds of timing.  [default: 5, or what fits into 80 s a cache]")
@click.option("--compile", is_flag=True, help="Compile forwards and scoring.")
@GRAPHS
@click.option("--threads", type=COUNT, default=1, show_default=True, callback=_threads, help="CPU threads.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@JSON
def overhead(
    vocab: int, hidden: int, layers: int, cache: tuple[str, ...], pairs: int | None, threads: int, device: str,
    as_json: bool, **case: Any,
) -> int:  # fmt: skip
    """A whole decode against its own model calls replayed alone, and against a minimal forward.

    Random weights; Info-Gain; medians of interleaved measurements. Ctrl-C leaves the caches that are done.
    """
    from mdm.models.placement import device_of

    from mdm_bench.case import Case
    from mdm_bench.decode import model_for
    from mdm_bench.overhead import ROUNDS, measure
    from mdm_bench.shapes import Shape

    heads = max(1, hidden // HEAD)
    shape = Shape("llada", vocab, hidden, layers, heads, heads, 4 * hidden)
    cases = [Case(cache=name, **case) for name in dict.fromkeys(cache or ("none", "prefix", "dual"))]
    named = f"a model of --vocab {vocab} --hidden {hidden} --layers {layers}"
    model = model_for(named, shape, cases, device=device_of(device), dtype="float32")
    measured: list[dict[str, Any]] = []
    stopped = False
    try:
        for one in cases:
            click.echo(f"mdm: {one.cache}: counting ...", err=True)
            with _rounds(one.cache, pairs or ROUNDS) as tick:
                measured.append(measure(model, one, pairs, threads, tick))
            click.echo(
                "mdm: {cache}: total/replay {total_over_replay:.3f}, rounds {pairs}".format(**measured[-1]), err=True
            )
    except KeyboardInterrupt:
        stopped = True
    finally:  # whatever ends it, what is measured is reported
        if as_json:
            click.echo(to_json(measured, indent=2))
        elif measured:
            from mdm.cli.tables import show

            rows = [[row["cache"], *(cell(row) for cell in OVERHEAD_COLUMNS.values())] for row in measured]
            show(["cache", *OVERHEAD_COLUMNS], rows, [*OVERHEAD_COLUMNS])
            click.echo(
                "total over: the calls replayed; calls with a whole head; the least work. The rest is in --json."
            )
            _report_graphs(measured)
    if stopped:
        click.echo(f"mdm: interrupted after {len(measured)} of {len(cases)} caches", err=True)
    return 130 if stopped else 0


@contextmanager
def _rounds(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over the rounds of timing, advanced only by rounds that take longer than ``PATIENCE`` seconds."""
    with steps(name, total) as tick:
        start = time.monotonic()

        def done(count: int) -> None:
            nonlocal start
            if not count:
                click.echo(f"mdm: {name}: timing ...", err=True)
            elif time.monotonic() - start > PATIENCE:
                tick(count)
            start = time.monotonic()

        yield done


OVERHEAD_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "/replay": lambda row: f"{row['total_over_replay']:.3f}",
    "spread": lambda row: "{:.2f}-{:.2f}".format(*row["spread"]),
    "/whole head": lambda row: f"{row['total_over_whole_head']:.3f}",
    "/minimal": lambda row: f"{row['total_over_minimal']:.3f}",
    "ops/token": lambda row: f"{row['operations_per_token']:.0f}",
    "waits/step": lambda row: f"{row['syncs_per_step']:.2f}",
    "uploads/step": lambda row: f"{row['uploads_per_step']:.2f}",
    "head rows": lambda row: f"{row['head_rows']:,}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.1f}",
    "tokens/s": lambda row: f"{row['tokens_per_second']:.1f}",
}
"""Columns of the table of ``overhead``."""


SHAPES = ("llada-8b", "dream-7b", "sdar-8b", "llada2-mini", "tiny")
"""The names in ``mdm_bench.shapes``, which imports torch."""

MODEL = (
    click.option("--shape", type=click.Choice(SHAPES), default="tiny", show_default=True, help="Of the random model."),
    click.option("--sampler", default="info-gain", show_default=True, metavar="NAME", help="Sampler."),
    click.option("--prompt-length", type=COUNT, default=256, show_default=True, help="Tokens of the prompt."),
    click.option("--gen-length", type=COUNT, default=256, show_default=True, help="Tokens to generate."),
    click.option("--tokens-per-step", type=COUNT, help="Tokens that a step commits.  [default: 1]"),
    click.option("--compile", is_flag=True, help="Compile forwards and scoring."),
    GRAPHS,
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
    click.option(
        "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto", show_default=True,
        help="Of the weights.",
    ),
    click.option(
        "--bandwidth", type=click.FloatRange(0, min_open=True), callback=_finite,
        help="GB/s of memory.  [default: measured]",
    ),
    JSON,
)  # fmt: skip
"""The flags that ``decode`` and ``sweep`` share."""


def _model_flags(command: F) -> F:
    for flag in reversed(MODEL):
        command = flag(command)
    return command


@bench.command()
@click.option("--cache", metavar="NAME", help="Cache.  [default: dual, or block for sdar-8b and llada2-mini]")
@click.option("--candidates", type=COUNT, default=8, show_default=True, help="Candidates of a lookahead.")
@click.option("--block-length", type=COUNT, default=32, show_default=True, help="Block length.")
@click.option("--batch-size", type=COUNT, default=1, show_default=True, help="Prompts decoded together.")
@_model_flags
def decode(
    cache: str | None, candidates: int, block_length: int, batch_size: int, shape: str, as_json: bool, **flags: Any
) -> None:
    """Tokens a second of a model's shape, its memory, and its share of what the memory's bandwidth allows.

    Random weights, made on the spot. One decode warms up and is counted, a second one is timed. Forwards are those of
    the whole batch, tokens per forward those of one prompt.
    """
    from mdm_bench.decode import measure
    from mdm_bench.shapes import SHAPES
    from mdm_bench.sweep import combinations

    cases = combinations(_base(flags), [cache or SHAPES[shape].cache], [candidates], [block_length], [batch_size])
    model, speed = _ready(shape, cases, flags)
    click.echo("mdm: decoding, once to warm up and count, once for the time ...", err=True)
    _report([{"shape": shape} | measure(model, cases[0], speed)], as_json)


@bench.command()
@click.option("--cache", multiple=True, metavar="NAME", help="Cache, again for more.  [default: none, prefix, dual]")
@click.option("--candidates", type=COUNT, multiple=True, help="Candidates of a lookahead.  [default: 1, 8]")
@click.option("--block-length", type=COUNT, multiple=True, help="Block length.  [default: 32]")
@click.option("--batch-size", type=COUNT, multiple=True, help="Prompts decoded together.  [default: 1, 4, 16]")
@click.option("--csv", "table", type=PATH, metavar="FILE", help="Write all numbers as CSV, after every case.")
@_model_flags
def sweep(
    cache: tuple[str, ...], candidates: tuple[int, ...], block_length: tuple[int, ...], batch_size: tuple[int, ...],
    table: Path | None, shape: str, as_json: bool, **flags: Any,
) -> int:  # fmt: skip
    """`decode` over every combination of the caches, candidates, block lengths and batch sizes named.

    Ctrl-C ends it early, with what is done; a case that finds no memory is skipped, and says so.
    """
    from mdm.runs import files

    from mdm_bench import sweep as sweeping
    from mdm_bench.shapes import SHAPES

    if table:
        files.check_writable(table)  # refused now, not after an hour
    caches = cache or (("none", "block") if SHAPES[shape].cache == "block" else ("none", "prefix", "dual"))
    axes: list[Any] = [caches, candidates or (1, 8), block_length or (32,), batch_size or (1, 4, 16)]
    cases = sweeping.combinations(_base(flags), *(list(dict.fromkeys(axis)) for axis in axes))
    model, speed = _ready(shape, cases, flags)
    measured: list[dict[str, Any]] = []
    stopped = False
    try:
        with steps("measuring", len(cases)) as tick:
            for row in sweeping.sweep(model, cases, speed):
                measured.append({"shape": shape} | row)
                if table:
                    files.write_text_atomic(table, sweeping.to_csv(measured))
                tick(len(measured))
    except KeyboardInterrupt:
        stopped = True
    finally:  # whatever ends it, what is measured is reported
        if measured or as_json:
            _report(measured, as_json)
    if stopped:
        click.echo(f"mdm: interrupted after {len(measured)} of {len(cases)} cases", err=True)
    return 130 if stopped else 0


def _base(flags: dict[str, Any]) -> Case:
    """The case that the flags describe, with the defaults for what a sweep varies."""
    from mdm_bench.case import Case

    names = ("sampler", "prompt_length", "gen_length", "tokens_per_step", "compile", "graphs")
    return Case(max_rows="auto", **{name: flags[name] for name in names})


def _ready(shape: str, cases: Sequence[Case], flags: dict[str, Any]) -> tuple[Model, float]:
    """The model, and its memory's bandwidth in bytes a second."""
    from mdm.models.placement import device_of, dtype_of

    from mdm_bench.decode import bandwidth, model_for
    from mdm_bench.shapes import SHAPES

    device = device_of(flags["device"])
    dtype = dtype_of(flags["dtype"], device, {})
    click.echo(f"mdm: making {shape} with random weights on {device} in {dtype} ...", err=True)
    model = model_for(shape, SHAPES[shape], cases, device=device, dtype=dtype)
    return model, flags["bandwidth"] * 1e9 if flags["bandwidth"] else bandwidth(device)


def _report(measured: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(to_json(measured, indent=2))
        return
    from mdm.cli.tables import show

    done = [row for row in measured if "error" not in row]
    options = ("cache", "candidates", "block_length", "batch_size")
    show(
        ["cache", "N", "block", "batch", *SPEED_COLUMNS],
        [
            [
                *(str(row[name]) for name in options),
                *(cell(row) if row in done else "" for cell in SPEED_COLUMNS.values()),
            ]
            for row in measured
        ],
        right=["N", "block", "batch", *SPEED_COLUMNS],
    )
    for row in done[:1]:
        click.echo(
            f"{row['device']}, {row['dtype']}: {row['weight_bytes'] / 1e6:,.1f} MB of weights a forward, "
            f"memory at {row['bandwidth'] / 1e9:.1f} GB/s"
        )
    _report_graphs(done)
    for row in measured:
        if "error" in row:
            click.echo(f"{row['error']}: {', '.join(f'{name} {row[name]}' for name in options)}")


def _report_graphs(rows: list[dict[str, Any]]) -> None:
    """A line for each row in which CUDA graphs were captured or replayed."""
    for row in rows:
        if row["captures"] or row["replays"]:
            click.echo(
                f"{row['cache']}, N {row['candidates']}, batch {row['batch_size']}: {row['captures']} CUDA graphs "
                f"captured, {row['replays']:,} replays; graphs hold {row['graph_bytes'] / 1e6:,.1f} MB"
            )


SPEED_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "tokens/s": lambda row: f"{row['tokens_per_second']:.1f}",
    "tokens/forward": lambda row: f"{row['tokens_per_forward']:.2f}",
    "without EOS": lambda row: f"{row['tokens_per_forward_without_eos']:.2f}",
    "forwards": lambda row: f"{row['forwards']:,}",
    "rows": lambda row: f"{row['rows']:,}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:,.1f}",
    "roofline tokens/s": lambda row: f"{row['roofline_tokens_per_second']:,.0f}",
    "share": lambda row: f"{row['share_of_roofline']:.1%}",
    "TFLOP/s": lambda row: f"{row['tflops']:.3g}",
}
"""Columns of the table of ``decode`` and ``sweep``, behind their options."""
