"""Command-line flags made from the fields of a configuration, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from mdm.protocols.settings import SESSIONS_OWN, Settings, Size, default_text, noted
from mdm.runs.config import RECORDED, DecodeConfig, LoadingConfig, RunConfig
from pydantic import BaseModel
from pydantic.fields import FieldInfo

F = TypeVar("F", bound=Callable[..., Any])
Flag = Callable[[F], F]


WHERE = (*LoadingConfig.model_fields, *SESSIONS_OWN, "num_processes", "threads")
HOW = (*Settings.model_fields, "candidates", "unconditional")
HEADINGS: dict[str, Sequence[str]] = {
    "What is decoded": (
        "model", "sampler", "cache", "assignments", "preset", "task", "data", "limit", "repeats", "file", "infill",
        "mask", "chat", "prompt_style", "image", "count", "look", "allow_code_execution",
        "retry_failed",
    ),
    "How it is decoded": [name for name in HOW if name not in WHERE],
    "Where, and how fast": WHERE,
    "Output": ("out", "as_json", "trace", "live", "watched", "quiet", "verbose", "log_file", "fail_fast"),
}  # fmt: skip
"""Headings of a command's help -> the options below each, in their order."""


def heading(option: str) -> str:
    """The heading below which an option of that name stands."""
    return next((name for name, options in HEADINGS.items() if option in options), "Options")


class Grouped(click.Command):
    """A command whose help groups its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for name in ("Options", *HEADINGS):
            below = [param for param in options if heading(param.name or "") == name]
            if name in HEADINGS:
                below.sort(key=lambda param: HEADINGS[name].index(param.name or ""))
            if records := list(filter(None, (param.get_help_record(ctx) for param in below))):
                with formatter.section(name):
                    formatter.write_dl(records)


class _Flag(click.Option):
    """An option whose default is described as click shows others."""

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        return extra


class _Size(click.ParamType):  # type: ignore[type-arg]
    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """A number from 1, or auto."""
        if value == "auto":
            return "auto"
        try:
            return int(click.IntRange(1).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither auto nor a number from 1.", param, ctx)


SIZE = _Size()
"""A number of rows, or as many as fit."""


def flags_of(schema: type[BaseModel], leave_out: Iterable[str] = ()) -> list[Flag[Any]]:
    """A flag for each field of ``schema``, in their order."""
    hidden = {*leave_out, *RECORDED}
    return [_flag(name, field) for name, field in schema.model_fields.items() if name not in hidden]


def _flag(name: str, field: FieldInfo) -> Flag[Any]:
    spelled, help = f"--{name.replace('_', '-')}", field.description or ""
    shown: dict[str, Any] = {"cls": _Flag, "show_default": default_text(field) or None}
    kind, constraints = _plain(field.annotation, field.metadata)
    if kind is bool:
        switch = spelled if field.default is False else f"{spelled}/--no-{spelled[2:]}"
        return click.option(switch, name, is_flag=True, default=None, help=help, **shown)
    several = get_origin(kind) is list
    if several:
        kind, constraints = _plain(get_args(kind)[0])
        help += " May be repeated."
    metavar = noted(field).get("metavar") or {int: "N", float: "X"}.get(kind)
    type_ = _type(kind, constraints)
    return click.option(spelled, name, type=type_, multiple=several, metavar=metavar, help=help, **shown)


def _plain(annotation: Any, constraints: Sequence[Any] = ()) -> tuple[Any, Sequence[Any]]:
    """A type without None and ``Annotated``, and pydantic's constraints on it; of several types the first."""
    if annotation == Size:
        return Size, ()
    if get_origin(annotation) in (Union, UnionType):
        return _plain(next(kind for kind in get_args(annotation) if kind is not type(None)), constraints)
    if get_origin(annotation) is Annotated:
        kind, *notes = get_args(annotation)
        return _plain(kind, [item for note in notes for item in getattr(note, "metadata", [note])])
    return annotation, constraints


def _type(kind: Any, constraints: Sequence[Any]) -> Any:
    """click's type for a value of type ``kind``."""
    if kind == Size:
        return SIZE
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:
        return click.Path(path_type=Path, exists=True, dir_okay=False)
    ranges = {int: click.IntRange, float: click.FloatRange}
    least = next((constraint.ge for constraint in constraints if hasattr(constraint, "ge")), None)
    if kind in ranges:
        return kind if least is None else ranges[kind](least)
    return str


OPTION = click.option(
    "-o", "assignments", multiple=True, metavar="[PLUGIN.]OPTION=VALUE",
    help="An option of a sampler, the cache or the task; `mdm plugins NAME` lists them.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")

OUTPUT = (
    click.option("--quiet", is_flag=True, help="Nothing on stderr but warnings and errors."),
    click.option("--verbose", is_flag=True, help="On stderr also notes at once, and what each variant resolved to."),
    click.option("--log-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                 help="Append the progress to this file too, in plain lines with times."),
)  # fmt: skip


def output_flags(command: F) -> F:
    """The flags ``quiet``, ``verbose`` and ``log_file``: the arguments of ``mdm.cli.progress.progress``."""
    return _with_flags(command, OUTPUT)


def decode_flags(command: F) -> F:
    """The flags of every command that decodes."""
    return _with_flags(command, [*flags_of(DecodeConfig), OPTION, JSON])


def run_flags(command: F) -> F:
    """The flags that a run has beside these."""
    return _with_flags(command, flags_of(RunConfig, DecodeConfig.model_fields))


def _with_flags(command: F, flags: Sequence[Flag[Any]]) -> F:
    return reduce(lambda decorated, flag: flag(decorated), reversed(flags), command)


def used(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were used, as the configuration's keys and values."""
    values = {name: value for name, value in flags.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
