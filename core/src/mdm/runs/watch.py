"""Observers of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.protocols.hooks import StepEvent


class RunObserver:
    """Sees a run go by. Override what is wanted."""

    sees_steps = False
    """Whether ``begin`` and ``step`` are called; it costs the engine a transfer a step."""

    def begin(
        self, label: str, canvases: Mapping[int, Sequence[str | None]], pieces: Callable[[Sequence[int]], list[str]]
    ) -> None:
        """Rows ``canvases`` are about to be decoded: the text of each token by row, None where masked."""

    def step(self, event: StepEvent) -> None:
        """A step's lines, of a full trace."""

    def note(self, text: str) -> None:
        """Something that takes time begins."""

    def tick(self, label: str, done: int, total: int, accuracy: float) -> None:
        """``done`` of ``total`` examples are in the files; also called once before the first."""


class Interrupted(KeyboardInterrupt):
    """Stopped, and everything finished is written; ``summary`` says what that is, ``why`` what stopped it."""

    def __init__(self, summary: dict[str, Any], why: str) -> None:
        super().__init__()
        self.summary, self.why = summary, why
