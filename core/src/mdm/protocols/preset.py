"""Presets: published recipes under a name, with the published figures beside them. Imports no torch.

The entry point of the group ``mdm.presets`` names a ``Preset``. It is shipped by the package of the family or of the
sampler that the recipe is of, and it may name plugins of other packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NONE_PUBLISHED = "none published"
"""What stands for a figure where none is known."""


@dataclass(frozen=True)
class TaskPreset:
    """What a preset says of one task."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings over the preset's general ones; keys as in a run's configuration file."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task, such as its shots."""
    figure: float | None = None
    """The published figure, in percent; None where none is known."""
    metric: str = ""
    """The task's grade that the figure is to be set beside."""
    source: str = ""
    """Where the figure is from, with an arXiv id or a commit, and what it was measured with."""

    @property
    def published(self) -> str:
        """The figure as it is shown."""
        return NONE_PUBLISHED if self.figure is None else f"{self.figure:.1f} {self.metric}"


@dataclass(frozen=True)
class Preset:
    """Settings to begin from: ``--preset NAME``. What the user sets wins."""

    about: str
    """Which recipe it is, and what of the published one cannot be said."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings whatever the task; keys as in a run's configuration file, ``options`` of plugins included."""
    tasks: Mapping[str, TaskPreset] = field(default_factory=dict)
    """Task -> what else is set for it, and its figure."""
    families: tuple[str, ...] = ()
    """The model families that it is meant for; empty: any."""
    source: str = ""
    """Where the settings are from, with an arXiv id or a commit."""
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    """Checks of ``mdm check`` that this preset cannot pass -> why."""

    def for_task(self, task: str | None) -> TaskPreset:
        """What it says of a task; nothing where it does not name it."""
        return self.tasks.get(task or "", TaskPreset())
