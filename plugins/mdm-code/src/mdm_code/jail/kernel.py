"""Calls of the kernel that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINES = ("x86_64", "aarch64")
"""The machines whose numbers of system calls are known here. A row of numbers is in this order."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


def supported() -> bool:
    """Whether programs can be confined on this machine."""
    return sys.platform == "linux" and os.uname().machine in MACHINES and sys.maxsize > 2**32


def checked(result: int, what: str) -> int:
    """``result``, which a call named ``what`` has given.

    Raises:
        OSError: the call has failed.
    """
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. A change of user, or a fork, undoes this."""
    checked(LIBC.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "PR_SET_PDEATHSIG")


def hide_memory() -> None:
    """Keep processes of the same user, the program among them, from reading or writing this one's memory."""
    checked(LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def give_up_privileges() -> None:
    """No capability, and none to be had by running a program."""
    checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    header, nothing = (0x20080522).to_bytes(4, sys.byteorder) + bytes(4), bytes(24)
    checked(LIBC.capset(header, nothing), "capset")
