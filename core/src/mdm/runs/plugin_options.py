"""Options of a run's plugins: which plugin each belongs to, and their complete, checked values.

A configuration keys them by the plugin's name, as in ``options: {info-gain: {candidates: 8}}``. Where plugins of two
kinds share a name, the kind stands in front of it: ``sampler.puzzle``, ``task.puzzle``. A list for an option that takes
none is a sweep: ``{candidates: [2, 4]}``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from types import UnionType
from typing import Any, get_args, get_origin

from mdm import registry
from mdm.data import documents
from mdm.errors import MdmError, suggest
from mdm.protocols.options import check_options
from pydantic import BaseModel

Plugin = tuple[str, str]
"""A kind and a name."""
Options = dict[str, dict[str, Any]]
"""A plugin's key in the configuration -> its options."""
MOST = 1000
"""Combinations of values that a run tries of one plugin's options."""


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

    def swept(self) -> list[str]:
        """The options that have a list of values, each of which is tried, and do not take a list themselves."""
        fields = self.schema.model_fields
        return [
            name for name, value in self.values.items()
            if isinstance(value, list) and value and name in fields and not _takes_list(fields[name].annotation)
        ]  # fmt: skip

    def complete(self) -> dict[str, Any]:
        """All options, defaults included, with a list where one is swept; raises an MdmError for a wrong one."""
        swept = self.swept()
        combinations = list(islice(product(*(self.values[name] for name in swept)), MOST + 1))
        if len(combinations) > MOST:
            raise MdmError(f"options {' and '.join(swept)} of {self.key} have more than {MOST} combinations")
        arms = [
            check_options(self.key, self.schema, self.values | dict(zip(swept, values, strict=True))).model_dump(
                mode="json"
            )
            for values in combinations
        ]
        for name in swept:
            values = [arm[name] for arm in arms]
            distinct = [value for i, value in enumerate(values) if value not in values[:i]]
            if len(distinct) < len(self.values[name]):
                raise MdmError(f"option {self.key}.{name}: the same value twice")
            arms[0][name] = distinct if len(distinct) > 1 else distinct[0]
        return arms[0]


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


def set_from_flags(collected: Sequence[PluginOptions], assignments: Iterable[str]) -> None:
    """Set each ``option=value``, ``plugin.option=value`` or ``kind.plugin.option=value`` of each plugin that is meant.

    Of an option that is set several times under one name each value is tried; else the last one counts.
    """
    given: dict[tuple[str, str], tuple[str, list[Any]]] = {}
    for assignment in assignments:
        owners, option = _owners(collected, assignment)
        name, _, text = assignment.partition("=")
        value = _scalar(assignment, text)
        for owner in owners:  # whether the plugin has such an option is for its schema to say
            before, values = given.get((owner.key, option), (name, []))
            values = [*values, value] if name == before else [value]
            given[owner.key, option] = name, values
            owner.values[option] = values if len(values) > 1 else value
            if len(values) > 1 and option not in owner.swept():
                raise MdmError(f"-o {assignment}: it is set already, and {owner.key}.{option} takes a list of values")


def _owners(collected: Sequence[PluginOptions], assignment: str) -> tuple[list[PluginOptions], str]:
    """The plugins, all of one kind, and the option that an assignment is of."""
    key, equals, _ = assignment.partition("=")
    if not equals or not key.strip():
        raise MdmError(f"-o {assignment}: expected option=value or plugin.option=value")
    name, _, option = key.strip().rpartition(".")
    option = option.replace("-", "_")
    if name:
        owners = [plugin for plugin in collected if plugin.is_called(name)]
    else:
        owners = [plugin for plugin in collected if option in plugin.schema.model_fields]
    if not owners:
        raise MdmError(f"-o {assignment}: {_no_owner(collected, name, option)}")
    if len({owner.kind for owner in owners}) > 1:
        either = " or ".join(f"{owner.key}.{option}" for owner in owners)
        raise MdmError(f"-o {assignment}: which one, {either}?")
    return owners, option


def complete(collected: Iterable[PluginOptions]) -> Options:
    """All options of every plugin, defaults included, for the configuration; raises an MdmError for a wrong one."""
    return {plugin.key: values for plugin in collected if (values := plugin.complete())}


def swept(collected: Iterable[PluginOptions], options: Options) -> dict[str, list[str]]:
    """Plugin's key -> the options of which several values are tried; raises an MdmError for an option of a task."""
    found = {
        plugin.key: [name for name in plugin.swept() if isinstance(options[plugin.key][name], list)]
        for plugin in collected
    }  # fmt: skip
    for plugin in collected:
        if plugin.kind == "task" and found[plugin.key]:
            raise MdmError(
                f"option {plugin.key}.{found[plugin.key][0]}: a run is of one task with one set of options; make a run "
                "for each value and set them side by side with mdm compare"
            )
    return {key: names for key, names in found.items() if names}


def _takes_list(kind: Any) -> bool:
    """Whether a type, or one of those that it is made of, is a list or the like."""
    origin = get_origin(kind)
    if isinstance(origin, type) and origin is not UnionType:
        return issubclass(origin, Collection)
    plain = isinstance(kind, type) and issubclass(kind, Collection) and not issubclass(kind, (str, bytes))
    return kind is Any or plain or any(map(_takes_list, get_args(kind)))


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
