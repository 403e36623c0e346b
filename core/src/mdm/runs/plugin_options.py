"""Options of a run's plugins: which plugin each belongs to, and their complete, checked values.

A configuration keys them by the plugin's name, as in ``options: {info-gain: {candidates: 8}}``. Where plugins of two
kinds share a name, the kind stands in front of it: ``sampler.puzzle``, ``task.puzzle``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdm import registry
from mdm.data import documents
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
    """What the plugins of a run take, nothing set yet; raises an MdmError that names all that cannot be had."""
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
    """Set what a configuration file says; raises an MdmError for options of no plugin, or of two.

    ``replaced`` are the plugins that the file names: where flags name others instead, their options are dropped.
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
    """Set ``option=value``, ``plugin.option=value`` or ``kind.plugin.option=value`` of each plugin that is meant."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise MdmError(f"-o {assignment}: expected option=value or plugin.option=value")
    name, _, option = key.strip().rpartition(".")
    option = option.replace("-", "_")
    value = _scalar(assignment, text)
    if name:
        owners = [plugin for plugin in collected if plugin.is_called(name)]
    else:
        owners = [plugin for plugin in collected if option in plugin.schema.model_fields]
    if not owners:
        raise MdmError(f"-o {assignment}: {_no_owner(collected, name, option)}")
    if len({owner.kind for owner in owners}) > 1:
        either = " or ".join(f"{owner.key}.{option}" for owner in owners)
        raise MdmError(f"-o {assignment}: which one, {either}?")
    for owner in owners:  # whether the plugin has such an option is for its schema to say
        owner.values[option] = value


def complete(collected: Iterable[PluginOptions]) -> Options:
    """All options of every plugin, defaults included, for the configuration; raises an MdmError for a wrong one."""
    checked = {plugin.key: check_options(plugin.key, plugin.schema, plugin.values) for plugin in collected}
    return {key: values for key, options in checked.items() if (values := options.model_dump(mode="json"))}


def _no_owner(collected: Sequence[PluginOptions], name: str, option: str) -> str:
    """What is wrong where no plugin is called ``name``, or, without a name, none has such an option."""
    if name:
        keys = [plugin.key for plugin in collected]
        return f"{name!r} is no part of this run.{suggest(name, keys)} It has: {', '.join(keys)}"
    options = {f"{plugin.key}.{known}": known for plugin in collected for known in plugin.schema.model_fields}
    near = suggest(option, dict.fromkeys(options.values()))
    return f"no option {option!r}.{near} There are: {', '.join(options) or 'none'}"


def _scalar(assignment: str, text: str) -> Any:
    try:
        return documents.parse_yaml(text)
    except ValueError as error:
        raise MdmError(f"-o {assignment}: {error}") from None
