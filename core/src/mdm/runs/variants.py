"""The rows of a comparison: each model under each sampler with each of its swept options at each pace.

Each has a label and a folder of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress, product
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.models import checkpoints
from mdm.protocols.settings import diffusion_only, refuse_policy
from mdm.runs import config as configs
from mdm.runs.config import C, RunConfig
from mdm.runs.results import ResultsFolder, folder_names

AUTOREGRESSIVE = "autoregressive"
"""What stands in a table for the sampler of a model that takes none."""


Row = tuple[str, str, Mapping[str, Any], int | None]
"""A variant's model, sampler, swept options and pace."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    model: str
    sampler: str
    options: Mapping[str, Any]
    """Of each option that is swept the value of this variant, by ``option``, or ``plugin.option`` where two have it."""
    tokens_per_step: int | None
    """None where the run does not set the pace by tokens."""
    label: str
    results: ResultsFolder

    @property
    def key(self) -> Row:
        """What it decodes with."""
        return self.model, self.sampler, self.options, self.tokens_per_step

    def settled(self, config: RunConfig) -> RunConfig:
        """The run's configuration with this variant's options alone."""
        options = {key: dict(values) for key, values in config.options.items()}
        for key, names in config.swept.items():
            for name in names:
                told = f"{key}.{name}" if f"{key}.{name}" in self.options else name
                options[key][name] = self.options.get(told, options[key][name][0])
        return config.model_copy(update={"options": options, "swept": {}})


def variants(config: RunConfig, out: Path) -> list[Variant]:
    """What a run in ``out`` consists of, by its configuration alone: neither checkpoints nor the hub are asked.

    A run of one variant keeps its results in ``out`` itself. An autoregressive model is one variant, whatever the
    samplers, their options and the paces.
    """
    names = _short_names(config.model)
    paces: Sequence[int | None] = config.tokens_per_step or [None]
    rows: list[Row] = []
    for model in config.model:
        if model in autoregressive(config):
            rows.append((model, AUTOREGRESSIVE, {}, None))
        else:
            samplers = [(sampler, options) for sampler in config.sampler for options in _swept(config, sampler)]
            rows += [(model, *policy, pace) for policy in samplers for pace in paces]
    if not rows:
        raise MdmError("no sampler is named: give --sampler")
    if len(rows) == 1:
        return [Variant(*rows[0], rows[0][1], ResultsFolder(out))]
    several = len(config.model) > 1, len(config.sampler) > 1, True, len(paces) > 1
    labels = []
    for model, sampler, options, pace in rows:
        swept = " ".join(f"{name}={value}" for name, value in options.items())
        parts = names[model], sampler, swept, f"K{pace}" if pace else ""
        labels.append(" ".join(filter(None, compress(parts, several))))
    folders = [ResultsFolder(out / name) for name in folder_names(labels, config.folders)]
    return [Variant(*row, label, folder) for row, label, folder in zip(rows, labels, folders, strict=True)]


def _swept(config: RunConfig, sampler: str) -> list[dict[str, Any]]:
    """Each combination of the values that are swept of the options of a sampler and of the cache."""
    keys = config.key_of("sampler", sampler), config.key_of("cache", config.cache)
    swept = [(key, name) for key in keys for name in config.swept.get(key, ())]
    names = [name for _, name in swept]
    told = [name if names.count(name) == 1 else f"{key}.{name}" for key, name in swept]
    combinations = product(*(config.options[key][name] for key, name in swept))
    return [dict(zip(told, values, strict=True)) for values in combinations]


def _short_names(models: Sequence[str]) -> dict[str, str]:
    """Each model's name in a label: of a folder its last part, where no other model is called so."""
    short = {model: Path(model).name if Path(model).is_absolute() else model for model in models}
    counts = Counter(short.values())
    return {model: name if counts[name] == 1 else model for model, name in short.items()}


def autoregressive(config: RunConfig) -> list[str]:
    """The models that are autoregressive, as ``pin_models`` recorded them."""
    if config.autoregressive is None:
        return [] if config.sampler else list(config.model)
    return config.autoregressive


def pin_models(config: RunConfig, out: Path) -> RunConfig:
    """The configuration with what the checkpoints say: which are autoregressive, and the commits of hub models.

    What ``config`` or the run in ``out`` has recorded is not looked up again, so that a run is continued with the
    weights it began with. Of a model that is not found nothing is recorded: ``load_model`` reports it.
    """
    known: list[str] = []
    names, revisions = list[str](), dict(config.revisions)
    if (out / "config.yaml").is_file():
        earlier = configs.parse(RunConfig, out / "config.yaml")
        revisions = {name: earlier.revisions[name] for name in config.model if name in earlier.revisions} | revisions
        if earlier.autoregressive is not None:
            known, names = earlier.model, list(earlier.autoregressive)
    if config.autoregressive is not None:
        return config.model_copy(update={"revisions": revisions})
    for name in (name for name in config.model if name not in known):
        with suppress(MdmError):
            folder = checkpoints.locate(name, config.offline, weights=False, revision=revisions.get(name))
            if checkpoints.is_autoregressive(folder, adapter=config.adapter):
                names.append(name)
            commit = checkpoints.commit_of(folder)
            if commit is not None:
                revisions.setdefault(name, commit)
    names = [name for name in config.model if name in names]
    return config.model_copy(update={"autoregressive": names, "revisions": revisions})


def without_policy(config: C) -> C:
    """The configuration of autoregressive models alone: no sampler, no cache. Raises an MdmError if one was named."""
    asked = ({"cache": config.cache} if config.cache != "auto" else {}) | diffusion_only(config)
    # The default sampler was asked for where it was named; an empty list is what this function leaves.
    if config.sampler and "sampler" in config.model_fields_set:
        asked = {"sampler": config.sampler} | asked
    try:
        refuse_policy(", ".join(config.model), asked)
    except MdmError as error:
        raise MdmError(f"{error} (preset {config.preset!r} is for others)" if config.preset else str(error)) from None
    task_keys = [key for kind, name in config.plugins() if kind == "task" for key in (name, f"{kind}.{name}")]
    options = {key: values for key, values in config.options.items() if key in task_keys}
    changes: dict[str, Any] = {"sampler": [], "options": options}
    return config.model_copy(update=changes | ({"swept": {}} if isinstance(config, RunConfig) else {}))
