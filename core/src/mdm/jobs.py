"""The rows of a comparison: each model under each sampler at each pace, with a label and a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdm import results
from mdm.config import RunConfig


@dataclass(frozen=True)
class Job:
    """One row of the comparison."""

    model: str
    sampler: str
    tokens_per_step: int | None
    """None where the run does not set the pace by tokens."""
    label: str
    arm: results.Arm


def jobs(config: RunConfig, out: Path) -> list[Job]:
    """What a run in ``out`` consists of. A run of one job keeps it in ``out`` itself."""
    paces: Sequence[int | None] = config.tokens_per_step or [None]
    rows = [(model, sampler, pace) for model in config.model for sampler in config.sampler for pace in paces]
    if len(rows) == 1:
        return [Job(*rows[0], config.sampler[0], results.Arm(out))]
    several = len(config.model) > 1, len(config.sampler) > 1, len(paces) > 1
    labels = [
        " ".join(text for text, shown in zip((row[0], row[1], f"K{row[2]}"), several, strict=True) if shown)
        for row in rows
    ]
    folders = results.folder_names(labels)
    return [
        Job(*row, label, results.Arm(out / folder)) for row, label, folder in zip(rows, labels, folders, strict=True)
    ]
