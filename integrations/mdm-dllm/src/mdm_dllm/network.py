"""Wraps a network that dllm has loaded as a model of the engine."""

from __future__ import annotations

from typing import Any

import torch
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import ModelSpec
from torch import Tensor, nn


class Network(Model):
    """A module that maps ids and an attention mask to ``.logits``. Its logits pass for hidden states, its head is none.

    So every position's logits are computed, as dllm's own samplers do, and there are no keys and values to keep:
    a checkpoint loaded by ``mdm.load_model`` is the faster way.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, shift: bool) -> None:
        if tokenizer.mask_token_id is None:
            raise MdmError("the tokenizer has no mask token: dllm sets one for the models it knows")
        eos = tokenizer.eos_token_id
        spec = ModelSpec(
            family="dllm",
            vocab_size=_vocabulary(module),
            mask_id=tokenizer.mask_token_id,
            eos_ids=() if eos is None else (eos,),
            pad_id=tokenizer.pad_token_id,
            shift=shift,
            has_kv=False,
        )
        super().__init__(spec, module, nn.Identity(), tokenizer, name="the dllm model")

    def hidden(self, tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """Logits ``[R, Q, V]``. Rows are padded on the right, so that which keys are visible says everything."""
        visible = torch.ones_like(tokens) if mask is None else (mask[:, 0, 0] == 0).long()
        logits: Tensor = self.body(tokens, attention_mask=visible).logits
        return logits


def _vocabulary(module: Any) -> int:
    """How many logits a position has, which may be more than the tokenizer's tokens."""
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    return int(module.config.vocab_size if head is None else head.weight.shape[0])
