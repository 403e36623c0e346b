"""A masked language model cut in two: its encoder, and whatever its own forward does behind it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mdm.models import Model
from mdm.protocols import ModelSpec
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput


class MlmModel(Model):
    """An encoder: no keys and values are kept, and positions are its own affair."""

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any = None, *, name: str = "") -> None:
        super().__init__(spec, network.base_model, _Head(network), tokenizer, name=name)

    def hidden(self, tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """See ``Model.hidden``; the canvas is whole, so the encoder counts positions as its family does.

        Padding goes in as a mask over the keys ``[R, T]``, from which each family makes its own (ModernBERT's layers
        see a window each).
        """
        keys = torch.ones_like(tokens) if mask is None else (mask[:, 0, 0] == 0).long()
        hidden: Tensor = self.body(input_ids=tokens, attention_mask=keys).last_hidden_state
        return hidden


class _Head(nn.Module):
    """What the network does with its encoder's hidden states: its own forward, the encoder replaced."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.given = _Given()
        self.rest = copy.copy(network)
        self.rest._modules = {**network._modules, network.base_model_prefix: self.given}

    def forward(self, hidden: Tensor) -> Tensor:
        self.given.hidden = hidden.reshape(1, -1, hidden.shape[-1])
        ids = torch.zeros(self.given.hidden.shape[:2], dtype=torch.long, device=hidden.device)
        logits: Tensor = self.rest(input_ids=ids).logits
        return logits.reshape(*hidden.shape[:-1], -1)


class _Given(nn.Module):
    """In an encoder's place, the hidden states it gave before."""

    hidden: Tensor

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.hidden)
