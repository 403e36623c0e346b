"""Namespaces, where they can be had: process numbers, network and root folder of this process's own.

Signals and scheduling calls then reach nobody outside, nothing outside can be written, and what is written lies in
memory of a bounded size, which is gone with the last process.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from kernel import LIBC, MACHINES, checked
from landlock import DEVICES, readable

USER = 0x10000000
KINDS = {
    "mount": 0x20000, "process": 0x20000000, "network": 0x40000000, "ipc": 0x8000000, "host name": 0x4000000,
    "cgroup": 0x2000000,
}  # fmt: skip
PIVOT_ROOT, MOUNT_SETATTR = (155, 41), (442, 442)
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 8, 0x1000, 0x4000, 1 << 18, 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SMALLEST_FILE = 4096


def enter() -> list[str]:
    """Enter a new namespace of every kind that can be had; that of processes holds for children only.

    Without the right to the others a user namespace is entered first, which gives it.
    """
    user, group = os.getuid(), os.getgid()
    had = []
    if LIBC.unshare(KINDS["mount"]) == 0:
        had.append("mount")
    elif LIBC.unshare(USER) == 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        had.append("user")
    return had + [kind for kind, flag in KINDS.items() if kind not in had and LIBC.unshare(flag) == 0]


def own_root(folder: str, size: int) -> bool:
    """Change to a root that holds what may be read, and ``folder``, empty and of ``size`` bytes.

    The folder of that name outside is removed. Returns False, with nothing changed, where the kernel refuses.
    """
    outside = os.open(os.path.dirname(folder), os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mount(None, "/", None, RECURSIVE | PRIVATE)
        _mount("tmpfs", folder, "tmpfs", NO_SUID | NO_DEVICES | NO_PROGRAMS, "size=1m,nr_inodes=1000,mode=755")
    except OSError:
        os.close(outside)
        return False
    try:
        for path in (*readable(), *DEVICES):
            _show(path, folder + path)
        work = folder + folder
        os.makedirs(work, exist_ok=True)
        attributes = struct.pack("<QQQQ", READ_ONLY | NO_SUID, 0, 0, 0)
        setattr_arguments = (AT_FDCWD, folder.encode(), AT_RECURSIVE, attributes, len(attributes))
        checked(LIBC.syscall(_number(MOUNT_SETATTR), *setattr_arguments), "mount_setattr")
        bounds = f"size={size},nr_inodes={max(64, size // SMALLEST_FILE)},mode=711"
        _mount("tmpfs", work, "tmpfs", NO_SUID | NO_DEVICES | NO_PROGRAMS, bounds)
        os.chdir(folder)
        checked(LIBC.syscall(_number(PIVOT_ROOT), b".", b"."), "pivot_root")
    except OSError:
        LIBC.umount2(folder.encode(), DETACH)
        os.close(outside)
        return False
    checked(LIBC.umount2(b".", DETACH), "umount2")
    os.chdir("/")
    with suppress(OSError):  # it cannot be written where bubblewrap stands around us
        os.rmdir(os.path.basename(folder), dir_fd=outside)
    os.close(outside)
    return True


def _show(path: str, at: str) -> None:
    """Make ``path`` visible in the new root, unless a folder above it is."""
    if not os.path.exists(path) or os.path.exists(at):
        return
    if os.path.isdir(path):
        os.makedirs(at)
    else:
        os.makedirs(os.path.dirname(at), exist_ok=True)
        os.close(os.open(at, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    _mount(path, at, None, BIND | RECURSIVE)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    checked(LIBC.mount(*texts[:3], flags, texts[3]), f"mount {target}")


def _number(row: tuple[int, int]) -> int:
    return row[MACHINES.index(os.uname().machine)]
