"""Runs what a checkpoint brings, such as a chat template, where it can take neither long nor much memory.

A template's loop or ``'a' * 10**10`` cannot be stopped inside a process, so it runs in a copy of ours, which ends when
nothing more is asked of it. Where processes cannot be copied (Windows) it runs here, without bounds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from mdm.data.documents import parse_json
from mdm.errors import first_line

SECONDS = 10.0
"""Of one call."""
MEMORY = 2**30
"""Bytes that a call may take beside what the process has."""
LARGEST = 2**24
"""Bytes of a result."""
IDLE = 1.0
"""Seconds after which the copy ends; until then it holds on to memory that this process frees."""


class Bounded:
    """A function from keyword arguments to a text, called within bounds. Arguments cross as JSON.

    Raises:
        ValueError: from a call: it takes too long or too much memory, or what the function raised, in one line.
    """

    def __init__(self, function: Callable[..., str]) -> None:
        self._function = function
        self._copy: _Copy | None = None
        self._lock = Lock()

    def __reduce__(self) -> Any:
        return Bounded, (self._function,)

    def __call__(self, **arguments: Any) -> str:
        if not hasattr(os, "fork"):
            return self._function(**arguments)
        request = json.dumps(arguments).encode()
        with self._lock:
            for _ in range(2):  # a copy that has just ended does not answer
                if self._copy is None or self._copy.owner != os.getpid():
                    self._copy = _Copy(self._function)
                try:
                    answer = self._copy.ask(request)
                except (OSError, EOFError):
                    self._end()
                except BaseException:  # Ctrl-C among them: its answer must not be taken for the next one's
                    self._end()
                    raise
                else:
                    if "raised" in answer:
                        raise ValueError(answer["raised"])
                    return str(answer["text"])
        raise ValueError("it ends the process that it runs in: it takes too much memory or time")

    def _end(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.end()


class _Copy:
    """A copy of this process that answers calls of a function."""

    def __init__(self, function: Callable[..., str]) -> None:
        self.owner = os.getpid()
        ours, theirs = Pipe()
        with warnings.catch_warnings(), _known_to_tokenizers():
            warnings.simplefilter("ignore", DeprecationWarning)  # the copy runs nothing that other threads hold
            pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                _close_all_but(theirs.fileno())
                _serve(function, theirs)
            os._exit(0)
        theirs.close()
        self._pipe = ours
        self.end = weakref.finalize(self, _reap, self.owner, pid, ours)

    def ask(self, request: bytes) -> dict[str, str]:
        self._pipe.send_bytes(request)
        if not self._pipe.poll(SECONDS):
            raise ValueError(f"it takes longer than {SECONDS:g} seconds")
        answer: dict[str, str] = parse_json(self._pipe.recv_bytes(2 * LARGEST))
        return answer


def _close_all_but(kept: int) -> None:
    """Close what the copy has from its original: a client's connection ends when the last of its holders closes it."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


@contextmanager
def _known_to_tokenizers() -> Iterator[None]:
    """Keep the tokenizers library from warning of the copy, which makes no tokens."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "true"
    try:
        yield
    finally:
        del os.environ[name]


def _reap(owner: int, pid: int, pipe: Connection) -> None:
    pipe.close()
    if owner == os.getpid():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(pid, 0)


def _serve(function: Callable[..., str], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit()
    while pipe.poll(IDLE):
        arguments: Mapping[str, Any] = parse_json(pipe.recv_bytes())
        try:
            text = function(**arguments)
            if not isinstance(text, str):
                answer = {"raised": f"it gives {type(text).__name__} instead of a text"}
            elif len(text) > LARGEST // 4:
                answer = {"raised": f"it gives more than {LARGEST // 4:,} characters"}
            else:
                answer = {"text": text}
        except MemoryError:
            answer = {"raised": f"it takes more than {MEMORY >> 20} MiB of memory"}
        except Exception as error:
            answer = {"raised": f"{type(error).__name__}: {first_line(error)[:500]}"}
        pipe.send_bytes(json.dumps(answer).encode())


def _limit() -> None:
    import resource

    seconds = int(sum(os.times()[:2]) + 10 * SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
