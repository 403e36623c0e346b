"""The rights that a process gives up before it runs untrusted code. Linux on x86-64 or arm64, without privileges.

- seccomp: no new processes or programs, no signals to others, no sockets, no change of owner, mode or session, no reach
  into other processes. This layer is required.
- Landlock, where the kernel has it: the interpreter can be read, one folder can be written, nothing else is there.
- a user and a network namespace of its own, where the kernel lets us: no network, no privilege over anybody else.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

# Numbers of the refused calls on (x86-64, arm64); None where an architecture has no such call.
REFUSED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "ptrace": (101, 117), "kcmp": (312, 272),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setsid": (112, 157), "setpgid": (109, 154),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setpriority": (141, 140), "sched_setaffinity": (203, 122), "prlimit64": (302, 261),
}  # fmt: skip
SIGNALS = {"kill": (62, 129), "tgkill": (234, 131)}
CLONE, CLONE3, PRCTL, SECCOMP = (56, 220), (435, 435), (157, 167), (317, 277)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CLONE_THREAD, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000, 0x10000000, 0x40000000, 0x08000000
EPERM, ENOSYS = 1, 38
LOAD, JUMP_EQUAL, JUMP_SET, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16


def supported() -> bool:
    """Whether the required layer can be had here."""
    return sys.platform == "linux" and os.uname().machine in ARCHITECTURES and sys.maxsize > 2**32


def limit(*, cpu: int, memory: int, file: int) -> None:
    """Bound this process and those it forks: ``cpu`` in seconds, ``memory`` and the size of a ``file`` in bytes."""
    for what, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file, file),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(what, (soft, hard))


def die_with_parent() -> None:
    _checked(LIBC.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "PR_SET_PDEATHSIG")


def hide_memory() -> None:
    """Keep processes of the same user, our own child among them, from reading or writing this one's memory."""
    _checked(LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def confine(folder: str | None, child: int | None = None) -> None:
    """Give everything up but the ``folder``, and signals to itself and to the ``child``; there is no way back.

    Raises:
        OSError: the system refused the required layer.
    """
    LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    _checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    _landlock(folder)
    header, nothing = struct.pack("<Ii", 0x20080522, 0), bytes(24)
    _checked(LIBC.capset(header, nothing), "capset")
    _seccomp([os.getpid(), *([child] if child else [])])


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _landlock(folder: str | None) -> None:
    create, add, restrict = 444, 445, 446
    version = LIBC.syscall(create, None, 0, 1)
    if version < 1:
        return
    rights = 13 + (version >= 2) + (version >= 3)  # bits 0 to 12, renaming across folders, truncation
    everything = (1 << rights) - 1
    ruleset = struct.pack("<Q", everything)
    handle = _checked(LIBC.syscall(create, ruleset, len(ruleset), 0), "landlock_create_ruleset")
    execute, write_file, read_file, read_folder = 1, 2, 4, 8
    libraries = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime")
    for path in {sys.base_prefix, sys.base_exec_prefix, *sys.path, *libraries}:
        _allow(add, handle, path, (read_file | read_folder) if os.path.isdir(path) else read_file)
    for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        _allow(add, handle, path, read_file | write_file)
    if folder:
        _allow(add, handle, folder, everything & ~execute)
    _checked(LIBC.syscall(restrict, handle, 0), "landlock_restrict_self")
    os.close(handle)


def _allow(add: int, ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    _checked(LIBC.syscall(add, ruleset, 1, struct.pack("<Qi", rights, beneath), 0), "landlock_add_rule")
    os.close(beneath)


def _seccomp(signalled: list[int]) -> None:
    column, architecture = ARCHITECTURES[os.uname().machine]
    rules = [
        (LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]  # fmt: skip
    if column == 0:  # the calls of the x32 ABI are the same ones under other numbers
        rules += [(JUMP_AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE | EPERM)]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            rules += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | EPERM)]
    count = len(signalled)
    for numbers in SIGNALS.values():
        rules += [
            (JUMP_EQUAL, 0, count + 3, numbers[column]), (LOAD, 0, 0, FIRST_ARGUMENT),
            *((JUMP_EQUAL, count - i, 0, process) for i, process in enumerate(signalled)),
            (RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW),
        ]  # fmt: skip
    rules += [
        (JUMP_EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, REFUSE | ENOSYS),  # the C library then takes clone
        (JUMP_EQUAL, 0, 4, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (JUMP_SET, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE | EPERM),
        (JUMP_EQUAL, 0, 4, PRCTL[column]), (LOAD, 0, 0, FIRST_ARGUMENT), (JUMP_EQUAL, 1, 0, PR_SET_PDEATHSIG),
        (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip
    code = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<HxxxxxxQ", len(rules), ctypes.addressof(buffer))
    _checked(LIBC.syscall(SECCOMP[column], 1, 0, program), "seccomp")
