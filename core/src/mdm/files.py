"""Files that are whole or not there, and logs of JSON lines that survive a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mdm.errors import MdmError


@contextmanager
def spoken(path: Path, verb: str) -> Iterator[None]:
    """Say in one line which file the system refused, and why."""
    try:
        yield
    except OSError as error:
        raise MdmError(f"cannot {verb} {path}: {error.strerror or error}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name and move it into place: readers never see half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with spoken(path, "write"):
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def write_json(path: Path, value: Any) -> None:
    """``write_whole`` of a readable JSON document."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON document, an empty one if there is no file."""
    if not path.exists():
        return {}
    with spoken(path, "read"):
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MdmError(f"{path}: not JSON ({error})") from error


def json_lines(path: Path) -> Iterator[Any]:
    """The records of a log, none if there is no file. A last line that a kill tore is not a record.

    Raises:
        MdmError: a line before the last is not JSON.
    """
    if not path.exists():
        return
    with spoken(path, "read"), path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise MdmError(f"{path}, line {number}: not JSON ({error})") from error


def keep_lines(path: Path, keep: Callable[[Any], bool]) -> None:
    """Rewrite a log without its torn last line and without the records that ``keep`` refuses, in one move."""
    if not path.exists():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with spoken(path, "write"):
        with part.open("wb") as out:
            out.writelines(_line(record) for record in json_lines(path) if keep(record))
        os.replace(part, path)


class Log:
    """An open log. Each ``append`` is one write to the system: a kill tears one line at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with spoken(path, "write"):
            self._file = path.open("ab", buffering=0)

    def append(self, *records: Any) -> None:
        data = memoryview(b"".join(_line(record) for record in records))
        with spoken(self.path, "write"):
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        self._file.close()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from running into the same folder meanwhile. The system lets go when we die.

    Raises:
        MdmError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with spoken(folder, "open"):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MdmError(f"another run is writing into {folder}") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The digest of a file, by which a changed data file is told from the one a run began with."""
    with spoken(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(record: Any) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
