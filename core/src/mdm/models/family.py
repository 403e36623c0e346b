"""Model families: how checkpoints become models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mdm.models.model import Model


class ModelFamily(Protocol):
    """How checkpoints of one family become a ``Model``. Registered under ``mdm.models``.

    It may also have ``example(folder)``, which writes a tiny random checkpoint: what ``mdm check`` runs on by default.

    A family of autoregressive baselines has a class attribute ``causal = True``: samplers and caches do not apply.
    """

    name: str

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this family."""
        ...

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        """Read the weights (safetensors only).

        Raises:
            MdmError: a missing, unexpected or misshapen weight, or a config key the family cannot honour.
        """
        ...
