"""``--live``: the canvas as it is decoded, on stderr. In colour on a terminal, elsewhere one plain line per step."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.progress import Bars, Lines
from mdm.runs.watch import TokenTexts

if TYPE_CHECKING:
    from mdm.protocols.hooks import Line, StepEvent
    from rich.console import RenderableType
    from rich.text import Text

HOLD = 0.05
"""Minimum seconds per step on a terminal, so that one can follow a small model."""
SHOWN = 5
"""Number of candidates shown."""
HEAT = ("#3fa66b", "#8aa63f", "#c9a227", "#d9822b", "#d9480f", "#c2255c")
"""Colours of a token by its entropy, in steps of ``WARM`` nats."""
WARM = 0.25


def live_view() -> LiveBars | LiveLines:
    """An observer that shows the canvas on stderr; a context manager."""
    return LiveBars() if sys.stderr.isatty() else LiveLines()


def text_of(line: Line, token_texts: TokenTexts) -> list[str | None]:
    """The text of each token of a trace line; None where the position was masked again."""
    return [None] * len(line["tokens"]) if line["kind"] == "remask" else list(token_texts(line["tokens"]))


class LiveLines(Lines):
    """Prints one line per step and example."""

    sees_steps = True

    def on_begin(self, label: str, canvases: Mapping[int, Sequence[str | None]], token_texts: TokenTexts) -> None:
        self._label, self._token_texts = label, token_texts

    def on_step(self, event: StepEvent) -> None:
        for line in event.lines:
            tokens = zip(line["positions"], text_of(line, self._token_texts), line["entropy"], strict=True)
            changes = ", ".join(
                f"{position} masked" if text is None else f"{position} {text!r} ({entropy:.3f})"
                for position, text, entropy in tokens
            )
            weighed = f"; {len(line['weighed'])} weighed" if line.get("weighed") else ""
            head = f"{self._label} #{line['row']} step {line['step'] + 1}, {line['kind']}"
            click.echo(f"{head}: {changes}{weighed}", err=True)


class CanvasView:
    """One example while it is decoded: the text of each token, None where it is masked."""

    def __init__(self, texts: Sequence[str | None]) -> None:
        self.texts = list(texts)
        self.entropy: dict[int, float] = {}
        self.last: Line | None = None

    def apply(self, line: Line, texts: Sequence[str | None]) -> None:
        """Apply a trace line; ``texts`` are those of its tokens."""
        for position, text, entropy in zip(line["positions"], texts, line["entropy"], strict=True):
            self.texts += [None] * (position + 1 - len(self.texts))
            self.texts[position] = text
            self.entropy[position] = entropy
        self.last = line

    @property
    def done(self) -> bool:
        """Whether nothing is masked."""
        return None not in self.texts

    def text(self, room: int) -> Text:
        """About ``room`` characters around the newest tokens.

        The prompt is dim, masks are blocks (darker where a candidate was compared), tokens are coloured by entropy.
        """
        from rich.text import Text

        newest = set(self.last["positions"]) if self.last else set()
        candidates = self.last.get("weighed", []) if self.last else []
        weighed = {position for candidate in candidates for position in candidate["positions"]}
        sizes = [len(text or "░") for text in self.texts]
        first, focus = 0, min(newest, default=0)
        while sum(sizes[first:]) > room and first < focus and sum(sizes[first:focus]) > room // 2:
            first += 1
        out = Text("…" if first else "", style="dim")
        for position, text in enumerate(self.texts[first:], first):
            if text is None:
                out.append("▒" if position in weighed else "░", style="dim")
            elif position in self.entropy:
                heat = HEAT[min(len(HEAT) - 1, int(self.entropy[position] / WARM))]
                out.append(text, style=f"bold reverse {heat}" if position in newest else heat)
            else:
                out.append(text, style="dim")
        return out

    def weighed(self) -> Text:
        """The best candidates of the last step, the committed one marked."""
        from rich.text import Text

        out = Text()
        if self.last is None:
            return out
        chosen = sorted(self.last["positions"])
        best = sorted(self.last.get("weighed", []), key=lambda candidate: -candidate["J"])
        for candidate in best[:SHOWN]:
            mark = "▶" if sorted(candidate["positions"]) == chosen else " "
            positions = ", ".join(map(str, candidate["positions"]))
            values = "J {J:8.4f}   C {C:7.4f}   H {H:7.4f}".format(**candidate)
            out.append(f"{mark} {positions:<12} {values}\n", style="bold" if mark == "▶" else "dim")
        if len(best) > SHOWN:
            out.append(f"  and {len(best) - SHOWN} more weighed\n", style="dim")
        return out


class LiveBars(Bars):
    """Shows the first unfinished example and the candidates compared for it, above the bars."""

    sees_steps = True

    def __init__(self) -> None:
        from rich.live import Live

        super().__init__()
        self._canvases: dict[int, CanvasView] = {}
        self._front: int | None = None
        self._label = ""
        self._display = Live(get_renderable=self._render, console=self._progress.console, refresh_per_second=20)

    def on_begin(self, label: str, canvases: Mapping[int, Sequence[str | None]], token_texts: TokenTexts) -> None:
        self._front = None  # before its canvas goes: another thread renders all the time
        self._label, self._token_texts = label, token_texts
        self._canvases = {row: CanvasView(canvas) for row, canvas in canvases.items()}

    def on_step(self, event: StepEvent) -> None:
        for line in event.lines:
            self._canvases[line["row"]].apply(line, text_of(line, self._token_texts))
        rows = sorted({line["row"] for line in event.lines})
        if rows and (self._front is None or self._canvases[self._front].done):
            self._front = next((row for row in rows if not self._canvases[row].done), rows[-1])
        time.sleep(HOLD)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        parts: list[Any] = []
        front = self._front  # once: the decoding thread may change it meanwhile
        canvas = None if front is None else self._canvases.get(front)
        if canvas is not None:
            size, line = self._progress.console.size, canvas.last
            head = f"{self._label} #{front}" + (f", step {line['step'] + 1}: {line['kind']}" if line else "")
            room = max(200, (size.width - 4) * max(3, size.height - SHOWN - 8))
            parts = [Panel(canvas.text(room), title=Text(head), title_align="left"), canvas.weighed()]
        return Group(*parts, self._progress)
