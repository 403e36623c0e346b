"""The rows of a comparison: each model under each sampler at each pace, with a label and a folder of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from mdm.errors import MdmError
from mdm.models import checkpoints
from mdm.protocols.settings import diffusion_only, refuse_policy
from mdm.runs import config as configs
from mdm.runs.config import C, RunConfig
from mdm.runs.results import ResultsFolder, folder_names

AUTOREGRESSIVE = "autoregressive"
"""What stands in a table for the sampler of a model that takes none."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    model: str
    sampler: str
    tokens_per_step: int | None
    """None where the run does not set the pace by tokens."""
    label: str
    results: ResultsFolder


def variants(config: RunConfig, out: Path) -> list[Variant]:
    """What a run in ``out`` consists of, by its configuration alone: neither checkpoints nor the hub are asked.

    A run of one variant keeps its results in ``out`` itself. An autoregressive model is one variant, whatever the
    samplers and paces.
    """
    names = _short_names(config.model)
    paces: Sequence[int | None] = config.tokens_per_step or [None]
    rows: list[tuple[str, str, int | None]] = []
    for model in config.model:
        if model in autoregressive(config):
            rows.append((model, AUTOREGRESSIVE, None))
        else:
            rows += [(model, sampler, pace) for sampler in config.sampler for pace in paces]
    if not rows:
        raise MdmError("no sampler is named: give --sampler")
    if len(rows) == 1:
        return [Variant(*rows[0], rows[0][1], ResultsFolder(out))]
    several = len(config.model) > 1, len(config.sampler) > 1, len(paces) > 1
    parts = [(names[model], sampler, f"K{pace}" if pace else "") for model, sampler, pace in rows]
    labels = [" ".join(filter(None, compress(texts, several))) for texts in parts]
    folders = [ResultsFolder(out / name) for name in folder_names(labels)]
    return [Variant(*row, label, folder) for row, label, folder in zip(rows, labels, folders, strict=True)]


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
    if (out / "config.yaml").is_file():
        earlier = configs.parse(RunConfig, out / "config.yaml")
        if earlier.model == config.model:
            revisions = earlier.revisions | config.revisions
            names = earlier.autoregressive if config.autoregressive is None else config.autoregressive
            config = config.model_copy(update={"revisions": revisions, "autoregressive": names})
    if config.autoregressive is not None:
        return config
    names, revisions = [], dict(config.revisions)
    for name in config.model:
        with suppress(MdmError):
            folder = checkpoints.locate(name, config.offline, weights=False, revision=revisions.get(name))
            if checkpoints.is_autoregressive(folder, adapter=config.adapter):
                names.append(name)
            commit = checkpoints.commit_of(folder)
            if commit is not None:
                revisions.setdefault(name, commit)
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
    return config.model_copy(update={"sampler": [], "options": options})
