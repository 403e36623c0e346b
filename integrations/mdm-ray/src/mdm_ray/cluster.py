"""The Ray cluster that a command uses: one that runs already, or one of this machine's own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs.config import LoadingConfig

OBJECT_STORE = 2**29
"""Bytes of shared memory of a cluster of our own. It holds examples and results on their way, never weights."""


def import_ray() -> Any:
    """The module ``ray``; raises an MdmError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters is raised; the rest is in Ray's own logs
    try:
        import ray
    except ImportError as error:
        raise MdmError("this needs ray, which is not installed: pip install 'mdm-ray[ray]'") from error
    return ray


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Within the block this process uses a Ray cluster; one that it is connected to already stays as it is.

    Args:
        address: of a cluster; None: that of ``RAY_ADDRESS``, else one is started here and ends with the block.
        cpus: workers that fit into a cluster of our own; None: as many as it has cores.

    Raises:
        MdmError: there is no such cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(address)
    own = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with redirect_stdout(sys.stderr):  # on stdout Ray says that a worker died
        try:
            ray.init(
                address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True,
                **(own if address == "local" else {}),
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise MdmError(f"Ray cannot be reached at {address}: {' '.join(str(error).split())}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own ends the process, with the cluster still in its hands
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise an MdmError where nobody listens, for which Ray would wait for minutes."""
    found = address
    if address == "auto":  # where `ray start` noted its cluster, which may have ended since without a word
        note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        found = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    host, _, port = found.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise MdmError(
                f"Ray cannot be reached at {address}: {getattr(error, 'strerror', None) or error}"
            ) from error


@dataclass(frozen=True)
class Devices:
    """What each worker takes of a cluster."""

    cpus: int = 1
    gpus: int = 0


def check_device(config: LoadingConfig, gpus: int | None = None) -> None:
    """Raise an MdmError for a device that Ray does not hand out, or that ``gpus`` contradicts."""
    if config.device not in ("auto", "cpu", "cuda"):
        raise MdmError(f"device {config.device!r}: on Ray each worker gets its own; use auto, cuda or cpu")
    if (config.device == "cpu" and gpus) or (config.device == "cuda" and gpus == 0):
        raise MdmError(f"the configuration's device is {config.device}, which --gpus {gpus} contradicts")


def devices(config: LoadingConfig, gpus: int | None = None) -> Devices:
    """What each worker takes of the connected cluster; raises what ``check_device`` does.

    Args:
        gpus: for each worker; None: one where the cluster has any and the configuration's device does not say cpu.
    """
    check_device(config, gpus)
    if gpus is None:
        there = import_ray().cluster_resources().get("GPU", 0)
        gpus = int(config.device == "cuda" or (config.device == "auto" and there > 0))
    return Devices(gpus=gpus)


def how_many(workers: int | None, each: Devices) -> int:
    """The number of workers, each of which takes ``each``: as asked, or as many as fit at once.

    Raises:
        MdmError: so many do not fit, and would be waited for for ever.
    """
    there = import_ray().cluster_resources()
    cpus, gpus = (int(there.get(kind, 0)) for kind in ("CPU", "GPU"))
    fit = cpus // each.cpus if not each.gpus else min(cpus // each.cpus, gpus // each.gpus)
    if fit < (workers or 1):
        takes = f"{each.cpus} CPU" + f" and {each.gpus} GPU" * bool(each.gpus)
        raise MdmError(
            f"{workers or 1} workers do not fit: the cluster has {cpus} CPUs and {gpus} GPUs, and each takes {takes}"
        )
    return workers or fit
