"""``mdm plugins``: which plugins are installed, what their options are, and whether they load."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from concurrent.futures import wait
from dataclasses import asdict
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click
from mdm import registry
from mdm.cli.descriptions import description, first_sentence, source_fault
from mdm.errors import MdmError, blamed, printable, suggest
from mdm.protocols.preset import NONE_PUBLISHED, TaskPreset
from mdm.runs.files import to_json

if TYPE_CHECKING:
    from pydantic import BaseModel

NOBODYS = {"model_type": "nobodys", "architectures": ["NobodysModel"]}
"""The config.json of a checkpoint that no family takes."""


@click.command()
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(list(registry.WORDS.values())), help="Only plugins of this kind.")
@click.option("--check", is_flag=True, help="Load each one and say what broke; exit code 1 if anything did.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def plugins(name: str | None, kind: str | None, check: bool, as_json: bool) -> int:
    """List what is installed, presets with the published figures; with NAME, document its options."""
    of_kind = [entry for entry in registry.entries() if kind in (None, registry.WORDS[entry.kind])]
    shown = [entry for entry in of_kind if name in (None, entry.name)]
    if name and not shown:
        if (singular := name.removesuffix("s")) in registry.WORDS.values() and kind is None:
            raise MdmError(f"no plugin {name!r} is installed; `mdm plugins --kind {singular}` lists those of a kind")
        what = f"{kind or 'plugin'} {name!r}"
        near = suggest(name, {entry.name for entry in of_kind})
        raise MdmError(f"no {what} is installed.{near} `mdm plugins` lists them")
    faults = _faults() if check else {}
    records: list[dict[str, Any]] = [asdict(entry) for entry in shown]
    for entry, record in zip(shown, records, strict=True):
        record["description"] = description(entry)
        if check or (entry.unmet and not name):
            record["error"] = faults[entry] if check else registry.incompatible(entry)
        elif name:
            record.update(_documented(entry))
        elif broken := source_fault(entry):
            record["error"] = broken
        elif entry.kind == "preset":
            try:
                record.update(registry.in_time(str(entry), partial(_documented, entry)))
                record["description"] = first_sentence(record["doc"])
            except MdmError as error:
                record["error"] = str(error)
    if check:
        nothing = dict.fromkeys(("value", "dist", "version", "unmet", "description"), "")
        records += [{"kind": "package", "name": path} | nothing | {"error": fault} for path, fault in
                    registry.unreadable().items() if name in (None, path) and kind is None]  # fmt: skip
    if as_json:
        click.echo(to_json(records, indent=2, default=repr))
    elif name and not check:
        for record in records:
            _explain(record)
    else:
        _table(records, check)
    return int(check and any(record.get("error") for record in records))


def _faults() -> dict[registry.Entry, str | None]:
    """What is wrong with each plugin. A family is also asked for a checkpoint that is none of its."""
    from mdm.models import checkpoints

    faults = dict(registry.check())
    for entry in (entry for entry, fault in faults.items() if fault is None and entry.kind == "model"):
        answer = checkpoints.ask(entry, NOBODYS)
        wait([answer], registry.PATIENCE)
        try:
            faults[entry] = f"{entry} claims every checkpoint" if checkpoints.claimed(entry, answer) else None
        except MdmError as error:
            faults[entry] = str(error)
    return faults


def _say(text: str) -> None:
    """Print what may be a stranger's."""
    click.echo(printable(text))


def _table(records: list[dict[str, Any]], check: bool) -> None:
    from mdm.cli.tables import show

    headers = ["kind", "name", "package", "description"]
    rows = [
        [registry.WORDS.get(record["kind"], record["kind"]), record["name"],
         f"{record['dist']} {record['version']}".strip(), record["description"]] for record in records
    ]  # fmt: skip
    if check or any(record["unmet"] or record.get("error") for record in records):
        headers.append("state")
        rows = [[*row, _state(record, check)] for row, record in zip(rows, records, strict=True)]
    show(headers, rows, spare=["package"], prose=["description"])
    for record in records:
        if record.get("error"):
            _say(f"{_state(record, check)}: {record['error']}")
    presets = {record["name"]: record["preset"]["tasks"] for record in records if "preset" in record}
    if presets:
        _say("\nPresets (--preset NAME), and what is published for each task, in percent:")
    for name, tasks in presets.items():
        given = [f"{task} {TaskPreset(**of_task).published}" for task, of_task in tasks.items()]
        _say(f"  {name}: {', '.join(given) or NONE_PUBLISHED}")


def _state(record: dict[str, Any], check: bool) -> str:
    """The state in one word; empty where nothing was checked."""
    if record["unmet"]:
        return "incompatible"
    return "broken" if record.get("error") else "ok" if check else ""


def _documented(entry: registry.Entry) -> dict[str, Any]:
    plugin = registry.load(entry)
    with blamed(f"{entry} cannot be described"):
        if entry.kind == "preset":
            return {"doc": plugin.about, "preset": asdict(plugin)}
        documented: dict[str, Any] = {"doc": inspect.getdoc(plugin) or ""}
        if entry.kind in ("sampler", "cache", "task"):
            documented["options"] = options_table(plugin.Options)
        return documented


def options_table(schema: type[BaseModel]) -> list[dict[str, Any]]:
    """Name, type, default and description of each option, from the schema that also checks it."""
    return [
        {
            "name": name,
            "type": _type(field.annotation),
            "default": "required" if field.is_required() else field.get_default(call_default_factory=True),
            "description": field.description or "",
        }
        for name, field in schema.model_fields.items()
    ]


def _type(annotation: Any) -> str:
    """An annotation as a user writes values: ``int | 'all'``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " | ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " | ".join(map(_type, parts))
    if origin is None and isinstance(annotation, type):
        return "none" if annotation is type(None) else annotation.__name__
    return str(annotation).replace("typing.", "")


def _explain(record: dict[str, Any]) -> None:
    _say(f"{registry.WORDS[record['kind']]} {record['name']} ({record['dist']} {record['version']}, {record['value']})")
    if record["doc"]:
        _say(f"\n{record['doc']}")
    if "preset" in record:
        _explain_preset(record["preset"])
    if "options" not in record:
        return
    _say("\nOptions (-o NAME=VALUE):" if record["options"] else "\nNo options.")
    for option in record["options"]:
        _say(f"  {option['name']}: {option['type']} = {option['default']}")
        if option["description"]:
            _say(f"      {' '.join(option['description'].split())}")


def _explain_preset(preset: dict[str, Any]) -> None:
    if preset["families"]:
        _say(f"\nFor {' and '.join(preset['families'])} models.")
    _say(f"\nSettings: {settings_text(preset['settings'])}")
    if preset["source"]:
        _say(f"    {preset['source']}")
    for task, of_task in preset["tasks"].items():
        given = TaskPreset(**of_task)
        _say(f"\n{task}: {given.published}")
        _say(f"    {settings_text({**given.settings, **given.options}) or 'as above'}")
        if given.source:
            _say(f"    {given.source}")


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as ``name value, name value``; those of a plugin under its name."""
    flat = {key: value for key, value in settings.items() if key != "options"}
    for plugin, options in settings.get("options", {}).items():
        flat |= {f"{plugin}.{option}": value for option, value in options.items()}
    return ", ".join(f"{key} {value}" for key, value in flat.items())
