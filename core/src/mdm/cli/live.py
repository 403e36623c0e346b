"""``--live``: the canvas as it is decoded, on stderr. In colour on a terminal, elsewhere one plain line per step.

A row that becomes a picture is shown as the grid of its tokens, and in 24-bit colour as the picture so far.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import click
from mdm.cli.progress import Bars, Lines
from mdm.errors import printable
from mdm.runs.watch import Grids, PictureOf, TokenTexts

if TYPE_CHECKING:
    from mdm.protocols.hooks import Line, StepEvent
    from rich.console import RenderableType
    from rich.text import Text

HOLD = 0.05
"""Minimum seconds per step on a terminal, so that one can follow a small model."""
SHOWN = 5
"""Number of candidates shown."""
HEAT = ("#3fa66b", "#8aa63f", "#c9a227", "#d9822b", "#d9480f", "#c2255c")
"""Colours of a token by its entropy, low to high."""
PICTURE_EVERY, PICTURE_SHARE = 0.5, 4.0
"""Seconds between two pictures at least, and how many times as long as the last one took."""


def live_view() -> LiveBars | LiveLines:
    """An observer that shows the canvas on stderr; a context manager."""
    return LiveBars() if sys.stderr.isatty() else LiveLines()


def text_of(line: Line, token_texts: TokenTexts) -> list[str | None]:
    """The text of each token of a trace line; None where the position was masked again."""
    return [None] * len(line["tokens"]) if line["kind"] == "remask" else list(token_texts(line["tokens"]))


class LiveLines(Lines):
    """Prints one line per step and example."""

    sees_steps = True
    _names: Mapping[int, str] = {}

    def on_names(self, label: str, names: Mapping[int, str]) -> None:
        self._names = names

    def on_begin(
        self, label: str, canvases: Mapping[int, Sequence[str | None]], token_texts: TokenTexts,
        grids: Grids | None = None, pictures: PictureOf | None = None,
    ) -> None:  # fmt: skip
        self._label, self._token_texts = label, token_texts
        self._grids = {row: GridView(canvases[row], grid) for row, grid in (grids or {}).items()}

    def on_step(self, event: StepEvent) -> None:
        for line in event.lines:
            changes = self._grid_changes(line) if line["row"] in self._grids else self._text_changes(line)
            weighed = f"; {len(line['weighed'])} weighed" if line.get("weighed") else ""
            name = self._names.get(line["row"], f"#{line['row'] + 1}")
            head = f"{self._label} {name} step {line['step'] + 1}, {line['kind']}"
            click.echo(f"{head}: {changes}{weighed}", err=True)

    def _text_changes(self, line: Line) -> str:
        tokens = zip(line["positions"], text_of(line, self._token_texts), line["entropy"], strict=True)
        return ", ".join(
            f"{position} masked" if text is None else f"{position} {text!r} ({entropy:.3f})"
            for position, text, entropy in tokens
        )

    def _grid_changes(self, line: Line) -> str:
        grid, count = self._grids[line["row"]], len(line["positions"])
        grid.apply(line, text_of(line, self._token_texts))
        decoded = f"{len(grid.codes) - grid.codes.count(None)} of {len(grid.codes)} decoded"
        what = f"{count} token{'s' if count != 1 else ''}{' replaced' if line['kind'] == 'edit' else ''}"
        changes = f"{what}, {decoded}"
        mean = sum(line["entropy"]) / max(1, count)
        return changes if line["kind"] == "remask" else f"{changes}, mean entropy {mean:.3f} nats"


class CanvasView:
    """One example while it is decoded: the text of each token, None where it is masked."""

    WARM = 0.25
    """Nats from one colour to the next."""

    def __init__(self, texts: Sequence[str | None]) -> None:
        self.texts = [None if text is None else printable(text) for text in texts]
        self.entropy: dict[int, float] = {}
        self.last: Line | None = None
        self.picture: Text | None = None
        """The picture so far, where it becomes one and was drawn."""

    def apply(self, line: Line, texts: Sequence[str | None]) -> None:
        """Apply a trace line; ``texts`` are those of its tokens."""
        for position, text, entropy in zip(line["positions"], texts, line["entropy"], strict=True):
            self.texts += [None] * (position + 1 - len(self.texts))
            self.texts[position] = None if text is None else printable(text)
            self.entropy[position] = entropy
        self.last = line

    @property
    def done(self) -> bool:
        """Whether nothing is masked."""
        return None not in self.texts

    @property
    def newest(self) -> set[int]:
        """The positions that the last line changed."""
        return set(self.last["positions"]) if self.last else set()

    @property
    def compared(self) -> set[int]:
        """The positions of the candidates that it was chosen from."""
        candidates = self.last.get("weighed", []) if self.last else []
        return {position for candidate in candidates for position in candidate["positions"]}

    def text(self, columns: int, lines: int) -> Text:
        """About ``columns * lines`` characters around the newest tokens.

        The prompt is dim, masks are blocks (darker where a candidate was compared), tokens are coloured by entropy.
        """
        from rich.text import Text

        newest, compared, room = self.newest, self.compared, max(200, columns * lines)
        sizes = [len(text or "░") for text in self.texts]
        first, focus = 0, min(newest, default=0)
        while sum(sizes[first:]) > room and first < focus and sum(sizes[first:focus]) > room // 2:
            first += 1
        out = Text("…" if first else "", style="dim")
        for position, text in enumerate(self.texts[first:], first):
            if text is None:
                out.append("▒" if position in compared else "░", style="dim")
            elif position in self.entropy:
                out.append(text, style=self._style(position, newest))
            else:
                out.append(text, style="dim")
        return out

    def _style(self, position: int, newest: set[int]) -> str:
        entropy = self.entropy.get(position, 0.0)  # absent while another thread is in the middle of apply()
        heat = HEAT[min(len(HEAT) - 1, int(entropy / self.WARM))]
        return f"bold reverse {heat}" if position in newest else heat

    def _places(self, positions: Sequence[int]) -> str:
        """Positions as a reader finds them."""
        return ", ".join(map(str, positions))

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
            values = "J {J:8.4f}   C {C:7.4f}   H {H:7.4f}".format(**candidate)
            out.append(
                f"{mark} {self._places(candidate['positions']):<12} {values}\n", style="bold" if mark == "▶" else "dim"
            )
        if len(best) > SHOWN:
            out.append(f"  and {len(best) - SHOWN} more weighed\n", style="dim")
        return out


class GridView(CanvasView):
    """A picture while it is decoded: a cell for each token, which the masks of ``texts`` become, row by row."""

    WARM = 1.5  # a code of 8,192 has up to 9 nats

    def __init__(self, texts: Sequence[str | None], grid: tuple[int, int]) -> None:
        super().__init__(texts)
        self._rows, self._columns = grid
        self._positions = [position for position, text in enumerate(texts) if text is None]
        self._cells = {position: cell for cell, position in enumerate(self._positions)}
        self.codes: list[int | None] = [None] * len(self._positions)
        """The token id of each cell, None where it is masked."""

    def apply(self, line: Line, texts: Sequence[str | None]) -> None:
        for position, token in zip(line["positions"], line["tokens"], strict=True):
            self.codes[self._cells[position]] = None if line["kind"] == "remask" else token
        super().apply(line, texts)

    def text(self, columns: int, lines: int) -> Text:
        """The grid, two characters a cell; where there is no room one cell stands for those around it.

        Masks are shaded (darker where a candidate was compared), tokens are blocks coloured by entropy, the newest with
        a hole.
        """
        from rich.text import Text

        newest, compared = self.newest, self.compared
        side = max(1, ceil(2 * self._columns / columns), ceil(self._rows / lines))
        out = Text(no_wrap=True, overflow="crop")
        for top in range(0, self._rows, side):
            out.append("\n" if top else "")
            for left in range(0, self._columns, side):
                around = (
                    self._positions[row * self._columns + column]
                    for row in range(top, min(top + side, self._rows))
                    for column in range(left, min(left + side, self._columns))
                )
                position = max(around, key=lambda position: (position in newest, position in compared))
                if self.codes[self._cells[position]] is None:
                    out.append("▒▒" if position in compared else "░░", style="dim")
                else:
                    out.append("▐▌" if position in newest else "██", style=self._style(position, newest))
        return out

    def _places(self, positions: Sequence[int]) -> str:
        """Rows and columns, from 1, of the first few."""
        cells = (divmod(self._cells[position], self._columns) for position in positions[:3])
        more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
        return ", ".join(f"({row + 1}, {column + 1})" for row, column in cells) + more


class LiveBars(Bars):
    """Shows the first unfinished example and the candidates compared for it, above the bars."""

    sees_steps = True
    _names: Mapping[int, str] = {}

    def on_names(self, label: str, names: Mapping[int, str]) -> None:
        self._names = names

    def __init__(self) -> None:
        from rich.live import Live

        super().__init__()
        self._canvases: dict[int, CanvasView] = {}
        self._front: int | None = None
        self._label = ""
        self._pictures: PictureOf | None = None
        self._due = 0.0  # when the next picture may be drawn
        self._drawn: tuple[object, RenderableType] | None = None  # what is on the terminal, of which state
        self._display = Live(get_renderable=self._render, console=self._progress.console, refresh_per_second=20)

    def on_begin(
        self, label: str, canvases: Mapping[int, Sequence[str | None]], token_texts: TokenTexts,
        grids: Grids | None = None, pictures: PictureOf | None = None,
    ) -> None:  # fmt: skip
        self._front = None  # before its canvas goes: another thread renders all the time
        self._label, self._token_texts = label, token_texts
        self._pictures = pictures if self._progress.console.color_system == "truecolor" else None
        self._canvases = {
            row: GridView(canvas, grids[row]) if grids and row in grids else CanvasView(canvas)
            for row, canvas in canvases.items()
        }

    def on_step(self, event: StepEvent) -> None:
        for line in event.lines:
            self._canvases[line["row"]].apply(line, text_of(line, self._token_texts))
        rows = sorted({line["row"] for line in event.lines})
        if rows and (self._front is None or self._canvases[self._front].done):
            self._front = next((row for row in rows if not self._canvases[row].done), rows[-1])
        front = None if self._front is None else self._canvases[self._front]
        if isinstance(front, GridView):
            self._draw(front)
        time.sleep(HOLD)

    def _draw(self, view: GridView) -> None:
        """Draw the picture so far, unless that would keep the decoding waiting for too much of its time."""
        from mdm.cli.picture_text import half_blocks

        begun = time.monotonic()
        if self._pictures is None or begun < self._due:
            return
        image = self._pictures(view.codes)
        columns, lines = self._room()
        view.picture = half_blocks(image, min(columns // 2, 2 * lines * image.shape[1] // image.shape[0]))
        took = time.monotonic() - begun
        self._due = begun + took + max(PICTURE_EVERY, PICTURE_SHARE * took)

    def _room(self) -> tuple[int, int]:
        """Columns and lines for a canvas."""
        size = self._progress.console.size
        return max(8, size.width - 4), max(3, size.height - SHOWN - 8)

    def _render(self) -> RenderableType:
        from rich.console import Group

        front = self._front  # once: the decoding thread may change it meanwhile
        canvas = None if front is None else self._canvases.get(front)
        if front is None or canvas is None:
            return self._progress
        state = (canvas, canvas.last, canvas.picture, self._progress.console.size)
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = state, self._render_canvas(front, canvas)
        return Group(self._drawn[1], self._progress)

    def _render_canvas(self, row: int, canvas: CanvasView) -> RenderableType:
        """A canvas and its candidates, ready for the terminal: there are many cells, and many refreshes to a step."""
        from rich.columns import Columns
        from rich.console import Group
        from rich.panel import Panel
        from rich.segment import SegmentLines
        from rich.text import Text

        (columns, lines), line = self._room(), canvas.last
        head = f"{self._label} {self._names.get(row, f'#{row + 1}')}" + (
            f", step {line['step'] + 1}: {line['kind']}" if line else ""
        )
        body: RenderableType = canvas.text(columns, lines)
        if canvas.picture is not None:
            body = Columns([canvas.text(columns // 2 - 1, lines), canvas.picture])
        panel = Panel(body, title=Text(head), title_align="left")
        return SegmentLines(self._progress.console.render_lines(Group(panel, canvas.weighed())), new_lines=True)
