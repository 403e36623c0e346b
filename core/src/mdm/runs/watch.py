"""Observers of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mdm.errors import blamed

if TYPE_CHECKING:
    import numpy as np
    from mdm.protocols.hooks import StepEvent
    from numpy.typing import NDArray

TokenTexts = Callable[[Sequence[int]], list[str]]
"""The text of each of some token ids."""
Grids = Mapping[int, tuple[int, int]]
"""Row id -> rows and columns of the picture's tokens."""
PictureOf = Callable[[Sequence[int | None]], "NDArray[np.uint8]"]
"""The picture, uint8 ``[H, W, 3]``, of the token ids of a grid, row by row; grey where one is None, a mask."""


@dataclass(frozen=True)
class Work:
    """How far a process has come with a variant, since it began it; results of an earlier process do not count."""

    rows: int
    """Examples in decoding: begun and not finished."""
    steps: int
    """Steps of the engine."""
    tokens: int
    """Tokens decoded, those of unfinished examples included."""
    tokens_left: int
    """Tokens still to decode, in all examples that are left."""
    seconds: float
    """Wall time."""


class RunObserver:
    """Observer of a run. Override the callbacks you need.

    An exception in a callback stops the run; what is finished stays written, and no example is counted as wrong.
    """

    sees_steps = False
    """Whether ``on_begin`` and ``on_step`` are called; it costs the engine a transfer per step."""

    def on_begin(
        self, label: str, canvases: Mapping[int, Sequence[str | None]], token_texts: TokenTexts,
        grids: Grids | None = None, pictures: PictureOf | None = None,
    ) -> None:  # fmt: skip
        """A variant's examples are about to be decoded.

        Args:
            label: names the variant.
            canvases: row id -> the text of each token, None where it is masked.
            token_texts: the text of each token id.
            grids: the grid of each row that becomes a picture, whose tokens are the masks of its canvas, row by row.
            pictures: draws unfinished pictures, where something can.
        """

    def on_names(self, label: str, names: Mapping[int, str]) -> None:
        """Row id -> what the row is called, before ``on_begin``: the example's id, and which repeat of it."""

    def on_step(self, event: StepEvent) -> None:
        """A step has been decoded; its trace lines are those of a full trace."""

    def on_settings(self, label: str, settings: Mapping[str, Any]) -> None:
        """With what a variant's examples are decoded, defaults and what "auto" became included."""

    def on_note(self, text: str) -> None:
        """Something that takes time is about to begin."""

    def on_warning(self, text: str) -> None:
        """Something that a reader of the results should know."""

    def on_progress(self, label: str, done: int, total: int, accuracy: float | None) -> None:
        """``done`` of ``total`` examples are written; also called once before the first."""

    def on_work(self, label: str, work: Work) -> None:
        """A step is done; called about twice a second at most, between the calls of ``on_progress``."""


class GuardedObserver(RunObserver):
    """Calls another observer and raises its exceptions as an MdmError that names it."""

    def __init__(self, observer: RunObserver) -> None:
        self.sees_steps = observer.sees_steps
        for callback in (name for name in dir(RunObserver) if name.startswith("on_")):
            setattr(self, callback, partial(self._call, observer, callback))

    def _call(self, observer: RunObserver, callback: str, *args: Any, **more: Any) -> None:
        with blamed(f"the observer {type(observer).__name__} failed in {callback}"):
            getattr(observer, callback)(*args, **more)


class Interrupted(KeyboardInterrupt):
    """A run that was stopped after everything finished was written.

    ``summary`` is what ``summary.json`` says of it, and ``why`` what stopped it.
    """

    def __init__(self, summary: dict[str, Any], why: str) -> None:
        super().__init__()
        self.summary, self.why = summary, why
