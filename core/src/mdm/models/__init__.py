"""Models: from a checkpoint to hidden states, with the K/V store, attention over it, and compiled forwards.

What a model family needs is imported from here. Names are resolved on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.models.checkpoints import is_stock
    from mdm.models.family import BaseFamily
    from mdm.models.loading import affixes, check_mask, load_network, load_tokenizer, refuse, stock_config, token_ids
    from mdm.models.model import Model

__all__ = [
    "BaseFamily", "Model", "affixes", "check_mask", "is_stock", "load_network", "load_tokenizer", "refuse",
    "stock_config", "token_ids",
]  # fmt: skip

_LOADING = ("affixes", "check_mask", "load_network", "load_tokenizer", "refuse", "stock_config", "token_ids")

_NAMES = {"checkpoints": ("is_stock",), "family": ("BaseFamily",), "loading": _LOADING, "model": ("Model",)}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
