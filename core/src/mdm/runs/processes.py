"""One run in several processes: which of them we are, waiting for each other, starting them on this host.

Whoever starts them (``mdm run --num-processes``, ``accelerate launch``, torchrun) tells each its place in the
environment; accelerate reads it and gives each process its device.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from mdm.errors import MdmError

STARTED = "MDM_STARTED_BY_LAUNCH"
"""In the environment of a process that ``launch`` started."""
BARRIER_TIMEOUT = timedelta(days=30)
"""How long a process waits for the others, whose shares may take long."""
REFUSAL_GRACE = 10.0
"""Seconds between one process's refusal and the end of the others."""
GRACE = 60.0
"""Seconds that processes asked to stop have, before they are made to."""


class PeerLost(MdmError):
    """Another process of this run is gone."""


@dataclass(frozen=True)
class Rank:
    """Which of a run's processes this is."""

    index: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether it keeps the folder: begins it, merges what all wrote, and writes the summary."""
        return self.index == 0

    def share(self, things: Sequence[Any]) -> Sequence[Any]:
        """Ours of ``things``, every ``count``-th: shares differ by one at most."""
        return things[self.index :: self.count]

    def wait(self) -> None:
        """Go on when all processes are here.

        Raises:
            PeerLost: one of them is gone.
        """
        if self.count == 1:
            return
        import torch.distributed as dist

        try:
            dist.barrier()
        except RuntimeError as error:
            raise PeerLost("another process of this run has died") from error


def among_others() -> bool:
    """Whether somebody started us as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def launched() -> bool:
    """Whether it was ``launch``."""
    return STARTED in os.environ


@contextmanager
def place(device: str) -> Iterator[Rank]:
    """Our place among the processes of this run; alone where nobody started us with others."""
    if not among_others():
        yield Rank()
        return
    import torch
    from accelerate import PartialState

    if launched():
        threading.Thread(target=_end_with_parent, daemon=True).start()
    # gloo on every device: processes only wait for each other, and it notices when one dies.
    cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    try:
        state = PartialState(cpu=cpu, backend="gloo", timeout=BARRIER_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MdmError(f"the processes of this run do not find each other: {error}") from error
    try:
        yield Rank(state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()


def launch(arguments: Sequence[str], count: int) -> tuple[int, str]:
    """Run ``mdm ARGUMENTS`` in ``count`` processes on this host; the first has our output.

    The first to fail stops the others as Ctrl-C would, so that they write what they have.

    Returns:
        The exit code, 0 where all succeeded, and what stopped the run, if it can go on.
    """
    command = [sys.executable, "-m", "mdm", *arguments]
    threads = str(max(1, (os.cpu_count() or 1) // count))
    shared = {
        "OMP_NUM_THREADS": threads, **os.environ, STARTED: "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / str(index) for index in range(count)]
        with _started(command, shared, said) as team:
            code, culprit = _watch(team)
        if culprit and team[0].returncode != 2:  # the first has said its own, and what all ran into
            words = said[culprit].read_text(errors="replace").strip().splitlines()
            sys.stderr.write(f"{words[-1]}\n" if words else "")
    if culprit is None or team[culprit].returncode > 0:
        return code, "interrupted" if code == 130 else ""
    return code, f"process {culprit} was killed ({signal.Signals(-team[culprit].returncode).name})"


@contextmanager
def _started(command: Sequence[str], shared: dict[str, str], said: Sequence[Path]) -> Iterator[list[Any]]:
    team: list[subprocess.Popen[bytes]] = []
    errors: list[IO[bytes]] = []
    try:
        for index, path in enumerate(said):
            errors.append(path.open("wb"))
            ours = {} if index == 0 else {"stdout": subprocess.DEVNULL, "stderr": errors[-1]}
            env = {**shared, "RANK": str(index), "LOCAL_RANK": str(index)}
            # A session of its own: Ctrl-C reaches it once, through us. Its stdin ends when we do.
            start: Any = {"env": env, "stdin": subprocess.PIPE, "start_new_session": True, **ours}
            team.append(subprocess.Popen(command, **start))
        yield team
    finally:
        for process in team:
            process.kill()
            process.wait()
        for file in errors:
            file.close()


def _watch(team: Sequence[Any]) -> tuple[int, int | None]:
    """Wait for all; the exit code, and which process failed first (None: none, or Ctrl-C)."""
    culprit, code = None, 0
    stop = end = float("inf")
    while any(process.poll() is None for process in team) and time.monotonic() < end:
        try:
            time.sleep(0.05)
            if culprit is None and not code and (culprit := _first(team)) is not None:
                # What one refuses all refuse, and the main one says it best: it gets the time to.
                stop = time.monotonic() + (REFUSAL_GRACE if team[culprit].returncode == 2 else 0)
            if time.monotonic() >= stop:
                stop, end = float("inf"), time.monotonic() + GRACE
                _interrupt(team)
        except KeyboardInterrupt:
            if code:
                break  # the second: at once
            code = 130
            _interrupt(team)
    if not code and (culprit := _first(team) if culprit is None else culprit) is not None:
        code = max(1, team[culprit].returncode)
    return code, culprit


def _first(team: Sequence[Any]) -> int | None:
    """Who failed, if anybody: one that was killed, else one that says what is wrong; those left alone only follow."""
    failed = [index for index, process in enumerate(team) if process.poll()]
    return min(failed, key=lambda index: team[index].returncode, default=None)


def _interrupt(team: Sequence[Any]) -> None:
    for process in team:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


def _end_with_parent() -> None:
    """Stop as by Ctrl-C when the process that started us is gone: its end of our stdin closes."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
