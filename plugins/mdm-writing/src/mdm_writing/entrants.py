"""The completions that are judged, from the folders of finished or unfinished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm.data import validate
from mdm.errors import MdmError
from mdm.runs import files
from pydantic import BaseModel

Key = tuple[str, int]
"""An example's id and which of its repeats."""


class Writing(BaseModel):
    """The fields of a line of ``results.jsonl`` that are read here."""

    id: str
    prompt: str
    completion: str
    repeat: int = 0

    @property
    def instruction(self) -> str:
        """The prompt as a reader should see it: of a chat of one message, that message."""
        text = self.prompt.removesuffix("\nassistant: ").strip()
        return text.removeprefix("user: ") if text.count("user: ") == 1 else text


@dataclass(frozen=True)
class Entrant:
    """One arm of a run."""

    label: str
    writings: dict[Key, Writing]


def read_runs(folders: Sequence[Path]) -> list[Entrant]:
    """The arms of all folders, with labels of their own.

    Raises:
        MdmError: a folder without results, or a line that is not a result.
    """
    arms: list[tuple[str, Path]] = []
    for folder in folders:
        own = [folder] if (folder / "results.jsonl").is_file() else []
        parts = own or sorted(path.parent for path in folder.glob("*/results.jsonl"))
        if not parts:
            raise MdmError(f"{folder} holds no results.jsonl: it is not the folder of a run")
        arms += [(part.name if part == folder else f"{folder.name}/{part.name}", part) for part in parts]
    names = [name for name, _ in arms]
    return [
        Entrant(name if names.count(name) == 1 else str(part), _read(part / "results.jsonl")) for name, part in arms
    ]


def common(first: Entrant, second: Entrant, intersect: bool) -> list[Key]:
    """The examples that both have, in the first's order.

    Raises:
        MdmError: they answer different prompts; or not all the same ones, unless ``intersect``.
    """
    shared = [key for key in first.writings if key in second.writings]
    for key in shared:
        if first.writings[key].instruction != second.writings[key].instruction:
            raise MdmError(f"{first.label} and {second.label} were given different prompts as example {key[0]}")
    missing = len(first.writings) + len(second.writings) - 2 * len(shared)
    if not shared or (missing and not intersect):
        raise MdmError(
            f"{first.label} and {second.label} share {len(shared)} examples, and {missing} are in one of them only"
            + (": --intersect judges the shared ones" if shared else ": they are runs of different data")
        )
    return shared


def _read(path: Path) -> dict[Key, Writing]:
    writings = {}
    for number, record in enumerate(files.json_lines(path), 1):
        writing = validate(record, Writing, f"{path}, line {number}")
        writings[writing.id, writing.repeat] = writing
    if not writings:
        raise MdmError(f"{path} holds no result yet")
    return writings
