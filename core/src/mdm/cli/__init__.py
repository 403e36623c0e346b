"""The command line. Each command has a file of its own, imported when it is invoked. Nothing here imports torch.

Every command, the core's own included, is an entry point of the group ``mdm.commands`` that names a click command.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem
from mdm import registry
from mdm.cli.interrupt import CtrlC
from mdm.errors import MdmError, MdmWarning, cause, describe, one_line, printable

FIRST = (
    "run", "generate", "chat", "compare", "trace", "runs", "grade", "serve", "plugins", "new", "check", "bench",
    "doctor", "completion",
)  # fmt: skip
"""The commands that the help lists first, in the order in which people meet them."""


class LazyGroup(click.Group):
    """The commands of all installed packages; each is imported when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(registry.names("command"), key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in registry.names("command"):
            return None
        command: click.Command = registry.resolve("command", name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from mdm.cli.descriptions import description

        entries = {entry.name: entry for entry in registry.entries("command")}
        found = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=description(entries[name]) or None) for name in found]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-"):
            registry.find("command", args[0])  # raises the error line of an unknown or ambiguous name
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mdm.cli.descriptions import description

        entries = {entry.name: entry for entry in registry.entries("command")}
        rows = []
        for name in self.list_commands(ctx):
            said = printable(description(entries[name]))
            rows.append((name, said + "." * said[-1].isalnum() if said else f"(from {entries[name].package})"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"mdm {version('mdm-core')}")
        except PackageNotFoundError:
            click.echo("mdm, not installed as a package")
        ctx.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Decoding for masked diffusion language models.

    Start with `mdm run`: the embedded model solves sudokus with Info-Gain.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: with 0, with 2 and one line for a wrong request, or with 130 after Ctrl-C.

    With 1 and one line where something that is no part of mdm ended it, such as a plugin that calls ``sys.exit``.
    """
    warnings.showwarning, stdout = _show(warnings.showwarning), sys.stdout
    with CtrlC() as ctrl_c:
        try:
            code: Any = cli.main(_texts(sys.argv[1:] if args is None else args), prog_name="mdm", standalone_mode=False)
        except BaseException as error:
            if isinstance(error, SystemExit) and sys.stdout is not stdout:
                raise  # click's own end where nobody reads on: it has put a quiet stdout there
            line = _line(error)
            if ctrl_c.pressed or (line is None and isinstance(error, (click.Abort, KeyboardInterrupt))):
                sys.exit(130)
            if line is None and isinstance(error, Exception):
                raise
            said = one_line(line or f"ended by something that it called: {describe(error)}")
            click.echo(f"mdm: {said}", err=True)
            sys.exit(1 if line is None else 2)
    sys.exit(code if isinstance(code, int) else 0)


def _texts(args: Sequence[str]) -> Sequence[str]:
    """The arguments; an error where one is no text: it would have to be written into files and sent to models."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise MdmError(f"the argument {arg!r} is not in UTF-8") from None
    return args


def _show(other: Callable[..., None]) -> Callable[..., None]:
    """How warnings are shown: ours as one line, any ``other`` as ever."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, MdmWarning):
            click.echo(f"mdm: {one_line(str(message))}", err=True)
        else:
            other(message, category, *where, **more)

    return show


def _line(error: BaseException) -> str | None:
    """The line to print for a wrong request or a failing plugin; None for any other error."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx:
        below = getattr(error.ctx.command, "list_commands", lambda _: ["more"])(error.ctx)
        return f"which {error.ctx.info_name}, {' or '.join(below)}? (see {error.ctx.command_path} --help)"
    if isinstance(error, click.UsageError):
        said = error.format_message() + (f" (see {error.ctx.command_path} --help)" if error.ctx else "")
        if isinstance(error, click.NoSuchOption) and error.ctx:
            takes = any(param.name == "assignments" for param in error.ctx.command.params)
            if takes and not get_close_matches(error.option_name, error.possibilities or (), cutoff=0.75):
                said += f"; an option of a sampler, cache or task: -o {error.option_name.strip('-')}=VALUE"
        return said
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:  # a file or a disk that mdm met unprepared
        return error.strerror + f": {error.filename}" * (error.filename is not None)
    if isinstance(error, MdmError):
        return str(error)
    if isinstance(error, click.Abort) and error.__cause__ is not None:  # what click makes of a KeyboardInterrupt
        error = error.__cause__
    who = registry.raised_by_plugin(error)
    return f"{who} raised {cause(error)}" if who else None
