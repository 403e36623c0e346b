"""Shared by the tasks: puzzles from a file, or an endless sequence of them from a seed."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import ClassVar

from mdm.data import read
from mdm.protocols import BaseTask, Example
from pydantic import BaseModel


class Puzzles(BaseTask):
    """Base of the tasks: a puzzle and one right answer, as text."""

    default_limit: ClassVar[int | None] = 32
    name: ClassVar[str]
    row: ClassVar[type[BaseModel]]
    """A line of a data file."""
    columns: ClassVar[tuple[str, str]] = ("input", "output")
    """The fields of a line that hold the puzzle and its answer."""

    def variety(self) -> str:
        """The options that decide which puzzles are generated; they are part of the random seed."""
        return ""

    @abstractmethod
    def make(self, draw: random.Random) -> tuple[str, str]:
        """A puzzle and its answer."""
        raise NotImplementedError

    def examples(self, *, seed: int, data: Path | None = None) -> Iterator[Example]:
        if data is not None:
            for number, row in read(data, self.row):
                puzzle, answer = (getattr(row, column) for column in self.columns)
                yield Example(f"{self.name}-{data.stem}-{number}", {"puzzle": puzzle}, answer)
            return
        draw = random.Random(":".join(filter(None, (self.name, self.variety(), str(seed)))))
        for number in count():
            puzzle, answer = self.make(draw)
            yield Example(f"{self.name}-{seed}-{number}", {"puzzle": puzzle}, answer)
