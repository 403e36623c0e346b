"""Models: from a checkpoint to hidden states, with the K/V store, attention over it, and compiled forwards.

What a model family needs is imported from here. Names are resolved on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.models.checkpoints import is_stock
    from mdm.models.config_keys import check_network, end_tokens, network_sizes, refuse, rope_theta, token_ids
    from mdm.models.family import BaseFamily
    from mdm.models.layout import Layout
    from mdm.models.loading import affixes, check_mask, load_network, load_tokenizer, mask_token, stock_config
    from mdm.models.model import Model
    from mdm.models.weight_files import check_counts

__all__ = [
    "BaseFamily", "Layout", "Model", "affixes", "check_counts", "check_mask", "check_network", "end_tokens", "is_stock",
    "load_network", "load_tokenizer", "mask_token", "network_sizes", "refuse", "rope_theta", "stock_config",
    "token_ids",
]  # fmt: skip

_NAMES = {
    "checkpoints": ("is_stock",),
    "config_keys": ("check_network", "end_tokens", "network_sizes", "refuse", "rope_theta", "token_ids"),
    "family": ("BaseFamily",),
    "layout": ("Layout",),
    "loading": ("affixes", "check_mask", "load_network", "load_tokenizer", "mask_token", "stock_config"),
    "model": ("Model",),
    "weight_files": ("check_counts",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
