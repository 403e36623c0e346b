"""Atomic writes, locks, and append-only JSON-lines logs that survive a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

from mdm.data import documents
from mdm.errors import MdmError


@contextmanager
def os_errors_as_mdm_errors(path: Path, verb: str) -> Iterator[None]:
    """Re-raise OSError as a one-line MdmError that names the file."""
    try:
        yield
    except OSError as error:
        raise MdmError(f"cannot {verb} {path}: {error.strerror or error}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file, which replaces ``path`` at the end; raises an MdmError where that cannot be written."""
    with os_errors_as_mdm_errors(path, "write"):
        path, part = _target(path)
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def check_writable(path: Path) -> None:
    """Check, before long work, that ``path`` can be written; raises an MdmError where it cannot."""
    with os_errors_as_mdm_errors(path, "write"):
        _, part = _target(path)
        part.touch()
        part.unlink()


def _target(path: Path) -> tuple[Path, Path]:
    """The file that ``path`` resolves to, and the temporary name beside it under which it is written."""
    _check_regular(path)
    path = Path(os.path.realpath(path))  # unlike Path.resolve, accepts links in a circle
    return path, path.with_name(f".{path.name}.{os.getpid()}")


def _check_regular(path: Path) -> None:
    """Refuse a device or a pipe: replacing it would destroy it, and opening it may wait for ever."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")


def remove_parts(folder: Path, name: str) -> None:
    """Remove the temporary files of processes that are gone, for targets whose whole name matches ``name``, a regex.

    Call it before this process writes such targets: one of its own number is then left by another.
    """
    for part in folder.glob(".*.*"):
        found = re.fullmatch(rf"\.(?:{name})\.(?P<process>\d{{1,9}})", part.name)
        if found and not _is_running(int(found["process"])):
            with suppress(OSError):
                part.unlink()


def _is_running(process: int) -> bool:
    """Whether there is a process of this number beside this one."""
    if os.name == "nt":  # where signal 0 ends it
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return process != os.getpid()


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text file; on failure the old one stays."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def to_json(value: Any, **options: Any) -> str:
    """JSON text that any reader takes: null for numbers that are not finite, escapes for halves of characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, **options)
    # What cannot be encoded are lone surrogates, and Python escapes them as JSON does.
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON document, with ``write_text_atomic``."""
    write_text_atomic(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Load a JSON document; an empty one if there is no file."""
    try:
        return documents.read_json(path)
    except FileNotFoundError:
        return {}


def json_lines(path: Path) -> Iterator[Any]:
    """The records of a log, if there is one, but for a last line that a kill cut short; others must be JSON."""
    if not path.exists():
        return
    number = 0
    try:
        with os_errors_as_mdm_errors(path, "read"), documents.open_regular(path) as log:
            for number, line in enumerate(documents.lines(log), 1):  # noqa: B007  # the error names it
                if not line.endswith(b"\n"):
                    return
                yield documents.parse_json(line)
    except ValueError as error:
        raise MdmError(f"{path}, line {number}: {error}") from error


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Replace a whole log; ``records`` may come from the log itself."""
    with atomic_file(path) as part, part.open("wb") as out:
        out.writelines(map(_line, records))


class Log:
    """An open log of JSON lines.

    Each ``append`` is a single write: a kill can cut the last line short, and a full disk leaves no part of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with os_errors_as_mdm_errors(path, "write"):
            _check_regular(path)
            self._file = path.open("ab", buffering=0)

    def append(self, *records: Any) -> None:
        """Write some records, or on an error none of them."""
        data = memoryview(b"".join(map(_line, records)))
        with os_errors_as_mdm_errors(self.path, "write"):
            size_before = os.fstat(self._file.fileno()).st_size
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(size_before)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Lock a folder or a log, until this process ends at the latest; raises an MdmError where another process has."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with os_errors_as_mdm_errors(path, "open"):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MdmError(
                f"another run is writing into {path}: wait for it, or choose another --out (--num-processes shares one)"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with os_errors_as_mdm_errors(path, "read"), documents.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(record: Any) -> bytes:
    return (to_json(record) + "\n").encode()
