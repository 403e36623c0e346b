"""LoRA adapters (arXiv:2106.09685) on a family's network, by peft; read from safetensors only.

An adapter is trained on the published class, whose modules a family may call otherwise: names of weights go through the
family's key mapping, as the checkpoint's own do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mdm.data import documents
from mdm.errors import MdmError, first_line
from mdm.models.checkpoints import ADAPTER_CONFIG, holds_adapter
from mdm.models.weight_files import check_files, renamed
from torch import Tensor, nn

CONFIG, WEIGHTS = ADAPTER_CONFIG, "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the class that was trained."""
A = re.compile(r"\.lora_(embedding_)?A\b")
"""The weight of a module whose first axis is the rank."""

BASE = ".base_layer."
"""In the names of weights that stand as they were beneath an adapter."""
ONE_WEIGHT = "this model's head and embeddings are one weight"

HEEDED = ("r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "lora_bias")
"""Keys of adapter_config.json that say how the weights are used."""

ELSEWHERE = {
    "peft_type", "rank_pattern", "alpha_pattern", "modules_to_save", "init_lora_weights", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern", "task_type", "auto_mapping", "peft_version",
    "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "runtime_config", "loftq_config",
    "eva_config", "megatron_core", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
"""Keys that are heeded in other ways, that the weights say better (which modules), or that concern training alone."""

SLOW = re.compile(r"\)[*+?{]|(?:[*+{].*){5}", re.DOTALL)
"""Patterns of modules' names that may take for ever to match."""

PLAIN = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base weights as they are."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that lies in ``folder``, as peft saves it.

    ``merge``: it is added to the weights, so that it costs nothing more; else it is computed beside them.
    """

    folder: Path
    merge: bool

    def apply(self, network: nn.Module, key_mapping: Mapping[str, str]) -> None:
        """Put the adapter on ``network``, in place.

        Args:
            key_mapping: regular expressions from the published weight names to the network's.

        Raises:
            MdmError: peft is missing, or the adapter is broken, of another kind, or for another network.
        """
        if find_spec("peft") is None:
            raise MdmError("adapter weights need peft, which is not installed: pip install peft (mdm-core[adapters])")
        folder, merge = self.folder, self.merge
        config, published = _read(folder)
        weights = {renamed(name.removeprefix(PREFIX), key_mapping): value for name, value in published.items()}
        if len(weights) < len(published):
            raise MdmError(f"{folder}: two weights of the adapter are for the same weight of the model")
        adapters = {name: value for name, value in weights.items() if ".lora_" in name}
        if not adapters:
            raise MdmError(f"{folder}: {WEIGHTS} holds no LoRA weights")
        _replace(network, {name: value for name, value in weights.items() if name not in adapters}, config, folder)
        ranks = {_module(name): len(value) for name, value in adapters.items() if A.search(name)}
        _check_modules(network, ranks, merge, folder)
        alphas = {
            _module(renamed(name.removeprefix(PREFIX), key_mapping)): _alpha(config, _module(name))
            for name in published
            if A.search(name)
        }
        _inject(network, adapters, _peft_config(config, ranks, alphas, folder), merge, folder)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An adapter's configuration and weights, of a kind that can be applied."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not holds_adapter(folder):
        raise MdmError(f"{folder} has no {CONFIG}: it is not a LoRA adapter as peft saves them")
    check_files(folder)
    config = documents.read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise MdmError(f"{folder / CONFIG} is not a JSON object")
    if config.get("peft_type") != "LORA":
        raise MdmError(
            f"{folder / CONFIG}: the adapter is of type {config.get('peft_type')!r}, and only LORA is applied"
        )
    for key, value in config.items():
        wrong = key not in (*HEEDED, *ELSEWHERE) and value not in (None, False, [], {}, "none")
        if wrong or (key == "init_lora_weights" and value not in PLAIN):
            raise MdmError(
                f"{folder / CONFIG}: the key {key!r} is {value!r}, which is not applied: save it as plain LoRA"
            )
    if not (folder / WEIGHTS).is_file():
        pickled = " (adapter_model.bin is a pickle: convert it)" if (folder / "adapter_model.bin").is_file() else ""
        raise MdmError(f"{folder} has no {WEIGHTS}{pickled}")
    try:
        return config, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise MdmError(f"{folder / WEIGHTS} is damaged or incomplete: {first_line(error)}") from None


def _module(name: str) -> str:
    """The module that an adapter's weight belongs to."""
    return name.removeprefix(PREFIX).partition(".lora_")[0]


def _alpha(config: Mapping[str, Any], module: str) -> float:
    """The numerator of a module's scale; patterns are of published names, from their end."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    for name in patterns:
        if SLOW.search(name):
            raise MdmError(f"{CONFIG}: the alpha_pattern {name[:60]!r} repeats what may repeat: name modules plainly")
    matching = (value for name, value in patterns.items() if re.search(rf"(^|\.)({name})$", module))
    return next(matching, config.get("lora_alpha", 8))


def _replace(network: nn.Module, weights: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Weights that are whole in place of the checkpoint's: those that were trained so (``modules_to_save``), and
    embeddings, which peft saves beside their adapter."""
    others = [name for name in weights if BASE not in name]
    if others and not config.get("modules_to_save"):
        raise MdmError(f"{folder}: the weight {min(others)} is no LoRA weight, and {CONFIG} names no modules_to_save")
    weights = {name.replace(BASE, "."): value for name, value in weights.items()}
    there, tied = dict(network.named_parameters(remove_duplicate=False)), _tied(network)
    for name, value in weights.items():
        if name not in there or there[name].shape != value.shape:
            raise MdmError(f"{folder}: the model has no weight {name} of shape {list(value.shape)}")
        if name in tied and not torch.equal(there[name], value.to(there[name])):
            raise MdmError(f"{folder}: the adapter replaces {name} with another weight, and {ONE_WEIGHT}")
        with torch.no_grad():
            there[name].copy_(value)


def _tied(network: nn.Module) -> set[str]:
    """The names of weights that are another module's too, such as a head that is the embeddings."""
    weights = [(name, p) for name, p in network.named_parameters(remove_duplicate=False) if name.endswith(".weight")]
    counts = Counter(id(weight) for _, weight in weights)
    return {name for name, weight in weights if counts[id(weight)] > 1}


def _check_modules(network: nn.Module, ranks: Mapping[str, int], merge: bool, folder: Path) -> None:
    tied = _tied(network) if merge else set()
    there = {name for name, _ in network.named_modules()}
    for name in ranks:
        if name not in there:
            raise MdmError(f"{folder}: the adapter is for a module {name}, which this model has not")
        if f"{name}.weight" in tied:
            raise MdmError(
                f"{folder}: the adapter is for {name}, and {ONE_WEIGHT}, so it cannot be added there: "
                "--no-merge-adapter computes it beside"
            )


def _peft_config(config: Mapping[str, Any], ranks: Mapping[str, int], alphas: Mapping[str, float], folder: Path) -> Any:
    """The configuration with which peft makes just the modules of which there are weights."""
    from peft import LoraConfig

    try:
        return LoraConfig(
            **{key: config[key] for key in HEEDED if config.get(key) is not None},
            target_modules=sorted(ranks),
            rank_pattern={re.escape(module): rank for module, rank in ranks.items()},
            alpha_pattern={re.escape(module): alpha for module, alpha in alphas.items()},
        )
    except (TypeError, ValueError) as error:
        raise MdmError(f"{folder / CONFIG}: {first_line(error)}") from None


def _inject(network: nn.Module, weights: Mapping[str, Tensor], config: Any, merge: bool, folder: Path) -> None:
    from peft import set_peft_model_state_dict
    from peft.tuners.lora import LoraModel

    try:
        tuner = LoraModel(network, {"default": config}, "default")
        report: Any = set_peft_model_state_dict(network, dict(weights), "default")
    except (RuntimeError, ValueError, TypeError) as error:
        raise MdmError(f"{folder}: the adapter does not fit this model: {first_line(error)}") from None
    missing = [name for name in report.missing_keys if ".lora_" in name]
    if wrong := [*missing, *report.unexpected_keys]:
        raise MdmError(f"{folder}: the adapter has {'no' if missing else 'a surplus'} weight {wrong[0]}")
    if merge:
        tuner.merge_and_unload(safe_merge=True)
