"""``mdm completion``: the script with which a shell completes ``mdm``, and the answers that the script asks for."""

from __future__ import annotations

import re
from contextlib import suppress

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete
from mdm import registry
from mdm.errors import MdmError

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.option("--answer", is_flag=True, hidden=True, help="Answer the script, which says in COMP_WORDS what is typed.")
def completion(shell: str, answer: bool) -> None:
    """Print the script with which a shell completes mdm.

    \b
    bash: mdm completion bash > ~/.local/share/bash-completion/completions/mdm
    zsh:  mdm completion zsh > ~/.zfunc/_mdm      (a folder of $fpath)
    fish: mdm completion fish > ~/.config/fish/completions/mdm.fish
    For this shell alone: source <(mdm completion bash)
    """
    from mdm.cli import cli

    completer = SHELLS[shell](cli, {}, "mdm", "_MDM_COMPLETE")
    if not answer:
        click.echo(_asking(shell).source_template % completer.source_vars())
        return
    args, _ = completer.get_completion_args()
    _prepare(args)
    with suppress(MdmError):  # of a command that cannot be had
        click.echo(completer.complete())


def _asking(shell: str) -> type[ShellComplete]:
    """click's script, that asks this command, and not the variable that click reads."""
    template = re.sub(
        r"%\(complete_var\)s=\w+_complete (.*?)(\$1|%\(prog_name\)s)\)", rf"\1mdm completion {shell} --answer)",
        SHELLS[shell].source_template,
    )  # fmt: skip
    template = template.replace(
        "COMPREPLY+=($value)", 'COMPREPLY+=("$value"); [[ $value == *= ]] && compopt -o nospace'
    )
    return type("Asking", (SHELLS[shell],), {"source_template": template})


def _prepare(args: list[str]) -> None:
    """Give the options of the command in a line their values."""
    from mdm_shell import values

    if args:
        with suppress(MdmError):
            values.complete(registry.resolve("command", args[0]))
