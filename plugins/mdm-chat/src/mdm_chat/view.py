"""The answer while it is decoded, on a terminal: masks dissolve, and what is left disappears for the finished text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from mdm.cli.live import CanvasView, text_of
from mdm.runs.decode_args import canvas_texts

if TYPE_CHECKING:
    from mdm.api import Model
    from mdm.models.layout import Layout
    from mdm.protocols import StepEvent
    from rich.console import Console, RenderableType


class LiveAnswer:
    """A context manager; ``on_step`` takes what a session tells of a step.

    Args:
        console: None: stderr.
    """

    def __init__(self, model: Model, layout: Layout, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._model, self._before = model, layout.context
        self._ends = {*model.spec.eos_ids, model.spec.pad_id}
        self.canvas = CanvasView(canvas_texts(model, layout.tokens[layout.context :], layout.gen_length or 0))
        self._console = console or Console(stderr=True)
        self._live = Live(
            get_renderable=self.render, console=self._console, refresh_per_second=20, transient=True,
            vertical_overflow="crop",
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_step(self, event: StepEvent) -> None:
        for line in event.lines:
            own = line | {"positions": self._own(line["positions"])}
            own["weighed"] = [one | {"positions": self._own(one["positions"])} for one in line.get("weighed", [])]
            texts = text_of(line, self._model.shown_texts)
            pairs = zip(line["tokens"], texts, strict=True)
            self.canvas.apply(own, ["" if text and token in self._ends else text for token, text in pairs])

    def _own(self, positions: list[int]) -> list[int]:
        """Positions within the answer."""
        return [position - self._before for position in positions]

    def render(self) -> RenderableType:
        """The answer so far."""
        size = self._console.size
        return self.canvas.text(max(8, size.width), max(3, size.height - 3))
