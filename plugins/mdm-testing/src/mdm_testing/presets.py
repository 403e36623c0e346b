"""What every preset promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mdm import registry
from mdm.errors import MdmError
from mdm.protocols import Preset
from mdm.protocols.options import check_options
from mdm.runs import presets
from mdm.runs.config import RunConfig
from pydantic import ValidationError

from mdm_testing.kit import NotApplicable, Subject, check

RESERVED = ("preset", "task", "data", "limit", "model", "revisions", "autoregressive", "allow_code_execution")
"""Keys of a configuration that are no part of a recipe."""


@check("preset")
def it_is_a_recipe(of: Subject) -> None:
    """It says which recipe it is and sets something, and names neither a model nor data."""
    preset: Preset = of.plugin
    assert preset.about.strip(), "about is empty"
    assert preset.settings or preset.tasks, "it sets nothing"
    for where, settings, _ in _layers(of):
        taken = [key for key in RESERVED if key in settings]
        assert not taken, f"{where}: {', '.join(taken)} is for the user to set"


@check("preset")
def its_keys_are_settings(of: Subject) -> None:
    """Each key is one of a run's configuration, with a value that is allowed, alone and for each task."""
    for where, settings, _ in _layers(of):
        try:
            RunConfig.model_validate(settings)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False)
            raise AssertionError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@check("preset")
def its_options_are_options(of: Subject) -> None:
    """The options it sets are those of its sampler, cache or task, as far as these are installed."""
    checked = 0
    for where, settings, options in _layers(of):
        config = RunConfig.model_validate({key: settings[key] for key in ("sampler", "cache") if key in settings})
        plugins = [*(("sampler", name) for name in config.sampler), ("cache", config.cache), ("task", where)]
        for key, values in options.items():
            named = [plugin for plugin in plugins if key in (plugin[1], ".".join(plugin))]
            assert named, f"{where}: options of {key!r}, which is neither the sampler, the cache nor the task it is for"
            kind, name = named[0]
            if name in registry.names(kind):
                _allowed(where, name, registry.resolve(kind, name).Options, values)
                checked += 1
    if not checked:
        raise NotApplicable("it sets no options of anything installed")


@check("preset")
def a_figure_says_where_it_is_from(of: Subject) -> None:
    """Each figure is a percentage with the grade it stands for and a source; a task that is named has a source too."""
    preset: Preset = of.plugin
    for task, given in preset.tasks.items():
        assert given.source.strip() or preset.source.strip(), f"{task}: no source"
        if given.figure is not None:
            assert 0 <= given.figure <= 100, f"{task}: {given.figure} is no percentage"
            assert given.metric.strip(), f"{task}: a figure without a metric"
            assert given.source.strip(), f"{task}: a figure without a source of its own"


@check("preset")
def what_it_names_is_known(of: Subject) -> None:
    """Its families, tasks, samplers and caches are installed, or known to come with a package."""
    preset: Preset = of.plugin
    named = [*(("model", family) for family in preset.families), *(("task", task) for task in preset.tasks)]
    for _, settings, _ in _layers(of):
        config = RunConfig.model_validate({key: settings[key] for key in ("sampler", "cache") if key in settings})
        named += [("sampler", name) for name in config.sampler]
        named += [] if config.cache == "auto" else [("cache", config.cache)]
    for kind, name in dict.fromkeys(named):
        known = {*registry.names(kind), *registry.known_plugins().get(kind, {})}
        assert name in known, f"there is no {kind} {name!r}"


def _layers(of: Subject) -> Iterator[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]]:
    """For no task and for each that is named: the task, the settings and the plugins' options."""
    if of.plugin.settings:
        yield "", *presets.layer(of.name, of.plugin, None)
    for task in of.plugin.tasks:
        yield task, *presets.layer(of.name, of.plugin, task)


def _allowed(where: str, name: str, schema: Any, values: dict[str, Any]) -> None:
    try:
        check_options(name, schema, values)
    except MdmError as error:
        raise AssertionError(f"{where}: {error}" if where else str(error)) from None
