"""What networks said of sequences, kept line by line, so that a long scoring that is stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mdm.data.examples import validate
from mdm.models.checkpoints import locate
from mdm.runs import files
from pydantic import BaseModel, ConfigDict

Values = dict[str, float | None]


class Line(BaseModel):
    """A line of the log."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    key: str
    values: dict[str, float | None]


def checkpoint(name: str) -> list[Any]:
    """What tells a checkpoint from another, and from what the same folder held before: its files' sizes and times."""
    folder = locate(name, offline=False)
    stats = [(path, path.stat()) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    return [str(folder.resolve()), [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats]]


class Kept:
    """Values by what was asked, in memory and, where there is a ``path``, in a log of JSON lines.

    Raises:
        MdmError: the log holds something else, or cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._values: dict[str, Values] = {}
        self._log: files.Log | None = None
        if path is None:
            return
        for number, record in enumerate(files.json_lines(path), 1):
            line = validate(record, Line, f"{path}, line {number}")
            self._values[line.key] = line.values
        # Anew, since a kill may have cut the last line short.
        files.write_lines(path, ({"key": key, "values": values} for key, values in self._values.items()))
        self._log = files.Log(path)

    def ask(self, question: Mapping[str, Any], answer: Callable[[], Values]) -> Values:
        """The values of a question that was answered before, else what ``answer`` gives, which is kept."""
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        if key not in self._values:
            self._values[key] = answer()
            if self._log is not None:
                self._log.append({"key": key, "values": self._values[key]})
        return self._values[key]

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
