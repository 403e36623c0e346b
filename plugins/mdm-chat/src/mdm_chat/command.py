"""``mdm chat``: lines from a terminal or a pipe, answers on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from mdm.cli.flags import decode_flags, used
from mdm.errors import MdmError, one_line

if TYPE_CHECKING:
    from mdm.models.model import Model
    from mdm.protocols import PromptStyle

    from mdm_chat.conversation import Conversation

QUOTES = '"""'


@click.command()
@click.option(
    "--chat/--no-chat",
    "in_chat",
    default=None,
    help="Ask in a chat, or have plain text continued  [default: as the model is used to]",
)
@click.option("--system", metavar="TEXT", help="The system's message, which stands in front of the chat.")
@click.option(
    "--live/--no-live",
    "watched",
    default=None,
    help="Show the canvas as it is decoded, on stderr  [default: on a terminal]",
)
@decode_flags
def chat(
    in_chat: bool | None, system: str | None, watched: bool | None, assignments: tuple[str, ...], as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Talk with a model in the terminal.

    An answer has at most 128 tokens unless --gen-length or a preset says otherwise. From a pipe each line is a message,
    and only the answers are printed.
    """
    from mdm.cli.progress import waiting
    from mdm.runs import presets
    from mdm.runs.decode_args import load_model

    from mdm_chat.conversation import Conversation
    from mdm_chat.options import Options
    from mdm_chat.talk import Talk

    asked = used(flags) | ({} if in_chat is None else {"prompt_style": "chat" if in_chat else "compact"})
    options = Options(asked, assignments)
    config = options.config
    at_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    with waiting(f"loading {config.model[0]}"):
        model = load_model(config, config.model[0])
    for warning in presets.warnings(config.preset, {config.model[0]: model.spec.family}):
        click.echo(f"mdm: {warning}", err=True)
    style = config.prompt_style or model.spec.prompt_style
    check_style(model, style, system)
    talk = Conversation(
        Talk(model, style, system or ""), options, at_terminal=at_terminal,
        watched=at_terminal if watched is None else watched, as_json=as_json,
    )  # fmt: skip
    talk.note(greeting(model, style))
    for line in _typed() if at_terminal else _piped():
        try:
            if line and not _take(talk, line, at_terminal):
                return
        except MdmError as error:
            if not at_terminal:
                raise
            click.echo(click.style(f"mdm: {one_line(str(error))}", fg="yellow"), err=True)


def greeting(model: Model, style: PromptStyle) -> str:
    """What is told to somebody who types, before the first question."""
    plain = "\nasked in plain text: each line is continued by itself, without what was said before"
    return f"{model!r}\n/help lists what can be said to the program; Ctrl-D leaves" + plain * (style != "chat")


def check_style(model: Model, style: PromptStyle, system: str | None) -> None:
    """Refuse a model that cannot be talked to in this style."""
    from mdm.protocols import Message, Prompt

    name = model.name or model.spec.family
    if model.spec.attention == "causal":
        raise MdmError(f"{name} is autoregressive: `mdm chat` is for diffusion models; `mdm generate` asks it once")
    if style != "chat":
        if system is not None:
            raise MdmError(f"--system belongs to a chat, and {name} is asked in plain text: give --chat too")
        return
    try:
        model.lay_out(Prompt((Message("user", "?"),), "", 1))
    except MdmError as error:
        raise MdmError(
            f"{name} cannot be asked in a chat ({error}): mdm chat --no-chat and mdm generate --no-chat take plain text"
        ) from None


def _take(talk: Conversation, line: str, at_terminal: bool) -> bool:
    """A message or a command; False ends the talk. At a terminal Ctrl-C stops the answer alone."""
    from mdm_chat.commands import obey

    try:
        if line.startswith("/"):
            return obey(talk, line)
        talk.ask(line)
    except KeyboardInterrupt:
        if not at_terminal:
            raise
        talk.note("stopped: the question is forgotten; /retry asks it again")
    return True


def _piped() -> Iterator[str]:
    """The lines of a pipe or a file."""
    try:
        yield from map(str.strip, sys.stdin)
    except UnicodeDecodeError:
        raise MdmError("a message on stdin is not in UTF-8") from None


def _typed() -> Iterator[str]:
    """Messages that somebody types, with line editing where stdout is the terminal, too; Ctrl-D ends them."""
    if sys.stdout.isatty():
        with suppress(ImportError):  # Windows has line editing of its own
            _edit_lines()
    try:
        while True:
            line = _line("> ")
            if line.startswith(QUOTES):
                line = _until_quotes(line.removeprefix(QUOTES))
            yield line.strip()
    except EOFError:
        click.echo(err=True)


def _line(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    click.echo(prompt, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _until_quotes(line: str) -> str:
    """The lines up to the one that ends with quotes."""
    lines = [line]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(_line(". "))
    return "\n".join(lines).rstrip().removesuffix(QUOTES)


def _edit_lines() -> None:
    """Line editing, a history of this talk, and commands that Tab completes."""
    import readline

    from mdm_chat.commands import NAMES

    def complete(begun: str, number: int) -> str | None:
        return ([name for name in NAMES if begun and name.startswith(begun)] + [None])[number]

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
