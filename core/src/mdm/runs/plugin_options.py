"""Options of a run's plugins: which plugin each belongs to, and their complete, checked values.

A configuration keys them by the plugin's name, as in ``options: {info-gain: {candidates: 8}}``. Where plugins of two
kinds share a name, the kind stands in front of it: ``sampler.puzzle``, ``task.puzzle``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdm import registry
from mdm.errors import MdmError, suggest
from mdm.protocols.options import check_options
from pydantic import BaseModel

Plugin = tuple[str, str]
"""A kind and a name."""
Options = dict[str, dict[str, Any]]
"""A plugin's key in the configuration -> its options."""


@dataclass(frozen=True)
class PluginOptions:
    """The options that one plugin of a run takes, and those that were set."""

    kind: str
    name: str
    key: str
    """Under which the configuration holds them: the name, or ``KIND.NAME`` where the name alone is ambiguous."""
    schema: type[BaseModel]
    values: dict[str, Any] = field(default_factory=dict)

    def is_called(self, text: str) -> bool:
        return text in (self.name, f"{self.kind}.{self.name}")


def collect(plugins: Sequence[Plugin]) -> list[PluginOptions]:
    """What the plugins of a run take, nothing set yet.

    Raises:
        MdmError: plugins that cannot be had; all of them are named.
    """
    collected, faults = [], []
    names = [name for _, name in plugins]
    for kind, name in plugins:
        key = name if names.count(name) == 1 else f"{kind}.{name}"
        try:
            collected.append(PluginOptions(kind, name, key, registry.resolve(kind, name).Options))
        except MdmError as error:
            faults.append(str(error))
    if faults:
        raise MdmError("; ".join(faults))
    return collected


def set_from_file(collected: Sequence[PluginOptions], options: Options, replaced: Iterable[Plugin], file: Any) -> None:
    """Set what a configuration file says.

    Args:
        replaced: plugins that the file names and flags may have replaced; their options are dropped.

    Raises:
        MdmError: options of a plugin that is no part of the run, or of two.
    """
    dropped = {text for kind, name in replaced for text in (name, f"{kind}.{name}")}
    for key, values in options.items():
        owners = [plugin for plugin in collected if plugin.is_called(key)]
        if len(owners) > 1:
            raise MdmError(f"{file}: options of {key!r}: which one, {' or '.join(plugin.key for plugin in owners)}?")
        if owners:
            owners[0].values.update(values)
        elif key not in dropped:
            near = suggest(key, [plugin.key for plugin in collected])
            raise MdmError(f"{file}: options of {key!r}, which is no part of this run.{near}")


def set_from_flag(collected: Sequence[PluginOptions], assignment: str) -> None:
    """Set ``option=value``, ``plugin.option=value`` or ``kind.plugin.option=value`` of each plugin that is meant.

    Raises:
        MdmError: no plugin is, or plugins of several kinds are.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise MdmError(f"-o {assignment}: expected option=value or plugin.option=value")
    plugin, _, option = key.strip().rpartition(".")
    option = option.replace("-", "_")
    value = _scalar(assignment, text)
    owners = _called(collected, plugin, assignment) if plugin else _with_option(collected, option, assignment)
    if len({owner.kind for owner in owners}) > 1:
        either = " or ".join(f"{owner.key}.{option}" for owner in owners)
        raise MdmError(f"-o {assignment}: which one, {either}?")
    for owner in owners:  # whether the plugin has such an option is for its schema to say
        owner.values[option] = value


def complete(collected: Iterable[PluginOptions]) -> Options:
    """All options of every plugin, defaults included, as the configuration holds them.

    Raises:
        MdmError: an unknown option or a value that is not allowed.
    """
    checked = {
        plugin.key: check_options(plugin.key, plugin.schema, plugin.values).model_dump(mode="json")
        for plugin in collected
    }
    return {key: values for key, values in checked.items() if values}


def _called(collected: Sequence[PluginOptions], text: str, assignment: str) -> list[PluginOptions]:
    owners = [plugin for plugin in collected if plugin.is_called(text)]
    if not owners:
        keys = [plugin.key for plugin in collected]
        raise MdmError(
            f"-o {assignment}: {text!r} is no part of this run.{suggest(text, keys)} It has: {', '.join(keys)}"
        )
    return owners


def _with_option(collected: Sequence[PluginOptions], option: str, assignment: str) -> list[PluginOptions]:
    owners = [plugin for plugin in collected if option in plugin.schema.model_fields]
    if not owners:
        names = {name: None for plugin in collected for name in plugin.schema.model_fields}
        known = ", ".join(f"{plugin.key}.{name}" for plugin in collected for name in plugin.schema.model_fields)
        raise MdmError(f"-o {assignment}: no option {option!r}.{suggest(option, names)} There are: {known or 'none'}")
    return owners


def _scalar(assignment: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MdmError(f"-o {assignment}: the value is not a YAML scalar") from error
