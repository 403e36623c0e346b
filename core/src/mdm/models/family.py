"""Model families: how checkpoints become models. Imports no torch, so that a checkpoint's family is cheap to find."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mdm.models.model import Model


class BaseFamily:
    """How checkpoints of one family become a ``Model``. The entry point names an instance of the class."""

    name: str
    """What ``ModelSpec.family`` says."""
    autoregressive: ClassVar[bool] = False
    """Whether its models are autoregressive baselines, which take no sampler and no cache."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of ``mdm check`` that this family cannot pass -> why."""

    @abstractmethod
    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this config.json is of the family."""
        raise NotImplementedError

    @abstractmethod
    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        """Load a checkpoint; weights are read from safetensors only.

        Args:
            source: the checkpoint's folder.
            config: its config.json.
            device: as torch names it, such as "cuda:0".
            dtype: the name of a torch dtype, such as "bfloat16".
            options: handed on to ``mdm.models.load_network``.

        Raises:
            MdmError: a missing, unexpected or misshapen weight, or a config key that the family cannot honour.
        """
        raise NotImplementedError

    def example(self, folder: Path) -> None:
        """Write a tiny random checkpoint of the family into ``folder``, for ``mdm check``; by default, none."""
