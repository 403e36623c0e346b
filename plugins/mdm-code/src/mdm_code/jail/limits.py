"""What a process may take: processor time, memory, files."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress

OPEN_FILES = 64
FIRST_USER, NOBODY = 0x50000000, 65534


def limit(*, cpu: int, memory: int, file: int) -> None:
    """Bound this process and those it forks: ``cpu`` in seconds, ``memory`` and the size of a ``file`` in bytes."""
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file, file),
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def limit_threads(threads: int) -> None:
    """Bound the threads of this process's user. Right only for a user that nobody else is."""
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))


def own_user(number: int, *folders: str) -> str:
    """Stop being root: become a user that is nobody else, by ``number``, or else nobody, and own the ``folders``.

    Returns:
        ``own`` or ``nobody``; empty where this process is not root, may not change its user, or the other user could
        not read the interpreter or reach the folders.
    """
    if os.geteuid() != 0:
        return ""
    for user in (FIRST_USER + number, NOBODY):
        with suppress(OSError):
            os.setresuid(user, user, 0)
            readable = all(os.access(path, os.R_OK) for path in (os.__file__, *filter(os.path.exists, sys.path)))
            reachable = all(os.access(os.path.dirname(folder), os.X_OK) for folder in folders)
            os.setresuid(0, 0, 0)
            if not (readable and reachable):
                return ""
            for folder in folders:
                os.chown(folder, user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return "nobody" if user == NOBODY else "own"
    return ""
