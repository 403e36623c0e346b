"""PC-Sampler (arXiv:2508.13021): confidence weighted by how much a token says, and by how early it stands.

With r_i the index of mask i inside its block and f the frequency of tokens in a reference corpus, pc commits the k
masks with the largest

    score_i = exp(-lambd r_i) min(-conf_i ln f(x̂_i), alpha)

so that neither frequent tokens (punctuation, EOS) nor late positions are committed early. linear-position, its
published baseline, adds the two instead of multiplying them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, ModelSpec, NoOptions, Scores, State, top_k
from pydantic import Field, field_validator
from torch import Tensor

from mdm_pc.frequencies import Frequencies


class _Options(NoOptions):
    alpha: float = Field(10.0, gt=0, description="bound on confidence times surprise (nats)")
    baseline: Path | None = Field(
        None, description="token counts of a reference corpus, from `mdm pc-count`; none: every token equally frequent"
    )

    @field_validator("baseline")
    @classmethod
    def _is_a_count(cls, path: Path | None) -> Path | None:
        if path is not None:
            Frequencies.read(path)
        return path


class PCOptions(_Options):
    lambd: float = Field(0.25, ge=0, description="how fast the weight falls with the index inside the block")


class LinearOptions(_Options):
    lambd: float = Field(0.25, ge=0, le=1, description="share of the position in the score")


@lru_cache(maxsize=4)
def _surprise(baseline: Path | None, vocabulary: int, device: torch.device) -> Tensor:
    """-ln f of every token, ``[V]`` (nats); an unseen token counts as seen once."""
    if baseline is None:
        return torch.full((vocabulary,), float(vocabulary), device=device).log()
    baseline_counts = Frequencies.read(baseline)
    frequency = torch.full((vocabulary,), 1 / baseline_counts.num_token)
    frequency[list(baseline_counts.counts)] = (
        torch.tensor(list(baseline_counts.counts.values())) / baseline_counts.num_token
    )
    return -(frequency + 1e-9).log().to(device)


class PC(BaseSampler):
    """Commits the k masks of the block with the largest exp(-lambd r) min(-conf ln f, alpha)."""

    Options: ClassVar[type[_Options]] = PCOptions

    def check(self, spec: ModelSpec) -> None:
        if self.options.baseline is not None:
            Frequencies.read(self.options.baseline).check(spec.vocab_size, self.options.baseline)

    def information(self, scores: Scores, tokens: Tensor) -> Tensor:
        """min(-conf ln f, alpha) ``[B, K]`` (nats)"""
        surprise = _surprise(self.options.baseline, scores.vocab_size, scores.positions.device)
        return (scores.confidence * surprise[tokens]).clamp(max=self.options.alpha)

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        index = scores.positions - state.block_bounds[:, :1]
        key = torch.exp(-self.options.lambd * index) * self.information(scores, scores.token)
        return Commit(top_k(key, scores.valid, state.budget), scores.token)


class LinearPosition(PC):
    """Commits the k masks of the block with the largest (1 - lambd) minmax(min(-conf ln f, alpha)) + lambd (n - r) / n.

    Minimum and maximum are over all n positions of the block, with f of the token that was committed where one was.
    """

    Options: ClassVar[type[_Options]] = LinearOptions
    reads: ClassVar[Literal["masked", "generated"]] = "generated"

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Commit:
        masked = scores.valid & state.masked.gather(1, scores.positions)
        here = state.tokens.gather(1, scores.positions)
        value = self.information(scores, torch.where(masked, scores.token, here))
        low = value.where(scores.valid, torch.inf).amin(-1, keepdim=True)
        high = value.where(scores.valid, -torch.inf).amax(-1, keepdim=True)
        size = (state.block_bounds[:, 1:] - state.block_bounds[:, :1]).float()
        near = (size - (scores.positions - state.block_bounds[:, :1])) / size
        weight = self.options.lambd
        key = (1 - weight) * (value - low) / (high - low + 1e-9) + weight * near
        return Commit(top_k(key, masked, state.budget), scores.token)
