"""dLLM-Cache (arXiv:2506.06295): the prompt is computed rarely, the answer often, in between what changed most."""

from __future__ import annotations

from typing import ClassVar

import torch
from mdm.protocols import LayerCache, ModelSpec, NoOptions, Plan, State
from pydantic import BaseModel, Field
from torch import Tensor


class DllmCacheOptions(NoOptions):
    """How often prompt and answer are computed in full, and how much of the answer in between."""

    prompt_refresh: int = Field(
        100, ge=1, description="steps from one refresh of the prompt to the next (the paper's K_p)"
    )
    answer_refresh: int = Field(7, ge=1, description="steps from one refresh of the answer to the next (K_r)")
    ratio: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the answer that every layer computes in the steps between (rho); 0: none",
    )


class DllmCache(LayerCache):
    """Every layer but the first computes of the answer the positions whose values have turned furthest."""

    Options: ClassVar[type[BaseModel]] = DllmCacheOptions

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        options = self.options
        # An infill's masks lie within what was given: the answer is all from the first of them on.
        answer = state.in_canvas & (state.targets.cumsum(1) > 0)
        new_prompt, new_answer = (
            (state.step % every == 0)[:, None] for every in (options.prompt_refresh, options.answer_refresh)
        )
        query = torch.where(answer, new_answer, new_prompt) & state.in_canvas
        watched = answer & ~new_answer if options.ratio else torch.zeros_like(answer)
        picked = (watched.sum(1).double() * options.ratio).long()
        return Plan(query=query, write=query | watched, window=state.in_canvas, watched=watched, picked=picked)

    def rank(self, layer: int, new: Tensor, kept: Tensor) -> Tensor:
        """One minus the cosine of new and kept values, as half the square of what lies between their directions: near a
        cosine of 1 that is still told apart."""
        new, kept = (torch.nn.functional.normalize(x.float(), dim=-1) for x in (new, kept))
        return (new - kept).square().sum(-1) / 2
