"""transformers' ``generate`` under our rules, draws and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mdm.model import Model
from mdm.protocols import ModelSpec
from mdm.rng import Draws
from mdm.rules import LogitRules
from mdm.scoring import statistics
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList


class ArModel(Model):
    """A model that writes one token after another.

    Args:
        network: a transformers model with a language-model head.
    """

    def __init__(self, spec: ModelSpec, network: Any, tokenizer: Any = None, *, name: str = "") -> None:
        super().__init__(spec, network.base_model, network.get_output_embeddings(), tokenizer, name=name)
        self.network = network

    def generate(
        self, prompts: Sequence[Sequence[int]], gen_length: int, *, rules: LogitRules, temperature: float, draws: Draws
    ) -> list[tuple[list[int], list[float]]]:
        """See ``mdm.protocols.Autoregressive``. Rows of a batch are padded on the left; no prompt is empty."""
        longest, pad = max(map(len, prompts)), self.spec.pad_id or 0
        tokens = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=self.device)
        real = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        chooser = _Chooser(rules, temperature, draws, torch.tensor([len(p) for p in prompts], device=self.device))
        made = self.network.generate(
            tokens,
            attention_mask=real,
            generation_config=GenerationConfig(
                max_new_tokens=gen_length, do_sample=False, num_beams=1, pad_token_id=pad,
                eos_token_id=list(self.spec.eos_ids) or None,
            ),
            logits_processor=LogitsProcessorList([chooser]),
        )[:, longest:].tolist()  # fmt: skip
        entropies = torch.stack(chooser.entropies, 1).tolist()
        answers = []
        for row, paid in zip(made, entropies, strict=True):
            end = next((i + 1 for i, token in enumerate(row) if token in self.spec.eos_ids), len(row))
            answers.append((row[:end], paid[:end]))
        return answers


class _Chooser(LogitsProcessor):
    """Chooses each token as a diffusion model's are chosen, by the same rules and keyed draws; notes its entropy."""

    def __init__(self, rules: LogitRules, temperature: float, draws: Draws, at: Tensor) -> None:
        self.rules, self.temperature, self.draws, self.at = rules, temperature, draws, at
        self.entropies: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = self.rules(scores.float(), lambda: input_ids)
        noise = self.draws.token_gumbel(self.at, logits.shape[1]) if self.temperature else None
        stats = statistics(logits, temperature=self.temperature, noise=noise)
        self.entropies.append(stats.entropy)
        self.draws, self.at = self.draws.later(), self.at + 1
        return torch.full_like(scores, -torch.inf).scatter(1, stats.token[:, None], 0.0)
