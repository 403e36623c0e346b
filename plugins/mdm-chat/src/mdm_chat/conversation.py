"""One conversation: questions are answered, commands obeyed, and both are shown."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click
from mdm.cli.live import LiveLines
from mdm.errors import MdmError, printable
from mdm.models.layout import Layout
from mdm.models.model import Model
from mdm.runs import files
from mdm.runs.decode_args import begin_view

from mdm_chat.options import Options
from mdm_chat.talk import Talk, answer, gen_length
from mdm_chat.view import LiveAnswer


class Conversation:
    """Answers on stdout, all else on stderr.

    Args:
        at_terminal: whether somebody types: then costs and notes are told.
        watched: whether the canvas is shown while an answer is decoded.
        as_json: whether an answer is a line of JSON with its costs.
    """

    def __init__(self, talk: Talk, options: Options, *, at_terminal: bool, watched: bool, as_json: bool) -> None:
        self.talk, self.options = talk, options
        self._at_terminal, self._watched, self._as_json = at_terminal, watched, as_json
        self._asked: str | None = None
        self._attempt = 0

    def say(self, text: str) -> None:
        """Tell the user something that is no answer."""
        click.echo(click.style(printable(text), dim=True), err=True)

    def note(self, text: str) -> None:
        """Tell it to somebody who types."""
        if self._at_terminal:
            self.say(text)

    def ask(self, question: str, attempt: int = 0) -> None:
        """Answer a question and remember both.

        Raises:
            MdmError: it cannot be answered; the talk is as it was.
        """
        talk, config = self.talk, self.options.config
        self._asked, self._attempt = question, attempt
        layout, left_out = talk.lay_out(question, gen_length(config))
        if left_out:
            turns = f"{left_out} oldest turn{'s' if left_out > 1 else ''}"
            self.note(f"the talk is longer than what {talk.model.name} was trained on: it is not shown the {turns}")
        begun = time.perf_counter()
        with self._view(talk.model, layout, attempt) as view:
            result = answer(config, talk.model, layout, attempt, view.on_step if view else None)
        seconds = time.perf_counter() - begun
        text = (result.text or "").strip()
        talk.turns.append((question, text))
        count, forwards = result.completion_tokens, result.forwards
        if self._as_json:
            costs = {"tokens": count, "prompt_tokens": result.prompt_tokens, "forwards": forwards, "seconds": seconds}
            told = {"question": question, "text": text, "prompt_style": result.prompt_style, "left_out": left_out}
            click.echo(files.to_json(told | costs))
            return
        click.echo(printable(text) if sys.stdout.isatty() else text, color=True)  # a pipe gets it as it is
        if not text:
            self.note("(an answer without text)")
        rate = f"{count / seconds:.1f} tokens/s"
        self.note(f"{count} token{'s' * (count != 1)}, {seconds:.1f} s, {rate}, {forwards} forwards")

    def _view(self, model: Model, layout: Layout, row_id: int) -> AbstractContextManager[Any]:
        if not self._watched:
            return nullcontext()
        if sys.stderr.isatty():
            return LiveAnswer(model, layout)
        lines = LiveLines()
        begin_view(lines, self.options.config.sampler[0], model, {row_id: layout})
        return lines

    def reset(self) -> None:
        """Forget all turns."""
        self.talk.turns.clear()
        self.note("forgotten")

    def undo(self) -> None:
        """Forget the last turn.

        Raises:
            MdmError: there is none.
        """
        if not self.talk.turns:
            raise MdmError("/undo: nothing has been said yet")
        question, _ = self.talk.turns.pop()
        self.note(f"forgotten: {question}")

    def retry(self) -> None:
        """Answer the last question again.

        Raises:
            MdmError: there is none, or it cannot be answered.
        """
        if self._asked is None:
            raise MdmError("/retry: nothing has been asked yet")
        turns = self.talk.turns
        last = turns.pop() if turns and turns[-1][0] == self._asked else None
        if last and not self.options.config.temperature:
            self.note("without a temperature the answer is the same again: /set temperature=0.7")
        before = len(turns)
        try:
            self.ask(self._asked, self._attempt + 1 if last else self._attempt)
        finally:
            if last and len(turns) == before:  # stopped, or refused
                turns.append(last)

    def set_system(self, text: str) -> None:
        """Show the system's message, set it, or take it away (``-``).

        Raises:
            MdmError: this talk is no chat.
        """
        if self.talk.style != "chat":
            raise MdmError(f"/system: {self.talk.model.name} is asked in plain text, without a chat")
        if text:
            self.talk.system = "" if text == "-" else text
        if not text or self._at_terminal:
            self.say(f"system: {self.talk.system}" if self.talk.system else "no system's message")

    def set_option(self, text: str) -> None:
        """Show the options that differ from the usual, or change one.

        Raises:
            MdmError: see ``Options.change``.
        """
        if text:
            self.options.change(text)
        if not text or self._at_terminal:
            self.say(self.options.shown())

    def save(self, file: Path) -> None:
        """Write the talk as JSON.

        Raises:
            MdmError: the file cannot be written.
        """
        config, talk = self.options.config, self.talk
        written = {
            "model": config.model[0], "prompt_style": talk.style, "sampler": config.sampler[0], "cache": config.cache,
            "messages": [{"role": message.role, "content": message.text} for message in talk.messages()],
        }  # fmt: skip
        files.write_text_atomic(file, files.to_json(written, indent=1) + "\n")
        self.note(f"written: {file}")
