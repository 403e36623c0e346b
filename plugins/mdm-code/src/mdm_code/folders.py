"""Working folders of sandboxes: held while their runner lives, counted, removed whatever a program has left in them."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count

PREFIX = "mdm-code-"
DEEPEST = 100
"""Folders in folders that are counted; whoever makes more of them has written too much."""
ENTRY = 4096
"""Bytes that an entry counts as, at least."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def held() -> Iterator[str]:
    """A new folder in the folder for temporary files, locked by this process and removed at the end."""
    parent = os.path.realpath(tempfile.gettempdir())
    _sweep(parent)
    folder, lock = _locked(parent)
    try:
        yield folder
    finally:
        with suppress(OSError):
            if os.fstat(lock).st_nlink:  # a sandbox that has its files elsewhere removes the folder itself
                remove(folder)
        os.close(lock)


def _locked(parent: str) -> tuple[str, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        with suppress(FileNotFoundError):
            lock = os.open(folder, FOLDER)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.fstat(lock).st_nlink:
                return folder, lock
            os.close(lock)  # another runner's sweep took it before it was locked


@cache
def _sweep(parent: str) -> None:
    """Remove our user's folders whose runner was killed: nobody holds a lock on them. Done once for a ``parent``."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                    _remove_abandoned(entry.path)


def _remove_abandoned(folder: str) -> None:
    lock = os.open(folder, FOLDER)
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
    finally:
        os.close(lock)


def written(folder: str, enough: int) -> int:
    """Bytes on disk of what is in a folder, counted up to ``enough``. What cannot be counted is more than that."""
    return _written(folder, None, enough, 0)


def _written(name: str, at: int | None, enough: int, depth: int) -> int:
    if depth > DEEPEST:
        return enough + 1
    total = 0
    try:
        folder = os.open(name, FOLDER, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):  # it has been removed or replaced since
        return 0
    except OSError:
        return enough + 1
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    total += max(ENTRY, status.st_size, 512 * status.st_blocks)
                    if stat.S_ISDIR(status.st_mode):
                        total += _written(entry.name, folder, enough - total, depth + 1)
                if total > enough:
                    break
    finally:
        os.close(folder)
    return total


def remove(folder: str) -> None:
    """Remove a folder in which nobody works any more, however deep it is and whatever its rights are."""
    names = (f"{os.urandom(8).hex()}-{number}" for number in count())
    top = os.open(folder, FOLDER)
    try:
        pending = _emptied(top)
        while pending:
            name = pending.pop()
            inner = os.open(name, FOLDER, dir_fd=top)
            try:
                for deeper in _emptied(inner):  # moves up, so that no path grows long and no descriptor is kept
                    pending.append(next(names))
                    os.rename(deeper, pending[-1], src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _emptied(folder: int) -> list[str]:
    """Remove the files in a folder; the folders in it, which can be listed and moved from now on."""
    kept = []
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except IsADirectoryError:
            os.chmod(name, 0o700, dir_fd=folder)
            kept.append(name)
    return kept
