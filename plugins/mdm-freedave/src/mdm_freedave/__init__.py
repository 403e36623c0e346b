"""FreeDave (arXiv:2510.00294): draft several steps, verify them together, and lose nothing.

Draft j commits the j best masks of the block by the scores that are known already. All drafts are scored in one
forward; draft j's own scores say what a decoder of one token a step would commit next. As long as that is what a longer
draft has, the longer draft is taken: the tokens, and their order, are those of that decoder.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar, Literal

import torch
from mdm.protocols import BaseSampler, Commit, Draws, Evaluate, NoOptions, Scores, State, ranks, top_k
from pydantic import BaseModel, Field
from torch import Tensor


class FreeDaveOptions(NoOptions):
    draft_steps: int = Field(4, ge=1, le=64, description="steps that are drafted, and verified in one forward, at most")
    confidence_threshold: float | None = Field(
        None, ge=0, le=1, description="probability from which masks are committed together in one step (FreeDave++)"
    )
    order: Literal["confidence", "left-to-right"] = Field(
        "confidence", description="which mask a step takes: the most confident, or the first one"
    )


class FreeDave(BaseSampler):
    """Commits as many steps of one token each as their own scores confirm, at least one; a forward a step, one a block.

    The schedule is ignored. The answer is that of ``confidence`` (or ``left-to-right``) at one token a step under the
    caches none, block, prefix and dual, but for those with a number as refresh; under others, which store something
    inside a block, and with a confidence threshold or a temperature, it is near to that.
    """

    Options: ClassVar[type[BaseModel]] = FreeDaveOptions
    pace: ClassVar[Literal["schedule", "own"]] = "own"

    def step_bytes(self, positions: int, length: int) -> int:
        count = self.options.draft_steps
        return int(count * (positions * 32 + length * 32) + count**2 * positions)

    def decide(self, state: State, scores: Scores, memory: None, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        count = self.options.draft_steps
        first = self._step(scores)
        rest = scores.valid & ~first
        place = ranks(self._key(scores), rest)[:, None]
        more = torch.arange(count, device=place.device)[:, None]
        drafts = first[:, None] | (rest[:, None] & (place < more))
        # The last mask of a block is committed without a forward, since nothing of the block is left to score.
        valid = (more[:, 0] <= rest.sum(-1, keepdim=True)) & rest.any(-1, keepdim=True)
        asked = Commit(drafts, scores.token[:, None])
        seen = yield Evaluate(asked, valid, reach="span", commits_a_candidate=True)
        best = _accepted(drafts, valid, self._targets(state, scores, seen))
        where = drafts[torch.arange(len(best), device=best.device), best]
        return Commit(where, scores.token, scores=seen.pick(best), known=valid.any(-1))

    def _key(self, scores: Scores) -> Tensor:
        return scores.log_odds if self.options.order == "confidence" else -scores.positions.float()

    def _step(self, scores: Scores) -> Tensor:
        """bool, shaped as ``scores``: what one step of the decoder that is followed commits."""
        best = top_k(self._key(scores), scores.valid, torch.ones_like(scores.unscored))
        if self.options.confidence_threshold is None:
            return best
        sure = scores.valid & (scores.confidence >= self.options.confidence_threshold)
        return torch.where(sure.any(-1, keepdim=True), sure, best)

    def _targets(self, state: State, scores: Scores, seen: Scores) -> Tensor:
        """bool ``[B, N, K]``: where the step that follows each draft commits the token that the drafts have."""
        length = state.tokens.shape[1]
        at = seen.positions.masked_fill(~self._step(seen), length)
        canvas = at.new_full((*at.shape[:2], length + 1), -1).scatter(2, at, seen.token)
        canvas[..., length] = -1
        return canvas.gather(2, scores.positions[:, None].expand(-1, at.shape[1], -1)) == scores.token[:, None]


def _accepted(drafts: Tensor, valid: Tensor, targets: Tensor) -> Tensor:
    """int64 ``[B]``: the longest draft that is reached from the first by steps that confirm the next.

    All are bool: ``drafts`` and ``targets`` ``[B, N, K]``, ``valid`` ``[B, N]``.
    """
    kept = drafts | targets
    # bool [B, N, N]: whether what follows draft j has all of draft k
    holds = (kept[:, :, None] | ~drafts[:, None]).all(-1) & valid[:, None]
    numbers = torch.arange(drafts.shape[1], device=drafts.device)
    best = torch.zeros_like(valid[:, 0], dtype=torch.long)
    rows = torch.arange(len(best), device=best.device)
    for _ in range(drafts.shape[1] - 1):
        best = numbers.where(holds[rows, best], 0).amax(-1).maximum(best)
    return best
