"""The rows of a comparison: each model under each sampler at each pace, with a label and a folder of its own."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mdm.errors import MdmError
from mdm.models import checkpoints
from mdm.protocols.settings import refuse_policy
from mdm.runs.config import C, DecodeConfig, RunConfig
from mdm.runs.results import ResultsFolder, folder_names

AUTOREGRESSIVE = "autoregressive"
"""What stands in a table for the sampler of a model that takes none."""

POLICY = (
    "sampler", "cache", "steps", "tokens_per_step", "schedule", "block_length", "guidance", "stop_at_eos",
)  # fmt: skip
"""Settings that only a diffusion model heeds."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    model: str
    sampler: str
    tokens_per_step: int | None
    """None where the run does not set the pace by tokens."""
    label: str
    results: ResultsFolder


def jobs(config: RunConfig, out: Path, causal: Container[str] | None = None) -> list[Variant]:
    """What a run in ``out`` consists of. A run of one job keeps it in ``out`` itself.

    Autoregressive models are one row each, whatever the samplers and paces.

    Args:
        causal: the names of these, where they are known already.
    """
    causal = autoregressive(config) if causal is None else causal
    paces: Sequence[int | None] = config.tokens_per_step or [None]
    rows: list[tuple[str, str, int | None]] = []
    for model in config.model:
        if model in causal:
            rows.append((model, AUTOREGRESSIVE, None))
        else:
            rows += [(model, sampler, pace) for sampler in config.sampler for pace in paces]
    if not rows:
        raise MdmError("no sampler is named: give --sampler")
    if len(rows) == 1:
        return [Variant(*rows[0], rows[0][1], ResultsFolder(out))]
    several = len(config.model) > 1, len(config.sampler) > 1, len(paces) > 1
    labels = [
        " ".join(
            text
            for text, shown in zip((row[0], row[1], row[2] and f"K{row[2]}"), several, strict=True)
            if shown and text
        )
        for row in rows
    ]
    folders = folder_names(labels)
    return [
        Variant(*row, label, ResultsFolder(out / folder))
        for row, label, folder in zip(rows, labels, folders, strict=True)
    ]


def autoregressive(config: DecodeConfig) -> set[str]:
    """Which of a configuration's models decode by themselves. What is wrong with a model is said when it is loaded."""
    found = set()
    for name in config.model:
        with suppress(MdmError):
            if checkpoints.is_autoregressive(name, adapter=config.adapter, offline=config.offline):
                found.add(name)
    return found


def without_policy(config: C) -> C:
    """The configuration of autoregressive models alone: no sampler, no cache.

    Raises:
        MdmError: one was asked for.
    """
    default = type(config)()
    for key in POLICY:
        value = getattr(config, key)
        # The default sampler was asked for where it was named; an empty list is what this function leaves.
        if (key == "sampler" and value and key in config.model_fields_set) or (
            key != "sampler" and value != getattr(default, key)
        ):
            refuse_policy(", ".join(config.model), {key: value})
    policies = {*config.sampler, config.cache}
    options = {name: values for name, values in config.options.items() if name not in policies}
    return config.model_copy(update={"sampler": [], "options": options})
