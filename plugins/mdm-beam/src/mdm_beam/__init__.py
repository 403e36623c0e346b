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
    mixed,
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
        flat = _best(state, scores, actions, value, self.options.beam_size)
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
        same = state.request[:, None] == state.request
        return ~(same & state.masked.any(-1)).any(-1)

    def pick(self, state: State, memory: Paid) -> Tensor:
        order = _by_request(memory.entropy, state.request)
        return order[_rank(state.request[order]) == 0]


def _choice(state: State, actions: Actions) -> Tensor:
    """bool ``[B, 1]``: rows whose prompt has more than one action, all its beams counted."""
    same = (state.request[:, None] == state.request).long()
    return ((same * actions.valid.sum(-1)).sum(-1) > 1)[:, None]


def _best(state: State, scores: Scores, actions: Actions, value: Tensor, size: int) -> Tensor:
    """Indices ``[B']`` of the actions ``[B * N]``: the ``size`` best of each prompt that lead to different canvases."""
    request = state.request[:, None].expand_as(value).flatten()
    valid = actions.valid.flatten()
    order = _by_request(-value.flatten().masked_fill(~valid, -torch.inf), request)
    request, valid = request[order], valid[order]
    canvas = _canvases(state, scores, actions).flatten()[order]
    earlier = torch.ones(len(order), len(order), dtype=torch.bool, device=order.device).tril(-1)
    repeats = (canvas[:, None] == canvas) & (request[:, None] == request) & valid & earlier
    chosen = valid & ~repeats.any(-1)
    order, request = order[chosen], request[chosen]
    return order[_rank(request) < size]


def _canvases(state: State, scores: Scores, actions: Actions) -> Tensor:
    """A hash of the canvas each action leads to, int64 ``[B, N]``: a sum over positions of what stands there."""
    here = mixed(state.positions, state.tokens).where(state.in_canvas, 0)
    change = mixed(scores.positions[:, None], actions.tokens) - here.gather(1, scores.positions)[:, None]
    return here.sum(-1, keepdim=True) + change.where(actions.where, 0).sum(-1)


def _by_request(key: Tensor, request: Tensor) -> Tensor:
    """Indices that sort by request and, within one, by ``key``, smallest first; ties keep their order."""
    order = key.sort(stable=True).indices
    return order[request[order].sort(stable=True).indices]


def _rank(request: Tensor) -> Tensor:
    """The place of each entry among those of its request, in a list sorted by request."""
    return torch.arange(len(request), device=request.device) - torch.searchsorted(request, request)
