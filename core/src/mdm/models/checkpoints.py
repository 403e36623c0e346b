"""Where a checkpoint lies and which family takes it. Imports no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import Future, wait
from copy import deepcopy
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, MdmWarning, blamed, cause, first_line
from mdm.models.config_json import parse_config
from mdm.models.family import BaseFamily
from mdm.models.weight_files import check_files

MORE_PATIENCE = 60.0
"""Seconds that families are given beside ``registry.PATIENCE`` where none takes a checkpoint yet."""
ADAPTER_CONFIG = "adapter_config.json"
"""Beside it lie the weights of an adapter, as peft saves one."""

Asked = Future[tuple[BaseFamily, Any]]
"""A family that was asked whether a checkpoint is its own, and its answer."""


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
        with blamed(f"checkpoint {name!r}"):
            return locate(str(registry.resolve("checkpoint", name)()), offline, weights=weights, revision=revision)
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        known = ", ".join(registry.names("checkpoint")) or "none is installed"
        what = "a file, not a folder" if Path(name).is_file() else "no such folder"
        raise MdmError(f"model {name!r}: {what}, and no such named checkpoint (named ones: {known})")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    files = ["*.json", "*.txt", "*.jinja", "*.model", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline))
    except Exception as error:
        why = f"and the hub did not give it: {first_line(error)}"
        if isinstance(error, LocalEntryNotFoundError):
            hub = "the hub is not asked offline" if offline else "the hub cannot be reached"
            why = f"not in the hub's cache, and {hub}: download it once with a network, or name a folder that has it"
        raise MdmError(f"model {name!r}: not a local folder, {why}") from None


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
    """Whether a config.json is of a class that transformers itself has, whose name ends in one of ``heads``.

    A class that ``heads`` names in full need not be there, if the kind of its configuration is.
    """
    named = [name for name in config.get("architectures") or () if name.endswith(heads)]
    if not named:
        return False
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    # Published code of a class of its own may call its configuration "llama", as Stable-DiffCoder's does.
    stock = any(name in heads or name in transformers.__all__ for name in named)
    return stock and config.get("model_type") in CONFIG_MAPPING_NAMES


def _packages() -> list[str]:
    """The packages that bring model families."""
    return sorted(set(registry.known_plugins()["model"].values()))


def find_family(config: Mapping[str, Any], adapter: str | None, folder: Path) -> BaseFamily:
    """The family that takes a checkpoint. One that is broken, or does not answer, is set aside with a warning.

    Raises:
        MdmError: none takes it, or several do.
    """
    if adapter is not None:
        chosen: BaseFamily = registry.resolve("model", adapter)
        return chosen
    asked: dict[registry.Entry, Asked] = {}
    for entry in registry.entries("model"):
        asked[entry] = ask(entry, config)
        wait([asked[entry]], registry.PATIENCE)
    claims, aside = _sorted(asked)
    if not claims:
        wait(asked.values(), MORE_PATIENCE)
        claims, aside = _sorted(asked)
    for entry, fault in aside.items():
        if not entry.unmet:
            warnings.warn(f"{fault} (set aside)", MdmWarning, stacklevel=2)
    if not claims:
        kind = config.get("model_type") or (config.get("architectures") or ["unnamed"])[0]
        raise MdmError(
            f"{folder} is a {kind!r} checkpoint, which no installed model family takes "
            f"(installed: {', '.join(registry.names('model')) or 'none'}; there are {', '.join(_packages())}); "
            + "".join(f"set aside: {fault}; " for fault in aside.values()) + "--adapter chooses one by hand"
        )  # fmt: skip
    if len(claims) > 1:
        names = " and ".join(entry.name for entry in claims)
        raise MdmError(f"{folder} is claimed by {names}: choose one with --adapter")
    return next(iter(claims.values()))


def _sorted(
    asked: Mapping[registry.Entry, Asked],
) -> tuple[dict[registry.Entry, BaseFamily], dict[registry.Entry, str]]:
    """The families that take a checkpoint, and what is wrong with those that cannot say."""
    claims, aside = {}, {}
    for entry, answer in asked.items():
        try:
            if family := claimed(entry, answer):
                claims[entry] = family
        except MdmError as error:
            aside[entry] = str(error)
    return claims, aside


def ask(entry: registry.Entry, config: Mapping[str, Any]) -> Asked:
    """Ask a family whether a checkpoint is its own.

    It is asked in a thread, with a copy of the configuration: it may hang, and must not change anything.
    """

    def answers() -> tuple[BaseFamily, Any]:
        family = registry.load(entry)
        return family, family.claims(deepcopy(dict(config)))

    return registry.begin(answers)


def claimed(entry: registry.Entry, answer: Asked) -> BaseFamily | None:
    """The family that ``entry`` names, if it claims the checkpoint that it was asked for.

    Raises:
        MdmError: it does not load, raised, has not answered yet, or has with neither True nor False.
    """
    if not answer.done():
        raise MdmError(f"{entry} does not say in time whether it takes the checkpoint")
    if (error := answer.exception()) is not None:
        raise error if isinstance(error, MdmError) else MdmError(f"{entry} failed in claims: {cause(error)}") from error
    family, takes = answer.result()
    if not isinstance(takes, bool):
        raise MdmError(f"{entry}: its claims answered with {type(takes).__name__}, which is neither True nor False")
    return family if takes else None
