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
    from mdm.engine.memory import Sizes
    from mdm.models.model import Model
    from mdm.runs.variants import Variant

EOS_RULE = ("stop_at_eos", "eos_rank", "eos_penalty", "pad_penalty", "suppressed_tokens")
"""The settings that decide what becomes of end tokens."""


RESOLVED = ("cache", "device", "dtype", "threads", "batch_size", "max_rows")
"""What "auto" became."""


def record_model(out: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write a model's ``model_facts`` into the run's ``environment.json``; what stands there stays."""
    environment = read_environment(out)
    if name not in environment.models:
        environment.models = environment.models | {name: dict(facts)}
        files.write_json(out / "environment.json", environment.model_dump(exclude_unset=True))


def record_sizes(out: Path, variant: Variant, asked: int | str | None, sizes: Sizes) -> None:
    """Write into the run's ``environment.json`` what a variant's sizes of batches are that were chosen for it."""
    chosen: dict[str, int | None] = {"batch_size": sizes.batch_size} if asked == "auto" else {}
    chosen |= {"max_rows": sizes.max_rows} if sizes.splits_lookahead else {}
    environment, folder = read_environment(out), str(variant.results.folder.relative_to(out))
    if chosen and environment.sizes.get(folder) != chosen:
        environment.sizes = environment.sizes | {folder: chosen}
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
        "threads": torch.get_num_threads(),
    }


def conditions(config: RunConfig, variant: Variant, environment: Environment, out: Path) -> dict[str, Any]:
    """What a variant of the run in ``out`` is comparable by: a part of its summary."""
    facts = environment.models.get(variant.model, {})
    resolved = facts | environment.sizes.get(str(variant.results.folder.relative_to(out)), {})
    of_task = presets.published(config.preset, config.task)
    return {
        "preset": config.preset,
        "published": None if of_task is None or of_task.figure is None else of_task.figure,
        "revision": config.revisions.get(variant.model),
        **facts,
        "resolved": {name: resolved[name] for name in RESOLVED if resolved.get(name) is not None},
        "task_options": config.options_of("task", config.task),
        "eos_rule": {name: getattr(config, name) for name in EOS_RULE},
        "batch_size": config.batch_size,
        "versions": environment.versions,
    }
