"""Runs untrusted programs, each in processes of its own that can do next to nothing.

``jail/`` is what runs there: its ``__main__`` keeps the tests apart from the program, its ``confine`` says what the two
give up. Here are the limits that are kept from outside: the wall clock, the bytes on disk, and that nothing is left.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mdm.errors import MdmError

from mdm_code.jail import confine

JAIL = Path(confine.__file__).parent
ANSWER = 64 * 1024
"""Bytes of a verdict."""


@dataclass(frozen=True)
class Job:
    """A program and its tests. All but ``program`` comes from the data set."""

    program: str
    tests: Sequence[str]
    """Sources that are executed in turn; the program passes if none raises."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the tests call -> what the program calls it."""
    prelude: str = ""
    """Executed before the names are known: helpers of the tests."""


@dataclass(frozen=True)
class Limits:
    """``cpu`` and ``wall`` in seconds, ``memory`` (of a process), ``file`` and ``disk`` in bytes."""

    cpu: int = 5
    wall: float = 15.0
    memory: int = 2**30
    file: int = 16 * 2**20
    disk: int = 64 * 2**20


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str = ""
    """Why not, in a few words: `time`, `a test failed`, what was raised."""


def check() -> None:
    """Raises:
    MdmError: code cannot be confined on this machine.
    """
    if not confine.supported():
        raise MdmError(f"generated code runs on Linux (x86-64 or arm64) only: {sys.platform} cannot confine it")


def run(job: Job, limits: Limits = Limits()) -> Verdict:
    """Judge one program. Whatever it does, this returns within the wall time, and no process or file is left.

    Raises:
        MdmError: code cannot be confined on this machine.
    """
    check()
    folder = tempfile.mkdtemp(prefix="mdm-code-")
    command = [sys.executable, "-s", "-S", str(JAIL), str(limits.cpu), str(limits.memory), str(limits.file), folder]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,
        )
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(asdict(job)).encode())
            answer = _answer(process.stdout.fileno(), folder, limits)
        finally:
            # The judge is not reaped yet, so the number is still its group's; nothing in it can have left the group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
            _gone(process.pid)
        return answer
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(verdict: int, folder: str, limits: Limits) -> Verdict:
    poll = select.poll()
    poll.register(verdict, select.POLLIN)
    end, data = time.monotonic() + limits.wall, b""
    while (left := end - time.monotonic()) > 0:
        if poll.poll(1000 * min(left, 0.25)):
            part = os.read(verdict, ANSWER)
            data += part
            if not part or len(data) > ANSWER:
                break
        elif _written(folder, limits.disk) > limits.disk:
            return Verdict(False, "too much written")
    else:
        return Verdict(False, "time")
    try:
        record = json.loads(data)
        return Verdict(record["passed"] is True, str(record["reason"]))
    except (ValueError, KeyError, TypeError):
        return Verdict(False, "the tests came to no end")


def _gone(group: int) -> None:
    """Wait until the killed processes are gone."""
    for _ in range(20):
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.01)


def _written(folder: str, enough: int) -> int:
    """Bytes under a folder, an entry counting as 4 KiB at least; stops counting at ``enough``."""
    total, pending = 0, [folder]
    while pending and total <= enough:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += max(4096, entry.stat(follow_symlinks=False).st_size)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                if total > enough:
                    break
    return total
