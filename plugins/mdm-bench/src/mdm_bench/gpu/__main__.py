"""``python -m mdm_bench.gpu``: the prepared check of a GPU."""

from __future__ import annotations

import math
import re
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from mdm.errors import MdmError
from mdm.runs.files import check_writable, to_json, write_json

from mdm_bench.command import SHAPES
from mdm_bench.gpu import parts, runner
from mdm_bench.gpu.page import page
from mdm_bench.gpu.parts import SPEED, Options
from mdm_bench.gpu.targets import judged

WEIGHTS = {"device": 1.5, "parity": 3.5, "kernels": 2.0}
"""A part's share of the time; what one does not need goes to those behind it."""
SHAPE_WEIGHTS = {"llada-8b": 6.0}
BY_DEFAULT = ("llada-8b", "dream-7b", "sdar-8b")
MINUTES, FULL_MINUTES = 6.0, 40.0
SPARE = 8.0
"""Seconds of the whole time that are kept for the end."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures as JSON, as they come.")
@click.option(
    "--full", is_flag=True, help="All samplers, caches and cells; 40 minutes unless --minutes says otherwise."
)
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:1; cpu, to try the check itself.")
@click.option(
    "--shape", "shapes", multiple=True, type=click.Choice(SHAPES), help="Only these shapes.  [default: all 8B]"
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Time in all.  [default: 6]")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the page.")
@click.option(
    "--part", metavar="NAME", help="Measure this part alone, in this process; with --json a line for each cell."
)
@click.option("--skip", multiple=True, metavar="CELL", help="With --part: leave out a cell.")
@click.option("--child", is_flag=True, hidden=True)
def main(
    out: Path | None, full: bool, device: str, shapes: tuple[str, ...], minutes: float | None, as_json: bool,
    part: str | None, skip: tuple[str, ...], child: bool,
) -> None:  # fmt: skip
    """Check this machine's GPU: right, fast, and what it does not reach.

    Ends within its time. A part that fails or hangs is a line on the page; Ctrl-C leaves what is measured. The exit
    status is 1 where a decode or a kernel is wrong, and 2 where there is no card.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        _refuse(f"--device {device}: it is cuda, cuda:1 and so on, or cpu, to try the check itself")
    if minutes is not None and not math.isfinite(minutes):
        _refuse(f"--minutes {minutes} is no number of minutes")
    known = [*WEIGHTS, *(SPEED + name for name in SHAPES)]
    if part is not None and part not in known:
        _refuse(f"--part {part}: there are {', '.join(known)}")
    if skip and part is None:
        _refuse("--skip leaves out cells of one part: name it with --part")
    options = Options(device, full)
    if part is not None:
        if child:
            parts.end_with_stdin()
        sys.exit(parts.run(part, options, skip))
    try:
        if out is not None:
            check_writable(out)
    except MdmError as error:
        _refuse(str(error))
    if options.on_gpu and not _there(device):
        _refuse(f"there is no GPU {device!r} that torch can use here: --device cpu --shape tiny tries the check itself")
    chosen = shapes or BY_DEFAULT
    minutes = minutes or (FULL_MINUTES if full else MINUTES)
    report: dict[str, Any] = {
        "check": 1, "started": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": 0.0, "device": device,
        "full": full, "minutes": minutes, "shapes": list(chosen), "interrupted": False, "parts": {}, "targets": [],
    }  # fmt: skip
    begun = time.monotonic()

    def save() -> None:
        report["seconds"] = round(time.monotonic() - begun, 1)
        report["targets"] = judged(report)
        if out is not None:
            write_json(out, report)

    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="mdm-gpu-", ignore_cleanup_errors=True) as caches:
        jobs = _jobs(options, chosen, Path(caches))
        try:
            seconds = max(1.0, 60 * minutes - min(SPARE, 6 * minutes))
            runner.run_all(jobs, seconds, report, save, lambda line: click.echo(f"mdm: {line}", err=True))
        except KeyboardInterrupt:
            report["interrupted"] = True
        save()
    click.echo(to_json(report, indent=2) if as_json else page(report))
    sys.exit(130 if report["interrupted"] else int(_wrong(report)))


def _refuse(why: str) -> None:
    click.echo(f"mdm: {why}", err=True)
    sys.exit(2)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _there(device: str) -> bool:
    """Whether torch sees the device. It is not used in this process, which is to outlive whatever happens to it."""
    import torch

    try:
        return (torch.device(device).index or 0) < torch.cuda.device_count()
    except RuntimeError:
        return False


def _jobs(options: Options, shapes: tuple[str, ...], caches: Path) -> list[runner.Job]:
    """The parts in the order of their importance. Each compiles into a folder of its own, which is empty at first."""
    weights = WEIGHTS | {SPEED + name: SHAPE_WEIGHTS.get(name, 2.0) for name in shapes}
    jobs = []
    for name, weight in weights.items():
        command = [sys.executable, "-m", "mdm_bench.gpu", "--child", "--part", name, "--json"]
        command += ["--device", options.device, *(["--full"] if options.full else [])]
        folder = caches / name.replace(":", "-")
        environment = {
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton"),
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        jobs.append(runner.Job(name, command, weight, environment))
    return jobs


def _wrong(report: dict[str, Any]) -> bool:
    cells = [cell for part in ("parity", "kernels") for cell in report["parts"][part]["cells"].values()]
    return any(cell.get("differs") or cell.get("failed") or not cell.get("right", True) for cell in cells)


if __name__ == "__main__":
    main()
