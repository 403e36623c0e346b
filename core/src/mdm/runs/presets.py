"""What a preset gives to a configuration, and what a run says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mdm import registry
from mdm.errors import MdmError
from mdm.protocols.preset import Preset, TaskPreset
from mdm.runs.plugin_options import Options

LENGTH = ("gen_length", "steps")
"""General settings that hold for tasks that a preset names and for prompts: another task sets its own length."""


def layer(name: str, preset: Preset, task: str | None) -> tuple[dict[str, Any], Options]:
    """The settings and the plugins' options of a preset, for a task or for a prompt of the user's own (None).

    Raises:
        MdmError: it has nothing to give.
    """
    of_task = preset.for_task(task)
    options = {**preset.settings.get("options", {}), **of_task.settings.get("options", {})}
    if task is not None and of_task.options:
        options[f"task.{task}"] = of_task.options
    left_out = ("options",) if task is None or task in preset.tasks else ("options", *LENGTH)
    settings = {
        key: value for key, value in (*preset.settings.items(), *of_task.settings.items()) if key not in left_out
    }
    if not settings and not options:
        known = f"it is for {', '.join(preset.tasks)}" if preset.tasks else "it is empty"
        raise MdmError(f"preset {name!r} has nothing for {task or 'a prompt without a task'}: {known}")
    return settings, {key: dict(values) for key, values in options.items()}


def at_length(settings: Mapping[str, Any], gen_length: int | None) -> dict[str, Any]:
    """A preset's settings where the user asked for another length: at the same pace, and in one block if it has one."""
    changed, length, steps = dict(settings), settings.get("gen_length"), settings.get("steps")
    if gen_length is None or not length:
        return changed
    if steps:
        changed["steps"] = max(1, round(steps * gen_length / length)) if gen_length else None
    if settings.get("block_length", 0) >= length:
        changed["block_length"] = max(settings["block_length"], gen_length)
    return changed


def published(name: str | None, task: str) -> TaskPreset | None:
    """What the preset of a run says of its task; None in a run without a preset."""
    return None if name is None else _resolve(name).for_task(task)


def remark(name: str, task: str) -> str:
    """One line on the figure that a run under a preset is to be set beside."""
    preset = _resolve(name)
    if task not in preset.tasks:
        return f"preset {name}: {TaskPreset().published} for {task}; its general settings apply"
    of_task = preset.tasks[task]
    source = of_task.source or preset.source
    return f"preset {name}: {of_task.published} for {task}" + (f" ({source})" if source else "")


def warnings(name: str | None, models: Mapping[str, str]) -> Iterator[str]:
    """A line for each model (name -> family) that the preset is not meant for."""
    families = _resolve(name).families if name is not None else ()
    for model, family in models.items():
        if families and family not in families:
            yield f"preset {name} is meant for {' and '.join(families)} models, and {model} is of the family {family}"


def _resolve(name: str) -> Preset:
    preset: Preset = registry.resolve("preset", name)
    return preset
