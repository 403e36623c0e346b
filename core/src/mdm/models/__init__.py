"""Models: from a checkpoint to hidden states, with the K/V store, attention over it, and compiled forwards.

What a model family needs is imported from here. Names are resolved on first use."""

from typing import TYPE_CHECKING

from mdm.lazy import lazy

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
__getattr__, __dir__ = lazy(
    __name__, {"checkpoints": ("is_stock",), "family": ("BaseFamily",), "loading": _LOADING, "model": ("Model",)}
)
