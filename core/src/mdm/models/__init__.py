"""Models: from a checkpoint to hidden states, with the K/V store, attention over it, and compiled forwards.

What a model family needs is imported from here. Names are resolved on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.models.checkpoints import is_stock as is_stock
    from mdm.models.family import BaseFamily as BaseFamily
    from mdm.models.loading import (
        affixes as affixes,
        check_mask as check_mask,
        load_network as load_network,
        load_tokenizer as load_tokenizer,
        refuse as refuse,
        stock_config as stock_config,
        token_ids as token_ids,
    )
    from mdm.models.model import Model as Model

_HOME = {
    "is_stock": "checkpoints",
    "BaseFamily": "family",
    "affixes": "loading",
    "check_mask": "loading",
    "load_network": "loading",
    "load_tokenizer": "loading",
    "refuse": "loading",
    "stock_config": "loading",
    "token_ids": "loading",
    "Model": "model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
