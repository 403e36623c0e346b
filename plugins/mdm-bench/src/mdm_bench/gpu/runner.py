"""The side of the check that waits: one process after the other, each with a limit, and a file of what they found."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from json import JSONDecodeError, loads
from typing import IO, Any

STARTS = 4
"""How often a part is begun at most."""
WORTH = 15.0
"""Seconds that must be left for it to be worth beginning a part again."""
PREPARING = "(preparing)"
PREPARE_LIMIT = 120.0
"""Seconds that preparing a part may take."""

Report = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A part to run."""

    name: str
    command: Sequence[str]
    """``--skip CELL`` is put behind it for every cell that is not to be measured again"""
    weight: float
    """its share of the time that is left, among the parts that are left"""
    environment: Mapping[str, str] = field(default_factory=dict)
    """what its processes have in their environment beside this one's"""


def run_all(
    jobs: Sequence[Job], seconds: float, report: Report, save: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Run all ``jobs`` within ``seconds``; what they find goes into ``report["parts"]``, and ``save`` is called after
    every change."""
    deadline = time.monotonic() + seconds
    parts: dict[str, Report] = report.setdefault("parts", {})
    for job in jobs:  # so that what is not reached has its line
        parts[job.name] = {"state": "not reached", "cells": {}}
    save()
    for i, job in enumerate(jobs):
        left = deadline - time.monotonic()
        share = left * job.weight / sum(other.weight for other in jobs[i:])
        if share < 1:
            continue
        parts[job.name].update(state="interrupted", seconds=0.0)
        say(f"{job.name}: at most {share:.0f} s ...")
        _run(job, share, parts[job.name], save)
        say(f"{job.name}: {parts[job.name]['state']} after {parts[job.name]['seconds']:.0f} s")


def _run(job: Job, seconds: float, found: Report, save: Callable[[], None]) -> None:
    """Run one part, and again behind a cell that ended its process."""
    begun = time.monotonic()
    deadline = begun + seconds
    try:
        for start in range(STARTS):
            if start and deadline - time.monotonic() < WORTH:
                break
            found["starts"] = start + 1
            if not _Process(job, deadline, found, save).run():
                break
        errors = [cell for cell in found["cells"].values() if "error" in cell]
        reached = all("not_reached" not in cell for cell in found["cells"].values())
        if "error" in found:
            found["state"] = "failed"
        else:
            found["state"] = "done" if reached and not errors else "in part"
    finally:
        found["seconds"] = round(time.monotonic() - begun, 1)
        save()


class _Process:
    """A part's process."""

    def __init__(self, job: Job, deadline: float, found: Report, save: Callable[[], None]) -> None:
        self.job, self.deadline, self.found, self.save = job, deadline, found, save
        self.cells: dict[str, Report] = found["cells"]
        self.current: str | None = PREPARING
        self.limit = 45.0
        self.until = time.monotonic() + PREPARE_LIMIT

    def run(self) -> bool:
        """Whether it is to be begun again: it ended in the middle of a cell, and there are others."""
        skip = [name for name, cell in self.cells.items() if "not_reached" not in cell]
        command = [*self.job.command, *(word for name in skip for word in ("--skip", name))]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
                env={**os.environ, **self.job.environment},
            )  # fmt: skip
            try:
                why = self._listen(process)
            finally:
                _end(process)
            if why is None and process.returncode == 0:
                return False
            why = why or _last_words(errors) or _how_it_ended(process.returncode)
        if self.current is None:  # between two cells: the device could not go on after one that has its line
            return bool(self._left())
        if self.current == PREPARING:
            self.found["error"] = why
            return False
        self.cells[self.current] = {"error": why}
        self.save()
        return bool(self._left())

    def _left(self) -> list[str]:
        return [name for name, cell in self.cells.items() if "not_reached" in cell]

    def _listen(self, process: subprocess.Popen[bytes]) -> str | None:
        """Read what it says until it ends (None), or until it has to be ended: then why."""
        assert process.stdout is not None
        lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        while True:
            end = min(self.until, self.deadline)
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                if end == self.deadline:
                    return "ended: the time of its part was over"
                return f"ended: it took more than {self.limit if self.current != PREPARING else PREPARE_LIMIT:.0f} s"
            if line is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
                return None
            with suppress(JSONDecodeError):
                self._heard(loads(line))

    def _heard(self, line: Report) -> None:
        if "plan" in line:
            self.limit = line["limit"]
            for name in line["plan"]:
                self.cells.setdefault(name, {"not_reached": True})
        elif "begin" in line:
            self.current = PREPARING if line["begin"] is None else line["begin"]
            self.until = time.monotonic() + (PREPARE_LIMIT if line["begin"] is None else self.limit)
        elif "prepared" in line:
            self.found.update(line["prepared"])
            self.current = None
        elif "cell" in line:
            self.cells[line.pop("cell")] = line
            self.current = None
        self.save()


def _read(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it began."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver cannot even be killed
        process.wait(timeout=5)


def _last_words(errors: IO[bytes]) -> str:
    """The last line of stderr."""
    errors.seek(0)
    lines = errors.read()[-10_000:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def _how_it_ended(status: int | None) -> str:
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
