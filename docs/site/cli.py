"""docs/cli.md: the help of every command of the core and of our tools, as the command line says it.

    python docs/site/cli.py

writes it anew (to another file if one is named); tests/test_docs.py fails where it is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from mdm import registry
from mdm.cli import cli

COMMANDS = (
    "run", "runs", "grade", "compare", "generate", "chat", "serve", "bench", "plugins", "check", "new", "trace",
    "completion", "doctor",
)  # fmt: skip
"""The core's commands and those of our tools, in the order in which people meet them."""
PAGE = Path(__file__).parents[1] / "cli.md"
HEAD = (
    "# Command line\n\nWhat `--help` says of every command. Packages may add others: `mdm --help` lists all of them.\n"
)


def helps(command: click.Command, name: str, parent: click.Context) -> Iterator[tuple[str, str]]:
    """The help of a command and of those below it."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from helps(found, below, context)


def text() -> str:
    root = click.Context(cli, info_name="mdm", help_option_names=["-h", "--help"])
    parts = [HEAD]
    for name in COMMANDS:
        for path, said in helps(registry.resolve("command", name), name, root):
            parts.append(f"## {path}\n\n```text\n{said}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(*sys.argv[1:2] or [PAGE]).write_text(text(), encoding="utf-8")
