"""Removing files where the room on disk is only watched from outside: what is removed moves aside and stays counted.

A file without a name takes room for as long as it is open or mapped, and nobody could count it. So the filter refuses
the calls by which a file loses its name, and here the functions of ``os`` do without them.
"""

from __future__ import annotations

import os
import posix
import stat
from itertools import count
from typing import Any

from calls import NO_REPLACE, NUMBERS
from kernel import LIBC, MACHINES, checked

AT_FDCWD = -100


def move_aside(folder: str) -> None:
    """Have removed files move to ``folder``."""
    numbers = count()
    renameat2 = NUMBERS["renameat2"][MACHINES.index(os.uname().machine)]

    def move(source: Any, target: Any, of: int | None, to: int | None) -> None:
        ends = (
            AT_FDCWD if of is None else of,
            os.fsencode(source),
            AT_FDCWD if to is None else to,
            os.fsencode(target),
        )
        checked(LIBC.syscall(renameat2, *ends, NO_REPLACE), os.fsdecode(source))

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if stat.S_ISDIR(os.lstat(path, dir_fd=dir_fd).st_mode):
            raise IsADirectoryError(21, os.strerror(21), path)
        move(path, f"{folder}/{next(numbers)}", dir_fd, None)

    def rename(src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        source = os.lstat(src, dir_fd=src_dir_fd)
        try:
            target = os.lstat(dst, dir_fd=dst_dir_fd)
        except FileNotFoundError:
            pass
        else:
            if os.path.samestat(source, target):
                return
            (os.rmdir if stat.S_ISDIR(source.st_mode) else unlink)(dst, dir_fd=dst_dir_fd)
        move(src, dst, src_dir_fd, dst_dir_fd)

    replaced = {"unlink": unlink, "remove": unlink, "rename": rename, "replace": rename}
    vars(os).update(replaced)
    vars(posix).update(replaced)
