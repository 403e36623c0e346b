"""LLaDA (arXiv:2502.09992) on transformers' own Llama: LLaDA-8B-Base and -Instruct, LLaDA-1.5, iLLaDA; and LLaDA-MoE
on its Qwen3-MoE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mdm.models import BaseFamily

if TYPE_CHECKING:
    from mdm.models import Model


class Llada(BaseFamily):
    """LLaDA, iLLaDA and LLaDA-MoE. A dense and a sparse checkpoint both call themselves ``llada``: their architectures
    tell them apart."""

    name = "llada"

    def claims(self, config: Mapping[str, Any]) -> bool:
        architectures = config.get("architectures") or ()
        if "MMadaModelLM" in architectures:  # its config.json may call itself llada too
            return False
        return (
            config.get("model_type") == "llada"
            or "LLaDAModelLM" in architectures
            or _sparse(config)
            or _improved(config)
        )

    def load(self, source: str, config: Mapping[str, Any], *, device: str, dtype: str, **options: Any) -> Model:
        if _sparse(config):
            from mdm_llada.moe import load
        elif _improved(config):
            from mdm_llada.illada import load
        else:
            from mdm_llada.layout import load
        return load(self.name, source, config, device=device, dtype=dtype, **options)


def _sparse(config: Mapping[str, Any]) -> bool:
    """Whether it is LLaDA-MoE, whose checkpoints name their class with its head or without."""
    named = {"LLaDAMoEModelLM", "LLaDAMoEModel"} & set(config.get("architectures") or ())
    return bool(named) or config.get("model_type") == "lladamoe" or _has_experts(config)


def _has_experts(config: Mapping[str, Any]) -> bool:
    return config.get("model_type") == "llada" and "expert_intermediate_size" in config


def _improved(config: Mapping[str, Any]) -> bool:
    """Whether it is iLLaDA."""
    return config.get("model_type") == "illada" or "ILLaDAForCausalLM" in (config.get("architectures") or ())


FAMILY = Llada()
