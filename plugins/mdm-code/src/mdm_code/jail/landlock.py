"""Landlock, where the kernel has it: the interpreter can be read, one folder can be written, nothing else is there."""

from __future__ import annotations

import os
import struct
import sys

from kernel import LIBC, checked

CREATE, ADD, RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1, 2, 4, 8
ABSTRACT_SOCKETS, SIGNALS = 1, 2
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Version -> how many rights it knows of: from 2 on renaming across folders, 3 truncation, 5 ioctl of devices."""

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def readable() -> list[str]:
    """What a program may read: the interpreter and the libraries that it loads."""
    return sorted({sys.base_prefix, sys.base_exec_prefix, *sys.path, *LIBRARIES})


def restrict(folder: str | None, *, signals: bool, newest: int) -> int:
    """Give up all files but those of ``readable()`` and the ``folder``, and, unless ``signals`` are needed, signals to
    processes that are not confined with this one. A kernel's version counts as ``newest`` at most.

    Returns:
        The version of Landlock, 0 where there is none.
    """
    version = min(LIBC.syscall(CREATE, None, 0, 1), newest)
    if version < 1:
        return 0
    everything = (1 << RIGHTS[min(version, max(RIGHTS))]) - 1
    scopes = ABSTRACT_SOCKETS | (0 if signals else SIGNALS)
    rules = struct.pack("<QQQ", everything, 0, scopes) if version >= 6 else struct.pack("<Q", everything)
    handle = checked(LIBC.syscall(CREATE, rules, len(rules), 0), "landlock_create_ruleset")
    for path in readable():
        _allow(handle, path, (READ_FILE | READ_FOLDER) if os.path.isdir(path) else READ_FILE)
    for path in DEVICES:
        _allow(handle, path, READ_FILE | WRITE_FILE)
    if folder:
        _allow(handle, folder, everything & ~EXECUTE)
    checked(LIBC.syscall(RESTRICT, handle, 0), "landlock_restrict_self")
    os.close(handle)
    return version


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    checked(LIBC.syscall(ADD, ruleset, 1, struct.pack("<Qi", rights, beneath), 0), "landlock_add_rule")
    os.close(beneath)
