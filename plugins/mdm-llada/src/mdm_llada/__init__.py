"""LLaDA (arXiv:2502.09992) on transformers' own Llama: LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model


class Llada(BaseFamily):
    """LLaDA on transformers' Llama."""

    name = "llada"

    def claims(self, config: Mapping[str, Any]) -> bool:
        architectures = config.get("architectures") or ()
        if "MMadaModelLM" in architectures:  # its config.json may call itself llada too
            return False
        return config.get("model_type") == "llada" or "LLaDAModelLM" in architectures

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        from mdm_llada.layout import load

        return load(self.name, source, config, device=device, dtype=dtype, **options)


FAMILY = Llada()
