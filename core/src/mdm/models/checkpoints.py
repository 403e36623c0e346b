"""Where a checkpoint lies and which family takes it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, first_line
from mdm.models.config_json import parse_config
from mdm.models.family import BaseFamily
from mdm.models.weight_files import check_files

ADAPTER_CONFIG = "adapter_config.json"
"""Beside it lie the weights of an adapter, as peft saves one."""


def is_autoregressive(name: str | Path, *, adapter: str | None = None, offline: bool = False) -> bool:
    """Whether a checkpoint is an autoregressive baseline; reads no weights.

    Raises:
        MdmError: as ``load_model``, as far as the configuration tells.
    """
    folder = locate(str(name), offline, weights=False)
    return find_family(read_config(folder), adapter, folder).autoregressive


def locate(name: str, offline: bool, *, weights: bool = True, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a registered one, a local one, or one of the hub, downloaded where it has to be.

    ``offline`` and ``revision`` are as in ``load_model``; ``weights`` is whether the weights are wanted too.

    Raises:
        MdmError: there is no such checkpoint.
    """
    # A folder that happens to be called like a named checkpoint is meant by ./name.
    if name in registry.names("checkpoint"):
        return locate(str(registry.resolve("checkpoint", name)()), offline, weights=weights, revision=revision)
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = ", ".join(registry.names("checkpoint")) or "none is installed"
        raise MdmError(f"model {name!r}: no such folder, and no such named checkpoint (named ones: {known})")
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "*.jinja", "*.model", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline))
    except Exception as error:
        raise MdmError(
            f"model {name!r}: not a local folder, and the hub did not give it: {first_line(error)}"
        ) from None


def commit_of(folder: Path) -> str | None:
    """The commit of a hub model that lies in the hub's cache; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and "models--" in folder.parent.parent.name else None


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a checkpoint, whose files are all such as can be read.

    Raises:
        MdmError: there is none, or it is broken.
    """
    check_files(folder)
    try:
        return parse_config(folder / "config.json")
    except FileNotFoundError:
        if holds_adapter(folder):
            raise MdmError(
                f"{folder} holds a LoRA adapter and no checkpoint: give the model that it was trained on as --model, "
                f"and --adapter-weights {folder}"
            ) from None
        raise MdmError(f"{folder} has no config.json: it is not a checkpoint in Hugging Face format") from None


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter, alone or beside a checkpoint."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_stock(config: Mapping[str, Any], *heads: str) -> bool:
    """Whether a config.json is of a class that transformers itself has, whose name ends in one of ``heads``."""
    if not any(name.endswith(heads) for name in config.get("architectures") or ()):
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") in CONFIG_MAPPING_NAMES


def _packages() -> list[str]:
    """The packages that bring model families."""
    return sorted(set(registry.known_plugins()["model"].values()))


def find_family(config: Mapping[str, Any], adapter: str | None, folder: Path) -> BaseFamily:
    if adapter is not None:
        chosen: BaseFamily = registry.resolve("model", adapter)
        return chosen
    families: dict[str, BaseFamily] = {}
    for entry in registry.entries("model"):
        with suppress(MdmError):  # a broken family harms nobody who does not ask for it
            families[entry.name] = registry.load(entry)
    claims = [name for name, family in families.items() if family.claims(config)]
    kind = config.get("model_type") or (config.get("architectures") or ["unnamed"])[0]
    if not claims:
        raise MdmError(
            f"{folder} is a {kind!r} checkpoint, which no installed model family takes "
            f"(installed: {', '.join(families) or 'none'}; there are {', '.join(_packages())}); "
            "--adapter chooses one by hand"
        )
    if len(claims) > 1:
        raise MdmError(f"{folder} is claimed by {' and '.join(claims)}: choose one with --adapter")
    return families[claims[0]]
