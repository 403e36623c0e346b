"""The system calls that an ordinary program needs, and what each may be asked for; all others are refused.

A row holds a call's numbers on x86-64 and arm64, None where a machine has no such call.
"""

from __future__ import annotations

from typing import Literal

Condition = tuple[int, int, int]
"""Argument, mask, value: a call is allowed where the masked argument is the value."""
Ways = tuple[tuple[Condition, ...], ...]
"""The ways in which a call may be made: conditions that hold together. No condition at all allows every call."""

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # descriptors
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287), "lseek": (8, 62),
    "close": (3, 57), "close_range": (436, 436), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59), "fcntl": (72, 25), "ioctl": (16, 29), "ftruncate": (77, 46),
    "fallocate": (285, 47), "fsync": (74, 82), "fdatasync": (75, 83), "copy_file_range": (326, 285),
    "sendfile": (40, 71), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create": (213, None), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd2": (290, 19), "socketpair": (53, 199),
    "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204),
    "getpeername": (52, 205), "getsockopt": (55, 209),
    # files
    "open": (2, None), "openat": (257, 56), "creat": (85, None), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "symlink": (88, None), "symlinkat": (266, 36), "umask": (95, 166),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "msync": (26, 227), "brk": (12, 214),
    # threads, processes and signals
    "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "membarrier": (324, 283), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "clone": (56, 220), "exit": (60, 93), "exit_group": (231, 94), "prctl": (157, 167), "wait4": (61, 260),
    "waitid": (247, 95), "kill": (62, 129), "tgkill": (234, 131), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "pause": (34, None),
    "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    # questions
    "gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278), "prlimit64": (302, 261),
    "getrlimit": (97, 163),
}  # fmt: skip

TAKEN_FOR_MISSING = {"clone3": (435, 435), "openat2": (437, 437)}
"""Calls whose arguments cannot be seen: refused as by an older kernel, so that the C library takes clone and openat."""

ALL = (1 << 64) - 1
INT = (1 << 32) - 1

DUPLICATE, GET_FLAGS, SET_FLAGS, DUPLICATE_CLOEXEC = 0, (1, 3, 1034), (2,), 1030  # of fcntl; SETFL is a way of its own
SET_STATUS, ASYNC = 4, 0x2000
LOCKS = (5, 6, 7)
"""Of fcntl: of files that nobody else sees, as sqlite takes them."""
TERMINAL, WINDOW, AVAILABLE, NON_BLOCKING, CLOSE_ON_EXEC, KEEP_ON_EXEC = 0x5401, 0x5413, 0x541B, 0x5421, 0x5451, 0x5450
TEMPORARY_FILE = 0x400000
WRITING = 0x243 | TEMPORARY_FILE
"""Bits by which a file is opened for writing, made or emptied."""
LOSING_A_NAME = ("unlink", "unlinkat", "rename", "renameat")
CHANGING_A_FOLDER = (*LOSING_A_NAME, "renameat2", "creat", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat")
OWNER = 0o700
HUGE_PAGES = 0x40000
ADVICE = (0, 1, 2, 3, 4, 8, 14, 15, 102, 103)
"""Normal, random, sequential, wanted, not needed, free, huge pages or not, guard pages or not."""
THREAD, NAMESPACES = 0x10000, 0x7E020000
GET_NAME, SET_NAME = 16, 15
UNIX, STREAM, KINDS_OF_SOCKET = 1, 1, 0xF
NO_REPLACE = 1


def _one_of(argument: int, *values: int) -> Ways:
    return tuple(((argument, INT, value),) for value in values)


Files = Literal["bounded", "watched", "read"]
"""What may be done to files: anything, where their size is bounded; all but taking a file's name, where it is watched
from outside, so that none takes room unseen; or reading only, where nothing says which files may be written."""


def allowed(own: int, child: int | None, files: Files) -> dict[str, Ways]:
    """The calls of process ``own``, which may send signals to itself and to ``child``."""
    signalled = _one_of(0, own, *([child] if child else []))
    ways: dict[str, Ways] = dict.fromkeys(NUMBERS, ((),))
    ways |= {
        # No owner, signal, lease, watch, seal or larger pipe.
        "fcntl": (
            *_one_of(1, DUPLICATE, DUPLICATE_CLOEXEC, *GET_FLAGS, *SET_FLAGS, *(LOCKS if files == "bounded" else ())),
            ((1, INT, SET_STATUS), (2, ASYNC, 0)),
        ),
        "ioctl": _one_of(1, TERMINAL, WINDOW, AVAILABLE, NON_BLOCKING, CLOSE_ON_EXEC, KEEP_ON_EXEC),
        "fallocate": (((1, INT, 0),),),
        "open": (((1, TEMPORARY_FILE, 0),),),
        "openat": (((2, TEMPORARY_FILE, 0),),),
        # A folder that its owner cannot list could be neither counted nor removed.
        "mkdir": (((1, OWNER, OWNER),),),
        "mkdirat": (((2, OWNER, OWNER),),),
        "umask": (((0, OWNER, 0),),),
        "mmap": (((3, HUGE_PAGES, 0),),),
        "madvise": _one_of(2, *ADVICE),
        "clone": (((0, THREAD | NAMESPACES, THREAD),),),
        "prctl": _one_of(0, GET_NAME, SET_NAME),
        # An unnamed pair of streams for event loops: it can neither reach anybody nor carry descriptors.
        "socketpair": (((0, INT, UNIX), (1, KINDS_OF_SOCKET, STREAM)),),
        "sendto": (((4, ALL, 0),),),
        "kill": signalled,
        "tgkill": _one_of(0, own),
        "prlimit64": tuple(((0, INT, process), (2, ALL, 0)) for process in (0, own)),
        "getrusage": _one_of(0, 0, 1, INT, INT - 1),
    }
    for name in ("sched_getaffinity", "getpgid", "getsid"):
        ways[name] = _one_of(0, 0, own)
    if files == "watched":
        ways["renameat2"] = _one_of(4, NO_REPLACE)
    elif files == "read":
        ways |= {"open": (((1, WRITING, 0),),), "openat": (((2, WRITING, 0),),)}
    refused = {"bounded": (), "watched": LOSING_A_NAME, "read": CHANGING_A_FOLDER}[files]
    return {name: way for name, way in ways.items() if name not in refused}
