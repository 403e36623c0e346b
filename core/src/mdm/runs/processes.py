"""Distributed runs: rank and world size, barriers, and a launcher for several processes on one machine.

Every launcher (``mdm run --num-processes``, ``accelerate launch``, torchrun) tells a process its rank in the
environment. accelerate reads it from there and gives each process its device.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mdm.errors import MdmError

RUN_ID = "mdm-run"
"""The launcher's run id, by which a process knows that ``launch`` started it."""
BARRIER_TIMEOUT = timedelta(days=30)
"""How long a process waits at a barrier. Other ranks may have far longer examples."""
REFUSED, INTERRUPTED = 2, 130
"""Exit codes of a process that raised an MdmError, and of one that stopped on a signal or because a peer was lost."""


class PeerLost(MdmError):
    """Another process of this run has died."""


@dataclass(frozen=True)
class Rank:
    """Which of a run's processes this is."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process creates the run's folder, merges the results of all ranks and writes the summary."""
        return self.rank == 0

    def shard(self, items: Sequence[Any]) -> Sequence[Any]:
        """Every ``world_size``-th item, starting at ``rank``. The sizes of shards differ by one at most."""
        return items[self.rank :: self.world_size]

    def barrier(self) -> None:
        """Wait until all processes are here; raises PeerLost where one of them has died."""
        if self.world_size == 1:
            return
        import torch.distributed as dist

        try:
            dist.barrier()
        except RuntimeError as error:
            raise PeerLost("another process of this run has died") from error


def is_distributed() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_launched() -> bool:
    """Whether that launcher was ``launch``."""
    return os.environ.get("TORCHELASTIC_RUN_ID") == RUN_ID


@contextmanager
def join_processes(device: str) -> Iterator[Rank]:
    """Join the other processes of this run, if a launcher started any; raises an MdmError where they cannot connect."""
    if not is_distributed():
        yield Rank()
        return
    import torch
    from accelerate import PartialState

    # gloo whatever the device: processes only meet at barriers, and gloo notices when a peer dies.
    cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "OMP_NUM_THREADS")  # threads are chosen when a model is loaded
            state = PartialState(cpu=cpu, backend="gloo", timeout=BARRIER_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MdmError(f"the processes of this run cannot connect to each other: {error}") from error
    try:
        with sigterm_as_interrupt():
            yield Rank(state.process_index, state.num_processes)
    finally:
        state.destroy_process_group()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM as Ctrl-C: launchers send it when another process has failed, and finished work must be kept."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    on_ctrl_c = signal.getsignal(signal.SIGINT)  # ignored in a process that a shell started in the background
    signal.signal(signal.SIGTERM, on_ctrl_c if callable(on_ctrl_c) else signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def report_failure(error: Exception) -> None:
    """Leave ``error`` for ``launch``, which raises the first one again. Of other processes it sees the exit code."""
    if is_launched() and not isinstance(error, PeerLost):
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def launch(arguments: Sequence[str], count: int) -> None:
    """Run ``mdm ARGUMENTS`` in ``count`` processes on this machine, with torch's elastic launcher.

    Rank 0 shares our stdout and stderr. When a process fails, the others are interrupted and write what they have.

    Raises:
        MdmError: what the first process to fail raised.
        PeerLost: a process was killed.
        KeyboardInterrupt: Ctrl-C, or another signal that ends a program.
        ChildFailedError: a process failed for any other reason; the message holds its traceback.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What the launcher warns of is also in the error that it raises.
    logging.getLogger("torch.distributed.elastic").addHandler(logging.NullHandler())
    logging.getLogger("torch.distributed.elastic").propagate = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as logs:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=RUN_ID, max_restarts=0,
            # Port 0: the system chooses a free port as the store binds it.
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="127.0.0.1",
            logs_specs=DefaultLogsSpecs(log_dir=logs, local_ranks_filter={0}),
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "mdm", *arguments)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            rank, failure = first_failure(error.failures)
            if failure.exitcode < 0:
                raise PeerLost(f"process {rank} was killed ({failure.signal_name()})") from None
            if failure.exitcode == INTERRUPTED:
                raise KeyboardInterrupt from None
            if failure.exitcode == REFUSED and isinstance(failure.message, dict):
                raise MdmError(failure.message["message"].partition(": ")[2]) from None  # behind the error's type
            raise


def first_failure(failures: Mapping[int, Any]) -> tuple[int, Any]:
    """The rank and failure that stopped the run: the first process that was killed or left an error, else the first.

    Those that only lost a peer leave no error, and the launcher ends the others with SIGTERM. It lists failures in the
    order in which it noticed them, and gives their times in whole seconds.
    """

    def key(item: tuple[int, Any]) -> tuple[bool, int]:
        failure = item[1]
        was_killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return not was_killed and not isinstance(failure.message, dict), failure.timestamp

    return min(failures.items(), key=key)
