"""Runs untrusted programs, each in processes of its own that can do next to nothing.

``jail/`` is what runs there, a file for each kind of thing that a program gives up. Here are the limits that are kept
from outside: the wall clock, bytes on disk and threads where nothing inside bounds them, and that nothing is left.
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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mdm.errors import MdmError

from mdm_code import folders
from mdm_code.jail import kernel

JAIL = Path(kernel.__file__).parent
ANSWER = 64 * 1024
"""Bytes of a verdict."""
LOOK = 0.02
"""Seconds between two looks at what a program has taken."""


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
    threads: int = 256


@dataclass(frozen=True)
class Machine:
    """What a machine may offer to a sandbox; a test takes some of it away."""

    bubblewrap: bool = True
    namespaces: bool = True
    libseccomp: bool = True
    landlock: int = 99
    """The newest version of Landlock that is used."""


@dataclass(frozen=True)
class Verdict:
    passed: bool
    reason: str = ""
    """Why not, in a few words: `time`, `a test failed`, what was raised."""
    layers: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """What the program was confined by, where it answered."""


def check() -> None:
    """Raises:
    MdmError: code cannot be confined on this machine.
    """
    if not kernel.supported():
        raise MdmError(f"generated code runs on Linux (x86-64 or arm64) only: {sys.platform} cannot confine it")


def run(job: Job, limits: Limits = Limits(), machine: Machine = Machine()) -> Verdict:
    """Judge one program. Whatever it does, this returns within the wall time, and no process or file is left.

    Raises:
        MdmError: code cannot be confined on this machine.
    """
    check()
    with folders.held() as folder:
        outer = _bubblewrap(folder) if machine.bubblewrap and _bubblewrap_works() else []
        plan = asdict(limits) | asdict(machine) | {"folder": folder, "parent": None if outer else os.getpid()}
        plan["outer"] = ["bubblewrap"] if outer else []
        process = subprocess.Popen(
            [*outer, sys.executable, "-s", "-S", str(JAIL), json.dumps(plan)],
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
            return _answer(process, folder, limits)
        finally:
            # The process is not reaped yet, so the number is still its group's; nothing in it can have left the group.
            family = _family(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
            _gone(family)


@cache
def _bubblewrap_works() -> bool:
    """Whether the system's bubblewrap is installed and may do its work here."""
    if not shutil.which("bwrap"):
        return False
    try:
        return (
            subprocess.run([*_bubblewrap(tempfile.gettempdir()), "true"], capture_output=True, timeout=10).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _bubblewrap(folder: str) -> list[str]:
    """What goes before a command for it to see no other process and no network, and to write one folder only."""
    program = shutil.which("bwrap") or "bwrap"
    kinds = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    system = ("--ro-bind", "/", "/", "--dev", "/dev", "--remount-ro", "/dev", "--proc", "/proc")
    return [program, *kinds, "--die-with-parent", *system, "--bind", folder, folder, "--chdir", folder, "--"]


def _answer(process: subprocess.Popen[bytes], folder: str, limits: Limits) -> Verdict:
    assert process.stdout
    verdict = process.stdout.fileno()
    poll = select.poll()
    poll.register(verdict, select.POLLIN)
    end, data, pause = time.monotonic() + limits.wall, b"", LOOK
    while (left := end - time.monotonic()) > 0:
        if poll.poll(1000 * min(left, pause)):
            part = os.read(verdict, ANSWER)
            data += part
            if not part or len(data) > ANSWER:
                return _read(data)
        start = time.monotonic()
        if folders.written(folder, limits.disk) > limits.disk:
            return Verdict(False, "too much written")
        if max(_family(process.pid).values(), default=0) > limits.threads:
            return Verdict(False, "too many threads")
        pause = max(LOOK, 4 * (time.monotonic() - start))
    return Verdict(False, "time")


def _read(data: bytes) -> Verdict:
    try:
        record: dict[str, Any] = json.loads(data)
        if "unconfined" not in record:
            return Verdict(record["passed"] is True, str(record["reason"]), tuple(map(str, record["layers"])))
    except (ValueError, KeyError, TypeError):
        return Verdict(False, "the tests came to no end")
    raise MdmError(f"generated code cannot be confined on this machine: {record['unconfined']}")


def _family(process: int) -> dict[int, int]:
    """A process and those below it, as far as the system shows them: number -> threads."""
    family, pending = {}, [process]
    while pending:
        number = pending.pop()
        with suppress(OSError):
            family[number] = len(os.listdir(f"/proc/{number}/task"))
            with open(f"/proc/{number}/task/{number}/children") as children:  # only first threads fork here
                pending += map(int, children.read().split())
    return family


def _gone(processes: Iterable[int]) -> None:
    """Wait until killed processes are gone; whoever inherits them may take its time to say farewell."""
    for process in processes:
        for _ in range(200):
            try:
                with open(f"/proc/{process}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] in "ZX":
                        break
            except OSError:
                break
            time.sleep(0.001)
