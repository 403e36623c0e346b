"""JSON and YAML that others wrote: plain values within bounds of size, depth and number, from regular files only.

Text that is no such document is a ``ValueError``; ``read_json`` and ``read_text`` make one line of it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import IO, Any, AnyStr, BinaryIO, NoReturn

from mdm.errors import MdmError, first_line

LARGEST_FILE = 2**28
"""Bytes of a document that is read as a whole."""
LARGEST_LINE = 2**26
"""Characters of a line of JSON lines or CSV."""
DEPTH = 64
"""Lists and mappings inside each other."""
PACKED = 100
"""Bytes that one packed byte may stand for."""
DIGITS = 100
"""Of a whole number."""

_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading, without waiting for a pipe or reading from a device.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(None, "it is not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """A whole text file.

    Raises:
        FileNotFoundError: there is none.
        MdmError: it cannot be read, is no UTF-8, or has more than ``largest`` bytes.
    """
    try:
        with open_regular(path) as file:
            data = file.read(largest + 1)
        if len(data) > largest:
            raise MdmError(f"{path} cannot be read: it has more than {largest:,} bytes")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise MdmError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON document.

    Args:
        finite: refuse the numbers that JSON does not have, such as NaN, and those that are too large for a float.

    Raises:
        ValueError: it is no JSON, is nested too deep, gives a key twice, or holds such a number.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    if text.count("[") + text.count("{") > DEPTH:
        _check_depth(text)
    numbers: dict[str, Any] = {"parse_float": _finite, "parse_constant": _no_number} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_mapping, parse_int=_whole, **numbers)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None


def read_json(path: Path, *, finite: bool = True) -> Any:
    """The value in a JSON file, as ``parse_json`` reads it.

    Raises:
        FileNotFoundError: there is none.
        MdmError: it cannot be read; the line names the file.
    """
    try:
        return parse_json(read_text(path), finite=finite)
    except ValueError as error:
        raise MdmError(f"{path}: {error}") from None


def lines(file: IO[AnyStr], largest: int = LARGEST_LINE) -> Iterator[AnyStr]:
    """The lines of a file.

    Raises:
        ValueError: one has more than ``largest`` characters, or bytes.
    """
    while line := file.readline(largest + 1):
        if len(line) > largest:
            raise ValueError(f"a line has more than {largest:,} characters")
        yield line


def unpacked(file: BinaryIO) -> BinaryIO:
    """What a gzip file holds; texts are not packed closer than ``PACKED``.

    Raises:
        OSError: while it is read, where it unpacks to more than that.
    """
    return io.BufferedReader(_Unpacked(file))


class _Unpacked(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")
        self._most = max(2**24, PACKED * os.fstat(file.fileno()).st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        if self._file.tell() > self._most:
            raise OSError(f"it unpacks to more than {self._most:,} bytes")
        buffer[: len(data)] = data
        return len(data)


def parse_yaml(text: str) -> Any:
    """The value of a YAML document of plain values: texts, finite numbers, true and false, null, lists and mappings.

    Raises:
        ValueError: it is no YAML, or not within the bounds of ``plain_yaml``.
    """
    from mdm.data.plain_yaml import Loader

    try:
        return Loader(text).get_single_data()
    except ValueError:
        raise
    except Exception as error:  # YAMLError; PyYAML's own slips (IndexError) at texts that are none
        said = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise ValueError(f"not YAML: {said}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > DEPTH:
                raise ValueError(f"lists and mappings are nested more than {DEPTH} deep")
        elif match[0] in "]}":
            depth -= 1


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"the number {text[:40]}... has more than {DIGITS} digits")
    return int(text)


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        _no_number(text)
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is no number that JSON has")


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {first_line(ValueError(twice))!r} is given twice")
    return mapping
