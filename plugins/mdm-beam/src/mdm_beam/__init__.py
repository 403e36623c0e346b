"""Beam search over decoding trajectories, with Info-Gain's candidates (arXiv:2602.18176, which announces it).

``beam_size`` canvases are kept for each prompt. Each step expands them by their candidate actions and keeps the best by

    (entropy paid so far, the action's included) + uncertainty(z')

with uncertainty the mean entropy over the masks that are left (nats), small being good. One beam is Info-Gain.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from mdm.protocols import (
    Actions,
    CandidateScores,
    Commit,
    Draws,
    Evaluate,
    Lookahead,
    LookaheadOptions,
    Rowwise,
    Scores,
    State,
    all_filled,
    best_rows,
    best_successors,
)
from pydantic import Field
from torch import Tensor


class BeamOptions(LookaheadOptions):
    beam_size: int = Field(4, ge=1, description="canvases kept for each prompt")


@dataclass(frozen=True)
class Paid(Rowwise):
    """The entropy of what each row has committed so far."""

    entropy: Tensor
    """float32 ``[B]`` (nats)"""


class Beam(Lookahead):
    """Keeps the trajectories with the least entropy paid plus uncertainty ahead; the least paid answers the prompt.

    Trajectories that meet in one canvas count once. A prompt's forwards are those of one beam, as they ride together;
    its rows are those of all. The number of rows depends on the scores, which costs a transfer to the host a step.
    """

    Options: ClassVar[type[LookaheadOptions]] = BeamOptions
    expected_failures: ClassVar[Mapping[str, str]] = {
        "waits_for_nothing": "how many beams are left depends on which actions lead to one canvas, known on the device"
    }

    def step_bytes(self, positions: int, length: int) -> int:
        actions = self.options.beam_size * (positions if self.options.candidates == "all" else self.options.candidates)
        return self.options.beam_size * super().step_bytes(positions, length) + actions**2

    def begin(self, state: State) -> Paid:
        return Paid(torch.zeros(len(state.step), device=state.device))

    def decide(self, state: State, scores: Scores, memory: Paid, draws: Draws) -> Generator[Evaluate, Scores, Commit]:
        actions = self.actions(state, scores, draws)
        count = actions.valid.shape[1]
        # A canvas without masks waits for the other beams: nothing is left to see.
        done = ~state.masked.any(-1, keepdim=True)
        weighed = actions.valid & ~done & _choice(state, actions)
        ahead = yield Evaluate(Commit(actions.where, actions.tokens), weighed, self.options.reach)
        cost = scores.entropy[:, None].where(actions.where, 0.0).sum(-1)
        uncertainty = ahead.uncertainty().where(weighed, 0.0)
        value = -(memory.entropy[:, None] + cost + uncertainty)
        flat = best_successors(
            state, scores, actions.where, actions.tokens, actions.valid, value, self.options.beam_size
        )  # fmt: skip
        source, best = flat // count, flat % count
        weighing = CandidateScores(actions.where, weighed, value, cost, uncertainty)
        return Commit(
            actions.where[source, best],
            actions.tokens[source, best],
            scores=ahead.rows(source).pick(best),
            known=weighed[source, best],
            bypass=None if actions.bypass is None else actions.bypass[source],
            candidate_scores=CandidateScores(
                *(getattr(weighing, name)[source] for name in weighing.__dataclass_fields__)
            ),
            memory=Paid((memory.entropy[:, None] + cost)[source, best]),
            source=source,
        )

    def finished(self, state: State, memory: Paid) -> Tensor:
        """A prompt is done when all its beams are."""
        return all_filled(state)

    def pick(self, state: State, memory: Paid) -> Tensor:
        return best_rows(state, -memory.entropy)


def _choice(state: State, actions: Actions) -> Tensor:
    """bool ``[B, 1]``: rows whose prompt has more than one action, all its beams counted."""
    same = (state.request[:, None] == state.request).long()
    return ((same * actions.valid.sum(-1)).sum(-1) > 1)[:, None]
