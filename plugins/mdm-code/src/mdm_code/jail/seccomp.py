"""The filter of system calls: from the system's libseccomp where it is installed, else made here."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from contextlib import suppress

from calls import INT, NUMBERS, TAKEN_FOR_MISSING, Ways
from kernel import LIBC, MACHINES, checked

EPERM, ENOSYS = 1, 38
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
ARCHITECTURES, SECCOMP = (0xC000003E, 0xC00000B7), (317, 277)
LOAD, AND, JUMP_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
MASKED_EQUAL = 7
LIBRARY = "libseccomp.so.2"


def restrict(ways: Mapping[str, Ways], *, library: bool = True) -> str:
    """Refuse all calls but ``ways``, for ever. Without ``library`` libseccomp counts as not installed.

    Returns:
        Who made the filter.

    Raises:
        OSError: the kernel refused it.
    """
    if library:
        with suppress(OSError):
            _from_library(ctypes.CDLL(LIBRARY), ways)
            return "libseccomp"
    _own(ways)
    return "our own"


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint), ("how", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64),
    )  # fmt: skip


def _from_library(library: ctypes.CDLL, ways: Mapping[str, Ways]) -> None:
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(REFUSE | EPERM))

    def add(name: str, action: int, *conditions: tuple[int, int, int]) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            compared = (_Comparison * len(conditions))(
                *(_Comparison(argument, MASKED_EQUAL, mask, value) for argument, mask, value in conditions)
            )
            failed = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(compared), compared)
            checked(failed, f"seccomp_rule_add_array {name}")

    for name in TAKEN_FOR_MISSING:
        add(name, REFUSE | ENOSYS)
    for name, alternatives in ways.items():
        for conditions in alternatives:
            add(name, ALLOW, *conditions)
    checked(library.seccomp_load(context), "seccomp_load")
    library.seccomp_release(context)


def _own(ways: Mapping[str, Ways]) -> None:
    column = MACHINES.index(os.uname().machine)
    rules = [
        (LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 1, 0, ARCHITECTURES[column]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]  # fmt: skip
    for numbers in TAKEN_FOR_MISSING.values():
        rules += [(JUMP_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, REFUSE | ENOSYS)]
    for name, alternatives in ways.items():
        if (number := NUMBERS[name][column]) is not None:
            block = [rule for conditions in alternatives for rule in _way(conditions)]
            block.append((RETURN, 0, 0, REFUSE | EPERM))
            rules += [(JUMP_EQUAL, 0, len(block), number), *block]
    rules.append((RETURN, 0, 0, REFUSE | EPERM))
    code = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<HxxxxxxQ", len(rules), ctypes.addressof(buffer))
    checked(LIBC.syscall(SECCOMP[column], 1, 0, program), "seccomp")


def _way(conditions: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int, int, int]]:
    """Allow a call for which all ``conditions`` hold; what follows decides over the others."""
    rules: list[tuple[int, int, int, int]] = [(RETURN, 0, 0, ALLOW)]
    for argument, mask, value in reversed(conditions):
        for offset, shift in ((4, 32), (0, 0)):  # the upper half of an argument, and the lower
            if part := mask >> shift & INT:
                rules = [
                    (LOAD, 0, 0, ARGUMENTS + 8 * argument + offset), (AND, 0, 0, part),
                    (JUMP_EQUAL, 0, len(rules), value >> shift & INT), *rules,
                ]  # fmt: skip
    return rules
