"""Examples from a file or from the hub. Each row is validated, and an error names its line and field."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mdm.data.documents import LARGEST_LINE, lines, open_regular, parse_json, unpacked
from mdm.errors import MdmError, explain
from pydantic import BaseModel, ValidationError

Row = TypeVar("Row", bound=BaseModel)


class Pair(BaseModel):
    """A JSON line of ``input`` and ``output``."""

    input: str
    output: str = ""


@dataclass(frozen=True)
class HubData:
    """A data set on the hub, at one commit."""

    name: str
    split: str
    revision: str
    config: str | None = None


def read(path: Path, model: type[Row]) -> Iterator[tuple[int, Row]]:
    """Each row of a CSV or JSON lines file, plain or ``.gz``, with its line number, validated.

    Raises:
        MdmError: the file is missing, empty or broken; the message names file, line and field.
    """
    name, number = path.name.lower(), 0
    try:
        with open_regular(path) as stored:
            raw = unpacked(stored) if name.endswith(".gz") else stored
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            for number, row in _csv(file) if name.removesuffix(".gz").endswith(".csv") else _jsonl(file, path):
                yield number, validate(row, model, f"{path}, line {number}")
    except FileNotFoundError:
        raise MdmError(f"{path}: there is no such data file") from None
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise MdmError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if number == 0:
        raise MdmError(f"{path} holds no example")


def read_hub(source: HubData, model: type[Row]) -> Iterator[tuple[int, Row]]:
    """Each row of a data set on the hub with its index in the split, validated.

    It is downloaded once; afterwards, and with ``HF_HUB_OFFLINE=1``, it comes from the hub's cache.

    Raises:
        MdmError: ``datasets`` is not installed, or the data set is gated, missing, out of reach or of other fields.
    """
    for number, row in enumerate(_load(source)):
        yield number, validate(row, model, f"{source.name} ({source.split}), row {number}")


def _load(source: HubData) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetNotFoundError
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        raise MdmError(
            f"reading {source.name} from the hub needs `datasets`: pip install 'mdm-core[hub]', or give --data FILE"
        ) from None
    datasets.disable_progress_bars()
    disable_progress_bars()
    logging.set_verbosity_error()  # the client logs its retries; the error line below is enough
    try:
        return datasets.load_dataset(source.name, source.config, split=source.split, revision=source.revision)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise MdmError(
                f"{source.name} is gated: ask for access on https://huggingface.co/datasets/{source.name}, "
                "then `hf auth login` (or set HF_TOKEN), or give --data FILE"
            ) from None
        raise MdmError(f"{source.name}: {error}") from None
    except (ConnectionError, TimeoutError) as error:
        raise MdmError(
            f"{source.name} is not in the hub's cache and the hub is out of reach ({_line(error)}): "
            "run once with a connection, or give --data FILE"
        ) from None
    except Exception as error:
        raise MdmError(f"{source.name}, revision {source.revision}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def validate(row: Any, model: type[Row], where: str) -> Row:
    """A row as an instance of ``model``.

    Raises:
        MdmError: it begins with ``where`` and names the field.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        raise MdmError(explain(error, f"{where}: ", model)) from None


def _csv(file: io.TextIOWrapper) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(LARGEST_LINE)
    reader = csv.DictReader(lines(file), strict=True)
    names = reader.fieldnames or ()
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ValueError(f"the column {twice[:60]!r} is given twice")
    for row in reader:
        if row.get(None):
            raise ValueError(f"line {reader.line_num} has more cells than there are columns")
        yield reader.line_num, {k: v for k, v in row.items() if k is not None and v is not None}


def _jsonl(file: io.TextIOWrapper, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines(file), 1):
        if not line.strip():
            continue
        try:
            yield number, parse_json(line)
        except ValueError as error:
            raise MdmError(f"{path}, line {number}: {error}") from None
