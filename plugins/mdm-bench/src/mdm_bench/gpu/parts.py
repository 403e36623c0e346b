"""The side of the check that measures: parts, their cells, and how they are reported to ``runner``."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TextIO

import click
from mdm.runs.files import to_json

SPEED = "speed:"
"""Before the name of a shape: the part that measures its speed."""


@dataclass(frozen=True)
class Options:
    """What the whole check was asked for."""

    device: str = "cuda"
    full: bool = False

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


def _nothing() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Part:
    """Something to measure, cell by cell."""

    cells: list[str]
    """names, the most important first"""
    measure: Callable[[str], dict[str, Any]]
    """what is reported of a cell"""
    prepare: Callable[[], dict[str, Any]] = _nothing
    """makes what all cells need; what it returns is reported of the part"""
    limit: float = 45.0
    """seconds that one cell may take"""


def make(name: str, options: Options) -> Part:
    """The part called ``name``: device, parity, kernels, or ``SPEED`` and the name of a shape."""
    module, _, shape = name.partition(":")
    part: Part = import_module(f"mdm_bench.gpu.{module}").part(options, *([shape] if shape else []))
    return part


def run(name: str, options: Options, skip: Collection[str]) -> int:
    """Measure the cells of a part but those to ``skip``, one line of JSON on stdout for each; returns an exit status.

    Lines are ``{"plan": names, "limit": seconds}``, ``{"begin": cell}`` (None: what is prepared), and
    ``{"cell": name, ...}`` or ``{"prepared": ...}`` when it is done. An error is a field of that line.
    """
    out = _own_stdout()

    def say(**line: Any) -> None:
        out.write(to_json(line) + "\n")
        out.flush()

    part = make(name, options)
    if unknown := set(skip) - set(part.cells):
        raise click.UsageError(f"--skip {sorted(unknown)[0]}: {name} has no such cell")
    say(plan=part.cells, limit=part.limit)
    left = [cell for cell in part.cells if cell not in skip]
    if not left:
        return 0
    say(begin=None)
    try:
        found = part.prepare()
    except Exception as error:
        say(prepared={"error": in_a_line(error)})
        return 0
    say(prepared=found)
    for cell in left:
        say(begin=cell)
        found, goes_on = _measured(part, cell, options)
        say(cell=cell, **found)
        if not goes_on:
            return 1  # what a broken context would say of the other cells is not about them: a new process will tell
    return 0


def _measured(part: Part, cell: str, options: Options) -> tuple[dict[str, Any], bool]:
    """What is reported of a cell, and whether the device can go on after it."""
    try:
        return part.measure(cell), True
    except Exception as error:
        found = {"error": in_a_line(error)}
    # Outside of the handler: an exception keeps the tensors of its frames alive.
    gc.collect()
    if not options.on_gpu:
        return found, True
    import torch

    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        return found, False
    return found, True


def in_a_line(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    said = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _own_stdout() -> TextIO:
    """Stdout for this module alone: whatever libraries print goes to stderr."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def end_with_stdin() -> None:
    """End this process when its stdin is closed: when the process that began it has ended, however it did."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
