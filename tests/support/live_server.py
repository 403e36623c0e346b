"""A server in a process of its own, as users have it: `mdm serve` started, asked over HTTP, looked at from outside."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import httpx

GAUGES = ("mdm_rows_running", "mdm_rows_waiting", "mdm_row_tokens")
"""What is zero when nothing is asked."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveServer:
    """``mdm serve`` with a model, on a port of its own; a context manager that ends it.

    Args:
        model: a checkpoint.
        flags: further flags of the command.
        log: the file that its output goes to.
        key: what its requests carry, where it asks for a key.
    """

    def __init__(self, model: str | Path, flags: Sequence[str] = (), *, log: Path, key: str | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log, self.key = log, key
        self._output: IO[bytes] = log.open("wb")
        command = [sys.executable, "-m", "mdm", "serve", "--model", str(model), "--port", str(self.port), *flags]
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | os.environ
        self.process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self) -> LiveServer:
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"mdm serve ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"no answer after {seconds} s:\n{self.log.read_text()}")

    def stop(self, seconds: float = 20) -> int:
        """Its exit status; killed where two signals and the seconds do not end it."""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(seconds / 2)
                except subprocess.TimeoutExpired:
                    continue
        self._output.close()
        return self.process.wait()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=60, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=120, limits=limits, **options)

    def gauges(self) -> dict[str, float]:
        """``GAUGES`` as ``/metrics`` has them."""
        text = httpx.get(f"{self.url}/metrics", headers=self.headers, timeout=30).text
        found = dict(re.findall(r"^(\w+) (\S+)$", text, re.M))
        return {name: float(found[name]) for name in GAUGES}

    def sockets(self) -> int:
        """Sockets that the process holds, those it listens on included."""
        held = 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                held += os.readlink(entry).startswith("socket:")
            except FileNotFoundError:
                continue
        return held

    def resident(self) -> int:
        """Bytes of memory that the process has in use."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """Seconds that its threads have spent on a CPU."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def settle(self, sockets: int | None = None, seconds: float = 30) -> int:
        """Wait until nothing runs, waits or is held, and no more than ``sockets`` sockets are open; how many are.

        Raises:
            AssertionError: with what is still held after so many seconds.
        """
        end = time.monotonic() + seconds
        while True:
            gauges = self.gauges()
            time.sleep(0.1)  # within which the server sees that this very question's connection is closed
            held = self.sockets()
            if not any(gauges.values()) and (sockets is None or held <= sockets):
                return held
            assert time.monotonic() < end, f"after {seconds} s there is still {gauges}, {held} sockets of {sockets}"
