"""``--live``: the canvas as it is decoded, on stderr. In colour on a terminal, a plain line a step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.progress import Bars, Lines

if TYPE_CHECKING:
    from mdm.protocols.hooks import Line, StepEvent
    from rich.console import RenderableType
    from rich.text import Text

HOLD = 0.05
"""Seconds that a step stays on a terminal at least, so that eyes can follow a small model."""
SHOWN = 5
"""Candidates shown."""
HEAT = ("#3fa66b", "#8aa63f", "#c9a227", "#d9822b", "#d9480f", "#c2255c")
"""Colours of a token by its entropy, every ``WARM`` nats one."""
WARM = 0.25
Pieces = Callable[[Sequence[int]], list[str]]


def live() -> LiveBars | LiveLines:
    """What suits this stderr; a context manager and a ``Watch``."""
    return LiveBars() if sys.stderr.isatty() else LiveLines()


def text_of(line: Line, pieces: Pieces) -> list[str | None]:
    """The text of each token of a trace line, None where it is a mask again."""
    return [None] * len(line["tokens"]) if line["kind"] == "remask" else list(pieces(line["tokens"]))


class LiveLines(Lines):
    """One line for each step of each example."""

    sees_steps = True

    def begin(self, label: str, canvases: Mapping[int, Sequence[str | None]], pieces: Pieces) -> None:
        self._label, self._pieces = label, pieces

    def step(self, event: StepEvent) -> None:
        for line in event.lines:
            made = zip(line["positions"], text_of(line, self._pieces), line["entropy"], strict=True)
            what = ", ".join(f"{at} {text!r} ({entropy:.3f})" if text else f"{at} masked" for at, text, entropy in made)
            weighed = f"; {len(line['weighed'])} weighed" if line.get("weighed") else ""
            click.echo(
                f"{self._label} #{line['row']} step {line['step'] + 1}, {line['kind']}: {what}{weighed}", err=True
            )


class Canvas:
    """One example while it is decoded."""

    def __init__(self, pieces: Sequence[str | None]) -> None:
        self.texts = list(pieces)
        self.entropy: dict[int, float] = {}
        self.last: Line | None = None

    def apply(self, line: Line, texts: Sequence[str | None]) -> None:
        for at, text, entropy in zip(line["positions"], texts, line["entropy"], strict=True):
            self.texts += [None] * (at + 1 - len(self.texts))
            self.texts[at] = text
            self.entropy[at] = entropy
        self.last = line

    @property
    def done(self) -> bool:
        return None not in self.texts

    def text(self, room: int) -> Text:
        """Prompt dim, masks as blocks (darker where weighed), tokens by entropy; about ``room`` characters of it."""
        from rich.text import Text

        newest = set(self.last["positions"]) if self.last else set()
        weighed = {at for w in (self.last.get("weighed", []) if self.last else []) for at in w["positions"]}
        sizes = [len(piece or "░") for piece in self.texts]
        first = 0
        focus = min(newest, default=0)
        while sum(sizes[first:]) > room and first < focus and sum(sizes[first:focus]) > room // 2:
            first += 1
        out = Text("…" if first else "", style="dim")
        for at, piece in enumerate(self.texts[first:], first):
            if piece is None:
                out.append("▒" if at in weighed else "░", style="dim")
            elif at in self.entropy:
                heat = HEAT[min(len(HEAT) - 1, int(self.entropy[at] / WARM))]
                out.append(piece, style=f"bold reverse {heat}" if at in newest else heat)
            else:
                out.append(piece, style="dim")
        return out

    def weighed(self) -> Text:
        """The best candidates of the last step, and which one it was."""
        from rich.text import Text

        out = Text()
        if self.last is None:
            return out
        chosen = sorted(self.last["positions"])
        best = sorted(self.last.get("weighed", []), key=lambda w: -w["J"])
        for w in best[:SHOWN]:
            mark = "▶" if sorted(w["positions"]) == chosen else " "
            at = ", ".join(map(str, w["positions"]))
            style = "bold" if mark == "▶" else "dim"
            out.append(f"{mark} {at:<12} J {w['J']:8.4f}   C {w['C']:7.4f}   H {w['H']:7.4f}\n", style=style)
        if len(best) > SHOWN:
            out.append(f"  and {len(best) - SHOWN} more weighed\n", style="dim")
        return out


class LiveBars(Bars):
    """The first unfinished example and what was weighed for it, over the bars."""

    sees_steps = True

    def __init__(self) -> None:
        from rich.live import Live

        super().__init__()
        self._canvases: dict[int, Canvas] = {}
        self._front: int | None = None
        self._label = ""
        self._live = Live(get_renderable=self._render, console=self._progress.console, refresh_per_second=20)

    def __enter__(self) -> LiveBars:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def begin(self, label: str, canvases: Mapping[int, Sequence[str | None]], pieces: Pieces) -> None:
        self._label, self._pieces = label, pieces
        self._canvases = {row: Canvas(canvas) for row, canvas in canvases.items()}
        self._front = None

    def step(self, event: StepEvent) -> None:
        for line in event.lines:
            self._canvases[line["row"]].apply(line, text_of(line, self._pieces))
        rows = sorted({line["row"] for line in event.lines})
        if rows and (self._front is None or self._canvases[self._front].done):
            self._front = next((row for row in rows if not self._canvases[row].done), rows[-1])
        time.sleep(HOLD)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        parts: list[Any] = []
        if self._front is not None:
            canvas, size = self._canvases[self._front], self._progress.console.size
            line = canvas.last
            head = f"{self._label} #{self._front}" + (f", step {line['step'] + 1}: {line['kind']}" if line else "")
            room = max(200, (size.width - 4) * max(3, size.height - SHOWN - 8))
            parts = [Panel(canvas.text(room), title=Text(head), title_align="left"), canvas.weighed()]
        return Group(*parts, self._progress)
