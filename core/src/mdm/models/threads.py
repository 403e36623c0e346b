"""How many threads torch computes with: what the user says, or the cores that this process may use and are idle."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mdm.errors import MdmError

STATED_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a user, or a launcher, has told torch how many threads it has."""
SMALL = 1 << 26
"""Bytes of weights below which threads wait for each other longer than they compute."""
MOST_BESIDE_GPU = 4
"""Threads of a process whose model is on a GPU: the host only starts kernels there."""
SAMPLE = 0.1  # seconds for which the cores are watched


def use_threads(threads: int | Literal["auto"] | None, weight_bytes: int, device: str) -> None:
    """Set how many threads torch computes with, in this whole process.

    Args:
        threads: so many; "auto": what the environment states, else one for a small model, else the free cores. None:
            torch's number stays as it is.
        weight_bytes: of the model's files.
        device: on which it computes.

    Raises:
        MdmError: ``threads`` is something else.
    """
    import torch

    if threads not in (None, "auto") and (not isinstance(threads, int) or threads < 1):
        raise MdmError(f"threads is {threads!r}: it should be a number from 1, or auto")
    if threads == "auto" and not any(map(os.environ.get, STATED_BY)):
        threads = 1 if weight_bytes < SMALL else free_cores(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        threads = min(threads, torch.get_num_threads(), threads if device == "cpu" else MOST_BESIDE_GPU)
    if isinstance(threads, int):
        torch.set_num_threads(threads)


def free_cores(processes: int = 1) -> int:
    """The share of one of so many ``processes`` in the cores that they may run on, within the container's quota.

    Of one process, without the cores that others keep busy; of several, each would take the others for strangers.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    free = len(allowed) - (_busy(allowed) if processes == 1 else 0)
    return max(1, int(min(round(free), _quota())) // processes)


def _quota() -> float:
    """The cores' worth of time that the container of this process has (cgroups of either version)."""
    root, quotas = Path("/sys/fs/cgroup"), [float("inf")]
    with suppress(OSError, ValueError):
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        own = root / next((line[3:].strip("/") for line in groups if line.startswith("0::")), "")
        for file in (folder / "cpu.max" for folder in (own, *own.parents)):
            quota, period = file.read_text().split() if file.is_file() else ("max", "")
            quotas += [int(quota) / int(period)] if quota != "max" else []
    with suppress(OSError, ValueError):
        quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        quotas += [int(quota) / int(period)] if int(quota) > 0 else []
    return min(quotas)


def _busy(cores: set[int]) -> float:
    """How many of these ``cores`` others keep busy: watched on Linux, elsewhere the load of the last minute."""
    try:
        before, start = _idle_ticks(cores), time.monotonic()
        time.sleep(SAMPLE)
        ticks = (time.monotonic() - start) * os.sysconf("SC_CLK_TCK")
        return max(0.0, len(cores) - (_idle_ticks(cores) - before) / ticks)
    except (OSError, LookupError):  # no such file, or one without these cores
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _idle_ticks(cores: set[int]) -> int:
    """The time for which ``cores`` did nothing, in clock ticks since the machine started."""
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu"))
    ticks = {name: int(idle) + int(waits) for name, _, _, _, idle, waits, *_ in lines}
    return sum(ticks[f"cpu{core}"] for core in cores)
