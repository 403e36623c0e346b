"""A masked language model in two parts: its encoder, and the rest of its forward as the head."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mdm.errors import PromptError
from mdm.models import Model
from mdm.protocols import ModelSpec
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput


class MlmModel(Model):
    """An encoder: it keeps no keys and values, and numbers positions itself."""

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any = None, *, name: str = "") -> None:
        super().__init__(spec, network.base_model, _Head(network), tokenizer, name=name)
        learnt = [m for name, m in self.body.named_modules() if name.endswith("position_embeddings")]
        tables = [m for m in learnt if isinstance(m, nn.Embedding)]
        # RoBERTa counts positions from behind that of its padding.
        sizes = [m.num_embeddings - (0 if m.padding_idx is None else m.padding_idx + 1) for m in tables]
        self.longest: int | None = min(sizes, default=None)
        """positions that have an embedding of their own; None: as many as one likes"""

    def hidden(self, tokens: Tensor, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """See ``Model.hidden``; the canvas is whole, so the encoder counts positions as its family does.

        Padding goes in as a mask over the keys ``[R, T]``, from which each family makes its own (ModernBERT's layers
        see a window each).
        """
        if self.longest is not None and tokens.shape[1] > self.longest:
            raise PromptError(
                f"a canvas of {tokens.shape[1]:,} tokens is longer than the {self.longest:,} positions that "
                f"{self.name or 'the model'} has learnt: give a smaller gen_length or a shorter prompt"
            )
        keys = torch.ones_like(tokens) if mask is None else (mask[:, 0, 0] == 0).long()
        hidden: Tensor = self.body(input_ids=tokens, attention_mask=keys).last_hidden_state
        return hidden


class _Head(nn.Module):
    """The network's own forward with its encoder replaced, from hidden states to logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stand_in = _StandIn()
        self.rest = copy.copy(network)
        self.rest._modules = {**network._modules, network.base_model_prefix: self.stand_in}

    def forward(self, hidden: Tensor) -> Tensor:
        self.stand_in.hidden = hidden.reshape(1, -1, hidden.shape[-1])
        ids = torch.zeros(self.stand_in.hidden.shape[:2], dtype=torch.long, device=hidden.device)
        logits: Tensor = self.rest(input_ids=ids).logits
        return logits.reshape(*hidden.shape[:-1], -1)


class _StandIn(nn.Module):
    """Stands in for the encoder, and returns the hidden states that it is told."""

    hidden: Tensor

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.hidden)
