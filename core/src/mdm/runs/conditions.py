"""What a run's numbers depend on beside its settings: the model as it was loaded, the machine and the versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdm.runs import files, presets
from mdm.runs.config import RunConfig
from mdm.runs.decode_args import cache_name, end_tokens
from mdm.runs.results import Environment, read_environment

if TYPE_CHECKING:
    from mdm.models.model import Model
    from mdm.runs.variants import Variant

EOS_RULE = ("stop_at_eos", "eos_rank", "eos_penalty", "pad_penalty", "suppressed_tokens")
"""The settings that decide what becomes of end tokens."""


def record_model(out: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write a model's ``model_facts`` into the run's ``environment.json``; what stands there stays."""
    environment = read_environment(out)
    if name not in environment.models:
        environment.models = environment.models | {name: dict(facts)}
        files.write_json(out / "environment.json", environment.model_dump(exclude_unset=True))


def model_facts(config: RunConfig, model: Model) -> dict[str, Any]:
    """What only the loaded model tells of a run."""
    import torch

    is_cuda = model.device.type == "cuda"
    return {
        "family": model.spec.family,
        "device": torch.cuda.get_device_name(model.device) if is_cuda else str(model.device),
        "cuda": torch.version.cuda if is_cuda else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "prompt_style": config.prompt_style or model.spec.prompt_style,
        "cache": None if model.spec.attention == "causal" else cache_name(config, model),
        "end_tokens": list(end_tokens(config, model)),
    }


def conditions(config: RunConfig, variant: Variant, environment: Environment) -> dict[str, Any]:
    """What a variant is comparable by: a part of its summary."""
    of_task = presets.published(config.preset, config.task)
    return {
        "preset": config.preset,
        "published": None if of_task is None or of_task.figure is None else of_task.figure,
        "revision": config.revisions.get(variant.model),
        **environment.models.get(variant.model, {}),
        "task_options": config.options_of("task", config.task),
        "eos_rule": {name: getattr(config, name) for name in EOS_RULE},
        "batch_size": config.batch_size,
        "versions": environment.versions,
    }
