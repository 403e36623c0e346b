"""Where a checkpoint lies and which family takes it. Imports no torch."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, wait
from copy import deepcopy
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, MdmWarning, cause, first_line
from mdm.models.family import BaseFamily

PATIENCE = 10.0
"""Seconds that a family is given to import, and to say whether it takes a checkpoint."""
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
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if holds_adapter(folder):
            raise MdmError(
                f"{folder} holds a LoRA adapter and no checkpoint: give the model that it was trained on as --model, "
                f"and --adapter-weights {folder}"
            ) from None
        raise MdmError(f"{folder} has no config.json: it is not a checkpoint in Hugging Face format") from None
    except (OSError, ValueError) as error:
        raise MdmError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise MdmError(f"{path} is not a JSON object")
    return config


def holds_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter, alone or beside a checkpoint."""
    return (folder / ADAPTER_CONFIG).is_file()


def check_weights(folder: Path) -> None:
    """Refuse a checkpoint whose weights are not all there, without reading them.

    Raises:
        MdmError: there are none, only pickled ones, a shard is missing, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        shards = ["model.safetensors"]
    elif index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MdmError(f"{index} cannot be read: {error}") from None
    else:
        if pickled := [path for end in ("bin", "pt", "pth") for path in folder.glob(f"*.{end}")]:
            raise MdmError(f"{folder} has its weights in {pickled[0].name}, a pickle: convert them to safetensors")
        raise MdmError(f"{folder} holds neither model.safetensors nor {index.name}: these are the weights")
    for name in shards:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except FileNotFoundError:
            raise MdmError(f"{folder}: {name} is missing, a shard that {index.name} names") from None
        except (OSError, SafetensorError) as error:
            raise MdmError(f"{folder}: {name} is damaged or incomplete: {error}") from None


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
    """The family that takes a checkpoint. One that is broken, or does not answer, is set aside with a warning.

    Raises:
        MdmError: none takes it, or several do.
    """
    if adapter is not None:
        chosen: BaseFamily = registry.resolve("model", adapter)
        return chosen
    claims: list[tuple[str, BaseFamily]] = []
    aside: list[str] = []
    for entry in registry.entries("model"):
        try:
            if family := claimed(entry, config):
                claims.append((entry.name, family))
        except MdmError as error:
            aside.append(str(error))
            if not entry.unmet:
                warnings.warn(f"{error} (set aside)", MdmWarning, stacklevel=2)
    if not claims:
        kind = config.get("model_type") or (config.get("architectures") or ["unnamed"])[0]
        raise MdmError(
            f"{folder} is a {kind!r} checkpoint, which no installed model family takes "
            f"(installed: {', '.join(registry.names('model')) or 'none'}; there are {', '.join(_packages())}); "
            + "".join(f"set aside: {fault}; " for fault in aside) + "--adapter chooses one by hand"
        )  # fmt: skip
    if len(claims) > 1:
        names = " and ".join(name for name, _ in claims)
        raise MdmError(f"{folder} is claimed by {names}: choose one with --adapter")
    return claims[0][1]


def claimed(entry: registry.Entry, config: Mapping[str, Any]) -> BaseFamily | None:
    """The family that ``entry`` names, if it claims a checkpoint.

    It is asked in a thread of its own, with a copy of the configuration: it may hang, and must not change anything.

    Raises:
        MdmError: it does not load, raises, does not answer in time, or answers with neither True nor False.
    """
    answer: Future[tuple[BaseFamily, Any]] = Future()

    def ask() -> None:
        try:
            family = registry.load(entry)
            answer.set_result((family, family.claims(deepcopy(dict(config)))))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    wait([answer], PATIENCE)
    if not answer.done():
        raise MdmError(f"{entry} has not said within {PATIENCE:g} s whether it takes the checkpoint")
    if (error := answer.exception()) is not None:
        raise error if isinstance(error, MdmError) else MdmError(f"{entry} failed in claims: {cause(error)}") from error
    family, takes = answer.result()
    if not isinstance(takes, bool):
        raise MdmError(f"{entry}: its claims answered with {type(takes).__name__}, which is neither True nor False")
    return family if takes else None
