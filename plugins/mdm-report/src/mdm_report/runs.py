"""Finished runs as their folders hold them: configuration, variants and results. Needs neither a model nor the network.

Which models of a run are autoregressive is read from its ``config.yaml``. Where that does not record it, none of them
is, unless the run has no sampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdm.errors import MdmError
from mdm.runs import config, files
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult, ResultsFolder
from mdm.runs.variants import Variant, variants

Key = tuple[str, str]
"""An example: its id, and the digest of its inputs and reference."""


@dataclass(frozen=True)
class RunVariant:
    """One variant of a run: a model under a sampler at a pace."""

    folder: Path
    """of the run"""
    config: RunConfig
    variant: Variant

    @property
    def model(self) -> str:
        return self.variant.model

    @property
    def sampler(self) -> str:
        return self.variant.sampler

    @property
    def tokens_per_step(self) -> int | None:
        return self.variant.tokens_per_step

    @property
    def label(self) -> str:
        """What tells it from the other variants of its run."""
        return self.variant.label

    @property
    def swept(self) -> str:
        """The values of the options of which its run tries several."""
        return " ".join(f"{name}={value}" for name, value in self.variant.options.items())

    @property
    def results(self) -> ResultsFolder:
        return self.variant.results

    def task_options(self) -> dict[str, Any]:
        """The options of the task that the results were graded with, as the summary says, else the run's."""
        for row in summary_rows(self.folder):
            if row.get("variant") == self.label and isinstance(row.get("task_options"), dict):
                return dict(row["task_options"])
        return self.config.options_of("task", self.config.task)

    def by_example(self) -> dict[Key, list[ExampleResult]]:
        """The results of each example, in the order of the repeats."""
        examples: dict[Key, list[ExampleResult]] = {}
        for result in sorted(self.results.by_row.values(), key=lambda result: (result.index, result.repeat)):
            examples.setdefault((result.id, result.digest), []).append(result)
        return examples


def summary_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``summary.json``, as far as it has such."""
    summary = files.read_json(folder / "summary.json")
    rows = summary.get("runs") if isinstance(summary, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def read_run(folder: Path) -> list[RunVariant]:
    """The variants of a run, in its order.

    Raises:
        MdmError: ``folder`` is not a run's, or its configuration cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        raise MdmError(f"{folder} is not a run's folder: it has no config.yaml")
    settings = config.parse(RunConfig, folder / "config.yaml")
    return [RunVariant(folder, variant.settled(settings), variant) for variant in variants(settings, folder)]
