"""What a sampler and a cache mode remember of the rows, which goes with them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from mdm.engine.decisions import Asked, check_memory
from mdm.protocols.cache import Seen
from mdm.protocols.rowwise import Rowwise
from mdm.protocols.state import State
from torch import Tensor, device


@dataclass(frozen=True)
class Remembered:
    """Of one set of rows; None of a plugin that remembers nothing."""

    sampler: Rowwise | None = None
    cache: Rowwise | None = None

    @staticmethod
    def begin(sampler: Asked, cache: Asked, state: State) -> Remembered:
        """Of the new rows ``state``, on the host."""
        begun = []
        for who in (sampler, cache):
            begun.append(who.ask("begin", state))
            check_memory(who, "the memory that begin returned", begun[-1])
        return Remembered(*begun)

    def __bool__(self) -> bool:
        return self.sampler is not None or self.cache is not None

    def learned(self, who: Asked, seen: Seen) -> Remembered:
        """What is remembered after a step, by the cache mode ``who`` too."""
        if self.cache is None:
            return self
        memory = who.ask("learn", seen, self.cache)
        check_memory(who, "the memory that learn returned", memory)
        return replace(self, cache=memory)

    def rows(self, index: Tensor) -> Remembered:
        return self._each("rows", index)

    def to(self, place: device) -> Remembered:
        return self._each("to", place)

    def join(self, other: Remembered) -> Remembered:
        parts = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Remembered(*(None if first is None else first.join(second) for first, second in parts))

    def _each(self, method: str, given: Any) -> Remembered:
        parts = (self.sampler, self.cache)
        return Remembered(*(None if part is None else getattr(part, method)(given) for part in parts))
