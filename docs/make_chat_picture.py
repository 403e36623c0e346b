"""Draw ``docs/images/chat.svg``: a talk with an embedded model, its canvas in the middle of an answer.

    python docs/make_chat_picture.py [FILE]

What is drawn is what ``mdm chat`` shows: its own view of a decode of that moment, and its own lines.
"""

from __future__ import annotations

import re
import sys
import time
from io import StringIO
from pathlib import Path

import mdm
from mdm.protocols import StepEvent
from mdm_chat.command import greeting
from mdm_chat.options import Options
from mdm_chat.talk import Talk, answer, gen_length
from mdm_chat.view import LiveAnswer
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

MODEL, WIDTH = "tiny-countdown", 92
ASKED = {"10,99,90,19:": None, "58,19,46,31:": 9}
"""Question -> the step at which its answer is shown; None: the finished text."""


def draw(file: Path) -> None:
    """Decode, and write the picture."""
    console = Console(
        record=True, width=WIDTH, height=24, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    model = mdm.load_model(MODEL)
    options = Options({"model": [MODEL], "gen_length": 24}, ())
    talk = Talk(model, model.spec.prompt_style)
    console.print(Text(f"$ mdm chat --model {MODEL} --gen-length 24", style="bold"))
    console.print(Text(greeting(model, talk.style), style="dim"))
    for question, shown_at in ASKED.items():
        layout, _ = talk.lay_out(question, gen_length(options.config))
        view, frames, begun = LiveAnswer(model, layout, console), list[Text](), time.perf_counter()

        def on_step(event: StepEvent, view: LiveAnswer = view, frames: list[Text] = frames) -> None:
            view.on_step(event)
            frames.append(view.render())

        result = answer(options.config, model, layout, 0, on_step)
        seconds = time.perf_counter() - begun
        console.print(Text(f"> {question}"))
        if shown_at is not None:
            console.print(frames[shown_at])
            continue
        console.print(Text((result.text or "").strip()))
        count, rate = result.completion_tokens, result.completion_tokens / seconds
        costs = f"{count} tokens, {seconds:.1f} s, {rate:.1f} tokens/s, {result.forwards} forwards"
        console.print(Text(costs, style="dim"))
    drawn = console.export_svg(title="mdm chat", theme=MONOKAI, unique_id="mdm-chat")
    # A picture asks no network for its fonts.
    file.write_text(re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images" / "chat.svg")
