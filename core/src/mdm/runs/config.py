"""What a run is made of: names and raw options, from a file and from flags, checked before anything is loaded.

``RunConfig`` is complete: written to ``config.yaml`` and given back with ``--config`` it makes the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from mdm import registry
from mdm.data import documents
from mdm.errors import MdmError, explain
from mdm.models.placement import DeviceMap, Dtype, Quantization
from mdm.protocols.model import PromptStyle
from mdm.protocols.settings import DEFAULT_SAMPLER, LAYER, Count, Int64, Length, Settings, Size, documented, option_with
from mdm.runs import plugin_options, presets
from mdm.runs.plugin_options import Options, Plugin
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

C = TypeVar("C", bound="DecodeConfig")

Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""One name or several: several make one comparison."""

Counts = Annotated[list[Count], BeforeValidator(lambda value: [value] if isinstance(value, int) else value)]
"""One count or several: several make one comparison."""

Folder = Annotated[str, StringConstraints(pattern=r"^(\.|[\w+][\w.+-]*)$")]
"""A folder below a run's, or the run's own."""

LARGEST = 2**20
"""Bytes of a configuration file."""

COMMANDS_OWN = ("out", "num_processes", "live", "fail_fast", "quiet", "verbose", "log_file", "json", "config")
"""Flags that are no part of a configuration."""

PACES = ("steps", "tokens_per_step")
"""Mutually exclusive: setting one clears the other."""


class PolicyConfig(BaseModel):
    """Which models decode, under which samplers and cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    model: Names = documented(
        ["tiny"], "Model: a registered checkpoint, a local folder or a hub id.", metavar="NAME", min_length=1
    )
    sampler: Names = documented([DEFAULT_SAMPLER], "Sampler.", metavar="NAME")
    """Empty in the configuration of a run whose models are all autoregressive."""
    cache: str = documented("auto", "Cache; auto is the model's own.", metavar="NAME")

    @field_validator("model")
    @classmethod
    def _absolute(cls, models: list[str]) -> list[str]:
        checkpoints = registry.names("checkpoint")
        return [os.path.abspath(name) if name not in checkpoints and os.path.isdir(name) else name for name in models]


class LoadingConfig(BaseModel):
    """How models are loaded: the arguments of ``load_model``."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    device: str = documented("auto", "Device: auto, cpu, cuda, cuda:1 or mps.", metavar="DEVICE")
    device_map: DeviceMap | dict[str, int | str] | None = documented(
        None, "How accelerate spreads the weights over several devices."
    )
    dtype: Literal["auto", Dtype] = documented("auto", "Type of the weights.")
    quantization: Quantization | None = documented(None, "Quantization of the weights, by bitsandbytes or torchao.")
    attn_implementation: str | None = documented(
        None, "transformers' attention implementation, such as eager.", unset="sdpa", metavar="NAME"
    )
    adapter: str | None = documented(
        None, "The model's family.", unset="the one whose checkpoints have such a config.json", metavar="FAMILY"
    )
    adapter_weights: str | None = documented(
        None, "Folder with a LoRA adapter, as peft saves it, to put on the weights.", metavar="FOLDER"
    )
    merge_adapter: bool | None = documented(
        None, "Add the adapter to the weights, or compute it beside them.", unset="add, unless these are quantized"
    )
    image_tokenizer: str | None = documented(
        None, "What turns pictures into tokens and back, such as showlab/magvitv2: a local folder or a hub id.",
        metavar="NAME",
    )  # fmt: skip
    image_size: Count | None = documented(
        None, "Height and width of pictures, in pixels.", unset="as the model was trained", metavar="PIXELS"
    )
    threads: Size = documented("auto", "Threads that compute; auto: one for a small model, else the idle cores.")
    offline: bool = documented(False, "Never ask the hub for the model.")

    @field_validator("adapter_weights")
    @classmethod
    def _absolute_folder(cls, folder: str | None) -> str | None:
        return None if folder is None else os.path.abspath(folder)

    @field_validator("image_tokenizer")
    @classmethod
    def _absolute_tokenizer(cls, name: str | None) -> str | None:
        return os.path.abspath(name) if name is not None and os.path.isdir(name) else name


class DecodeConfig(LoadingConfig, Settings, PolicyConfig):
    """Everything that decides what is decoded from a prompt."""

    preset: str | None = documented(
        None, "Published settings to begin from; `mdm plugins` lists them with their figures.", metavar="NAME"
    )
    """``build`` writes what it gives into the other fields."""
    seed: Int64 = option_with("seed", 0, help="Seed of the examples and of the random draws.")
    gen_length: Length | None = option_with("gen_length", None, unset="the task's, or 64")
    tokens_per_step: Counts | None = option_with(  # type: ignore[assignment]  # several make one comparison
        "tokens_per_step", None, min_length=1
    )
    unconditional: str | None = documented(
        None, "What guidance compares with, in place of the masked prompt: a text, for pictures a negative prompt.",
        metavar="TEXT", diffusion_only=True,
    )  # fmt: skip
    batch_size: Size = option_with("batch_size", 16, unset="all")
    trace: Literal["plain", "full"] = documented(
        "plain", "full: each step's trace also has its confidences and the candidates it compared."
    )
    revisions: dict[str, str] = documented({}, "Commits of the models that come from the hub, by the model's name.")
    options: Options = documented({}, "Options of plugins, by the plugin's name.")

    @field_validator("model", "sampler", "tokens_per_step")
    @classmethod
    def _distinct(cls, values: list[Any] | None) -> list[Any] | None:
        if values and len(set(values)) < len(values):
            raise ValueError("the same value twice")
        return values

    def plugins(self) -> list[Plugin]:
        """The plugins that take options, as (kind, name)."""
        caches = [] if self.cache == "auto" else [("cache", self.cache)]
        return [*(("sampler", name) for name in self.sampler), *caches]

    def key_of(self, kind: str, name: str) -> str:
        """Under which ``options`` holds those of one plugin."""
        return key if (key := f"{kind}.{name}") in self.options else name

    def options_of(self, kind: str, name: str) -> dict[str, Any]:
        """The options of one plugin."""
        return self.options.get(self.key_of(kind, name), {})


class PromptConfig(DecodeConfig):
    """How a prompt is decoded, and how it is put to the model."""

    prompt_style: PromptStyle | None = documented(
        None, "How the model is asked: by a chat, or by a short plain text.", unset="as it is used to"
    )


class RunConfig(PromptConfig):
    """A run: examples of a task decoded by every sampler (and model) named, and graded."""

    task: str = documented("sudoku", "Task.", metavar="NAME")
    data: Path | None = documented(None, "The task's examples, instead of its own.", metavar="FILE")
    limit: Count | None = documented(None, "How many examples.", unset="all of --data, or a few")
    repeats: Count = documented(1, "How often each example is decoded, each time with other random draws.")
    allow_code_execution: bool = documented(False, "Let the task run what the model wrote, in a sandbox.")
    autoregressive: list[str] | None = documented(
        None, "Which of the models are autoregressive; recorded when the run begins."
    )
    swept: dict[str, list[str]] = documented({}, "Options of which ``options`` lists several values, by plugin's name.")
    folders: dict[str, Folder] = documented(
        {}, "Variants whose folder is not called like them, since they were decoded before the run was extended."
    )

    @model_validator(mode="after")
    def _lists_what_is_swept(self) -> Self:
        for key, name in ((key, name) for key, names in self.swept.items() for name in names):
            values = self.options.get(key, {}).get(name)
            if not isinstance(values, list) or not values:
                raise ValueError(f"swept names {key}.{name}, of which options has no list of values")
        return self

    @field_validator("data")
    @classmethod
    def _absolute_data(cls, data: Path | None) -> Path | None:
        return data and data.absolute()

    def plugins(self) -> list[Plugin]:
        return [*super().plugins(), ("task", self.task)]


RECORDED = ("autoregressive", "revisions", "options", "swept", "folders")
"""Fields that no flag sets: options have a flag of their own, and the others are recorded when a run begins."""


def build(
    schema: type[C], file: Path | None = None, flags: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()
) -> C:
    """Merge a YAML file and flags (which win), hand options to the plugins they belong to, and check all of it.

    Args:
        assignments: ``option=value``, ``plugin.option=value`` or ``kind.plugin.option=value``.

    Returns:
        A configuration in which the options of every plugin are complete, defaults included.

    Raises:
        MdmError: an unknown key, plugin or option, or a value that is not allowed.
    """
    written, flags = read_yaml(file) if file else {}, flags or {}
    _refuse_misplaced(schema, written, flags, file)
    from_file = _validate(schema, written, f"{file}: ", LAYER)
    config = _validate(schema, _merge_layers(written, flags), "", LAYER)
    settings, preset_options = _preset(config)
    above = [flags] if "preset" in flags else [written, flags]  # a preset wins over what is below where it is named
    settings = presets.at_length(settings, reduce(_merge_layers, above).get("gen_length"))
    config = _validate(schema, reduce(_merge_layers, [written, settings, *above]), "")
    plugins = plugin_options.collect(config.plugins())
    plugin_options.set_from_file(plugins, config.options, from_file.plugins(), file)
    for plugin in plugins:
        preset: dict[str, Any] = {}
        for values in (values for key, values in preset_options.items() if plugin.is_called(key)):
            preset |= values
        upper = preset if "preset" in flags else dict(plugin.values)
        plugin.values.update(preset | upper)
    plugin_options.set_from_flags(plugins, assignments)
    options = plugin_options.complete(plugins)
    swept = plugin_options.swept(plugins, options)
    if swept and not isinstance(config, RunConfig):
        raise MdmError(f"option {next(iter(swept.values()))[0]} has several values: `mdm run` compares them")
    return config.model_copy(update={"options": options} | _recorded(config, from_file, swept))


def _refuse_misplaced(schema: type[C], written: Mapping[str, Any], flags: Mapping[str, Any], file: Path | None) -> None:
    """Say of what a file has in a wrong place where it belongs: to the command itself, or below a plugin's name."""
    unknown = {key: value for key, value in written.items() if key not in schema.model_fields}
    flat = written.get("options")
    flat = {key: value for key, value in flat.items() if not isinstance(value, dict)} if isinstance(flat, dict) else {}
    for key in (key for key in unknown if key in COMMANDS_OWN):
        raise MdmError(f"{file}: {key} is no part of a configuration: give --{key.replace('_', '-')}")
    if unknown or flat:
        rest = {key: value for key, value in written.items() if key not in unknown and key != "options"}
        plugins = plugin_options.collect(_validate(schema, rest | dict(flags), f"{file}: ", LAYER).plugins())
        for key, value in (unknown | flat).items():
            for owner in (plugin for plugin in plugins if key in plugin.schema.model_fields):
                where = f"options: {{{owner.key}: {{{key}: {value}}}}}"
                raise MdmError(f"{file}: {key} is an option of {owner.key}: write {where}")


def _recorded(config: DecodeConfig, from_file: DecodeConfig, swept: Mapping[str, list[str]]) -> dict[str, Any]:
    """What was recorded of the file's models, as far as these are still the models, and what is swept."""
    recorded: dict[str, Any] = {
        "revisions": {name: commit for name, commit in config.revisions.items() if name in config.model}
    }
    if isinstance(config, RunConfig):
        recorded |= {"swept": swept, "folders": {}}
        if not set(config.model) <= set(from_file.model):
            recorded["autoregressive"] = None
    return recorded


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises an MdmError where it cannot be read or is something else."""
    try:
        value = documents.parse_yaml(documents.read_text(path, LARGEST))
    except FileNotFoundError:
        raise MdmError(f"cannot read {path}: No such file or directory") from None
    except ValueError as error:
        raise MdmError(f"{path}: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MdmError(f"{path}: expected keys and values, found {type(value).__name__}")
    return value


def to_yaml(config: BaseModel) -> str:
    """The configuration as ``--config`` reads it."""
    import yaml

    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def parse(schema: type[C], path: Path) -> C:
    """A configuration file that a run wrote, as it stands."""
    return _validate(schema, read_yaml(path), f"{path}: ")


def _merge_layers(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two layers; ``upper`` wins."""
    paced = any(upper.get(pace) is not None for pace in PACES)
    return {name: value for name, value in lower.items() if not (paced and name in PACES)} | dict(upper)


def _preset(config: DecodeConfig) -> tuple[dict[str, Any], Options]:
    """The settings of the preset that a configuration names, as far as it has such, and the options of its plugins."""
    if config.preset is None:
        return {}, {}
    task = config.task if isinstance(config, RunConfig) else None
    settings, options = presets.layer(config.preset, registry.resolve("preset", config.preset), task)
    # The prompt's style is no setting where prompts come ready made, as in lm-evaluation-harness.
    elsewhere = set(PromptConfig.model_fields) - set(type(config).model_fields)
    return {name: value for name, value in settings.items() if name not in elsewhere}, options


def _validate(schema: type[C], values: Mapping[str, Any], where: str, context: str | None = None) -> C:
    try:
        return schema.model_validate(dict(values), context=context)
    except ValidationError as error:
        raise MdmError(explain(error, where, schema)) from error
