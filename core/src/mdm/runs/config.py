"""What a run is made of: names and raw options, from a file and from flags, checked before anything is loaded.

``RunConfig`` is complete: written to ``config.yaml`` and given back with ``--config`` it makes the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from mdm import registry
from mdm.errors import MdmError, explain, suggest
from mdm.models.placement import DeviceMap, Dtype, Quantization
from mdm.protocols.options import check_options
from mdm.protocols.settings import Schedule
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

C = TypeVar("C", bound="DecodeConfig")

Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""One name or several: several make one comparison."""

Counts = Annotated[
    list[Annotated[int, Field(ge=1)]], BeforeValidator(lambda value: [value] if isinstance(value, int) else value)
]
"""One count or several: several make one comparison."""


def _span(value: Any) -> Any:
    """``"A:B"`` -> (A, B)"""
    if not isinstance(value, str):
        return value
    start, colon, stop = value.partition(":")
    if not (colon and start.strip().isdigit() and stop.strip().isdigit()):
        raise ValueError("expected A:B, the ids from A up to B, which is not among them")
    return int(start), int(stop)


TokenId = Annotated[int, Field(ge=0)]

Span = Annotated[tuple[TokenId, TokenId], BeforeValidator(_span)]
"""Ids from the first up to the second, which is not among them; also written ``"A:B"``."""

Size = Annotated[int, Field(ge=1)] | Literal["auto"]
"""A number of rows, or as many as fit."""

PACES = ("steps", "tokens_per_step")
"""Two ways to say the same: naming one sets the other aside."""


class DecodeConfig(BaseModel):
    """Everything that decides what is decoded from a prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Names = Field(["tiny"], min_length=1)
    sampler: Names = ["info-gain"]
    """Empty in the configuration of a run whose models are all autoregressive."""
    cache: str = "auto"
    """auto: what is natural to each model."""
    seed: int = 0
    gen_length: int | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=1)
    tokens_per_step: Counts | None = Field(None, min_length=1)
    schedule: Schedule = "even"
    block_length: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0)
    guidance: float = 0.0
    eos_penalty: float = 0.0
    pad_penalty: float = 0.0
    stop_at_eos: bool = False
    allowed_tokens: list[Span] | None = Field(None, min_length=1)
    suppressed_tokens: list[TokenId] = []
    trace: Literal["plain", "full"] = "plain"
    batch_size: Size = 16
    max_rows: Size = "auto"
    """Canvases in one model call."""
    compile: bool = False
    device: str = "auto"
    device_map: DeviceMap | dict[str, int | str] | None = None
    dtype: Literal["auto", Dtype] = "auto"
    quantization: Quantization | None = None
    attn_implementation: str | None = None
    adapter: str | None = None
    offline: bool = False
    """Never ask the hub for a model."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Plugin name -> its options."""

    @field_validator("model", "sampler", "tokens_per_step")
    @classmethod
    def _distinct(cls, values: list[Any] | None) -> list[Any] | None:
        if values and len(set(values)) < len(values):
            raise ValueError("the same value twice")
        return values

    @model_validator(mode="after")
    def _one_pace(self) -> DecodeConfig:
        if self.steps is not None and self.tokens_per_step is not None:
            raise ValueError("steps and tokens_per_step both set the pace: give one")
        return self

    def plugins(self) -> list[tuple[str, str]]:
        """The plugins that take options, as (kind, name)."""
        caches = [] if self.cache == "auto" else [("cache", self.cache)]
        return [*(("sampler", name) for name in self.sampler), *caches]


class RunConfig(DecodeConfig):
    """A run: examples of a task decoded by every sampler (and model) named, and graded."""

    task: str = "sudoku"
    preset: str | None = None
    """Settings the task publishes under this name; ``build`` writes them into the other fields."""
    data: Path | None = None
    limit: int | None = Field(None, ge=1)
    repeats: int = Field(1, ge=1)
    """How often each example is decoded, with draws of its own each time."""
    allow_code_execution: bool = False
    """Let a task run what the model wrote."""

    @field_validator("data")
    @classmethod
    def _absolute(cls, data: Path | None) -> Path | None:
        return data and data.absolute()

    def plugins(self) -> list[tuple[str, str]]:
        return [*super().plugins(), ("task", self.task)]


def build(
    schema: type[C], file: Path | None = None, flags: Mapping[str, Any] | None = None, assignments: Iterable[str] = ()
) -> C:
    """Merge a YAML file and flags (which win), hand options to the plugins they belong to, and check all of it.

    ``assignments`` are ``option=value`` or ``plugin.option=value``. In what is returned the options of every
    plugin are complete, defaults included.

    Raises:
        MdmError: an unknown key, plugin or option, or a value that is not allowed.
    """
    written = read_yaml(file) if file else {}
    from_file = _validate(schema, written, f"{file}: ")
    flags = flags or {}
    config = _validate(schema, _merge_layers(written, flags), "")
    settings, preset_options = _preset(config)
    above = [flags] if "preset" in flags else [written, flags]  # a preset wins over what is below where it is named
    config = _validate(schema, reduce(_merge_layers, [written, settings, *above]), "")
    classes = _options_classes(config.plugins())
    raw = {name: dict(config.options.get(name, {})) for name in classes}
    if "preset" in flags:
        raw = {name: {**values, **preset_options.get(name, {})} for name, values in raw.items()}
    else:
        raw = {name: {**preset_options.get(name, {}), **values} for name, values in raw.items()}
    begun = {name for _, name in from_file.plugins()}  # a flag may have put another plugin in place of the file's
    for name in config.options:
        if name not in raw and name not in begun:
            raise MdmError(f"{file}: options of {name!r}, which is no part of this run.{suggest(name, raw)}")
    for assignment in assignments:
        for name, option, value in _assign(assignment, classes):
            raw[name][option] = value
    options = {name: check_options(name, cls, raw[name]).model_dump(mode="json") for name, (_, cls) in classes.items()}
    return config.model_copy(update={"options": {name: values for name, values in options.items() if values}})


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        MdmError: it cannot be read, or is something else.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MdmError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MdmError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
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
    """The upper layer's settings, then the lower one's."""
    paced = any(upper.get(pace) is not None for pace in PACES)
    return {name: value for name, value in lower.items() if not (paced and name in PACES)} | dict(upper)


def _preset(config: DecodeConfig) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of the preset that a run names, and the options of its task."""
    if not isinstance(config, RunConfig) or config.preset is None:
        return {}, {}
    presets = registry.resolve("task", config.task).presets
    if config.preset not in presets:
        raise MdmError(
            f"{config.task} has no preset {config.preset!r}.{suggest(config.preset, presets)} "
            f"There are: {', '.join(presets) or 'none'}"
        )
    settings = dict(presets[config.preset])
    options = {name: settings.pop(name) for name in list(settings) if name not in DecodeConfig.model_fields}
    return settings, {config.task: options}


def _options_classes(plugins: Iterable[tuple[str, str]]) -> dict[str, tuple[str, type[BaseModel]]]:
    """Plugin name -> its kind and its Options; all that cannot be had is said at once."""
    found: dict[str, tuple[str, type[BaseModel]]] = {}
    faults: list[str] = []
    for kind, name in plugins:
        try:
            found[name] = (kind, registry.resolve(kind, name).Options)
        except MdmError as error:
            faults.append(str(error))
    if faults:
        raise MdmError("; ".join(faults))
    return found


def _assign(assignment: str, classes: Mapping[str, tuple[str, type[BaseModel]]]) -> list[tuple[str, str, Any]]:
    """``option=value`` -> (plugin, option, value) for each plugin it is meant for."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise MdmError(f"-o {assignment}: expected option=value or plugin.option=value")
    plugin, _, option = key.strip().rpartition(".")
    option = option.replace("-", "_")
    value = _scalar(assignment, text)
    if plugin:
        if plugin not in classes:
            chosen = ", ".join(classes)
            raise MdmError(
                f"-o {assignment}: {plugin!r} is no part of this run.{suggest(plugin, classes)} It has: {chosen}"
            )
        return [(plugin, option, value)]  # whether the plugin has it, its Options say
    takers = [name for name, (_, schema) in classes.items() if option in schema.model_fields]
    if not takers:
        known = {field: None for _, schema in classes.values() for field in schema.model_fields}
        listed = ", ".join(f"{name}.{field}" for name, (_, schema) in classes.items() for field in schema.model_fields)
        raise MdmError(f"-o {assignment}: no option {option!r}.{suggest(option, known)} There are: {listed or 'none'}")
    if len({classes[name][0] for name in takers}) > 1:
        meant = " or ".join(f"{name}.{option}" for name in takers)
        raise MdmError(f"-o {assignment}: which one, {meant}?")
    return [(name, option, value) for name in takers]


def _scalar(assignment: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MdmError(f"-o {assignment}: the value is not a YAML scalar") from error


def _validate(schema: type[C], values: Mapping[str, Any], where: str) -> C:
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise MdmError(explain(error, where, schema)) from error
