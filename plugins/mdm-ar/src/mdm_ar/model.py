"""Autoregressive models: transformers' ``generate``, with the tokens chosen by the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mdm.models import Model
from mdm.protocols import ModelSpec
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList


class ArModel(Model):
    """A model that writes one token after another.

    Args:
        network: a transformers model with a language-model head.
    """

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any = None, *, name: str = "") -> None:
        super().__init__(spec, network.base_model, network.get_output_embeddings(), tokenizer, name=name)
        self.network = network

    @torch.inference_mode()
    def score_logits(self, tokens: Tensor, block_length: int | None = None, positions: Tensor | None = None) -> Tensor:
        """See ``Model.score_logits``: the network's own logits, of which those at i - 1 predict position i."""
        logits: Tensor = self.network(input_ids=tokens.to(self.device), use_cache=False).logits
        at = torch.arange(tokens.shape[1], device=self.device) if positions is None else positions.to(self.device)
        return logits[:, (at - 1).clamp(min=0)]

    def generate(
        self, prompts: Sequence[Sequence[int]], gen_length: int, choose: Callable[[Tensor, Tensor], Tensor]
    ) -> list[list[int]]:
        """See ``mdm.protocols.model.Autoregressive``. Rows of a batch are padded on the left; no prompt is empty."""
        longest, pad = max(map(len, prompts)), self.spec.pad_id or 0
        tokens = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        attention = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        generated: list[list[int]] = self.network.generate(
            tokens,
            attention_mask=attention,
            generation_config=GenerationConfig(
                max_new_tokens=gen_length, do_sample=False, num_beams=1, pad_token_id=pad,
                eos_token_id=list(self.spec.eos_ids) or None,
            ),
            logits_processor=LogitsProcessorList([choose]),
        )[:, longest:].tolist()  # fmt: skip
        ends = (next((i + 1 for i, t in enumerate(row) if t in self.spec.eos_ids), len(row)) for row in generated)
        return [row[:end] for row, end in zip(generated, ends, strict=True)]
