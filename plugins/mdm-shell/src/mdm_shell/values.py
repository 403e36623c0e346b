"""The values that options of the commands take, by the option's name."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem
from mdm import registry
from mdm.cli.descriptions import definition, description

Values = Callable[[click.Context], dict[str, str | registry.Entry]]
"""From the context of what is typed to each value, with its meaning, or the plugin that has one."""


class Completed(click.ParamType):
    """A type that completes as ``values`` says, and converts as the type that it stands for."""

    def __init__(self, wrapped: Any, values: Values, folders: bool = False) -> None:
        self.name, self._wrapped, self._values, self._folders = wrapped.name, wrapped, values, folders

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._wrapped.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = {name: what for name, what in self._values(ctx).items() if name.startswith(incomplete)}
        found = [
            CompletionItem(name, help=what if isinstance(what, str) else description(what))
            for name, what in known.items()
        ]
        return [CompletionItem(incomplete, type="dir"), *found] if self._folders else found  # bash drops what is before


def named(*kinds: str) -> Values:
    """The installed plugins of some kinds."""
    return lambda _: {entry.name: entry for kind in kinds for entry in registry.entries(kind)}


def assignments(ctx: click.Context) -> dict[str, str | registry.Entry]:
    """``option=`` for each option of the sampler, the cache and the task of a command line."""
    from mdm.protocols.settings import DEFAULT_SAMPLER

    asked = {"sampler": [DEFAULT_SAMPLER], "cache": [], "task": ["sudoku"] if "task" in ctx.params else []}
    names: dict[str, str | registry.Entry] = {}
    for kind, default in asked.items():
        given = ctx.params.get(kind) or default
        for name in [given] if isinstance(given, str) else given:
            with suppress(registry.MdmError):
                names |= {f"{option}=": f"of {name}" for option in options(registry.find(kind, name))}
    return dict(sorted(names.items()))


def options(entry: registry.Entry) -> list[str]:
    """The names of a plugin's options, as its source has them: importing a sampler would take seconds."""
    module, _, attribute = entry.value.partition(":")
    with suppress(OSError, SyntaxError, ValueError, ImportError, RecursionError):
        for where, node in _with_bases(module, attribute):
            for statement in node.body:
                if isinstance(statement, ast.ClassDef) and statement.name == "Options":
                    return _fields(statement)
                target = getattr(statement, "target", None) or next(iter(getattr(statement, "targets", ())), None)
                if getattr(target, "id", "") == "Options":
                    schema = getattr(getattr(statement, "value", None), "id", "")
                    return list(dict.fromkeys(name for _, base in _with_bases(where, schema) for name in _fields(base)))
    return []


def _with_bases(module: str, name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """A class and those that it derives from, each with the module that defines it."""
    where, _, node = definition(module, name)
    if isinstance(node, ast.ClassDef) and node.name != "BaseModel":
        yield where, node
        for base in node.bases:
            if isinstance(base, ast.Name):
                yield from _with_bases(where, base.id)


def _fields(schema: ast.ClassDef) -> list[str]:
    """The fields that a schema itself declares."""
    targets = [statement.target for statement in schema.body if isinstance(statement, ast.AnnAssign)]
    return [target.id for target in targets if isinstance(target, ast.Name) and not target.id.startswith("_")]


OF: dict[str, tuple[Values, bool]] = {
    "model": (named("checkpoint"), True), "adapter": (named("model"), False), "sampler": (named("sampler"), False),
    "cache": (named("cache"), False), "task": (named("task"), False), "preset": (named("preset"), False),
    "assignments": (assignments, False), "adapter_weights": (lambda _: {}, True),
    "image_tokenizer": (lambda _: {}, True),
}  # fmt: skip
"""Name of an option -> its values, and whether it may also be a folder."""
PLUGIN: dict[str, tuple[str, ...]] = {
    "plugins": tuple(registry.KINDS),
    "check": ("sampler", "cache", "model", "task", "preset"),
}
"""Command whose argument NAME is a plugin -> the kinds of plugins that it takes."""


def complete(command: click.Command) -> None:
    """Let the options of a command, and of those below it, complete with their values."""
    for param in command.params:
        values = OF.get(param.name or "")
        if param.name == "name" and command.name in PLUGIN:
            values = named(*PLUGIN[command.name]), False
        if values is not None and not isinstance(param.type, click.Choice | Completed):
            param.type = Completed(param.type, *values)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            complete(below)
