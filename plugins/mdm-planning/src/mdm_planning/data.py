"""Reading examples from a file the user names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mdm.errors import MdmError
from pydantic import BaseModel, ValidationError

Row = TypeVar("Row", bound=BaseModel)


class Pair(BaseModel):
    """A JSON line of ``input`` and ``output``."""

    input: str
    output: str = ""


def read(path: Path, model: type[Row]) -> Iterator[tuple[int, Row]]:
    """Each row of a CSV or JSON lines file with its line number, validated.

    Raises:
        MdmError: the file is missing, empty or broken; the message names file, line and field.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = _csv(file) if path.suffix.lower() == ".csv" else _jsonl(file, path)
            empty = True
            for number, raw in lines:
                empty = False
                try:
                    yield number, model.model_validate(raw)
                except ValidationError as error:
                    first = error.errors()[0]
                    field = ".".join(str(p) for p in first["loc"]) or "the row"
                    raise MdmError(f"{path}, line {number}: field {field!r}: {first['msg']}") from None
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such data file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MdmError(f"{path} cannot be read: {error}") from None
    if empty:
        raise MdmError(f"{path} holds no example")


def _csv(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(file)
    for row in reader:
        yield reader.line_num, {k: v for k, v in row.items() if k is not None and v is not None}


def _jsonl(file: Iterable[str], path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise MdmError(f"{path}, line {number}: not JSON ({error})") from None
