"""Several canvases of one prompt, for samplers that keep more than one: which go on, and which answers."""

from __future__ import annotations

import torch
from mdm.protocols.draws import mixed
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from torch import Tensor


def best_successors(
    state: State, scores: Scores, where: Tensor, tokens: Tensor, valid: Tensor, value: Tensor, size: int | Tensor
) -> Tensor:
    """The commits that each prompt goes on with: its best ones that lead to different canvases.

    Args:
        where: bool ``[B, N, K]``, the N commits of each row over ``scores.positions``; so are their ``tokens``.
        valid: bool ``[B, N]``: those that are commits of the row.
        value: float32 ``[B, N]``, large being good. Of equal ones the first goes before the others.
        size: how many canvases a prompt keeps; or int64 ``[B]``, the same of all rows of a prompt.

    Returns:
        Indices ``[B']`` into ``B * N``, those of one prompt together, best first.
    """
    request = state.request[:, None].expand_as(value).flatten()
    flat = valid.flatten()
    order = _by_request(value.flatten().masked_fill(~flat, -torch.inf), request)
    request, flat = request[order], flat[order]
    canvas = _canvases(state, scores, where, tokens).flatten()[order]
    earlier = torch.ones(len(order), len(order), dtype=torch.bool, device=order.device).tril(-1)
    repeats = (canvas[:, None] == canvas) & (request[:, None] == request) & flat & earlier
    chosen = flat & ~repeats.any(-1)
    order, request = order[chosen], request[chosen]
    most = size if isinstance(size, int) else size[order // value.shape[1]]
    return order[_places(request) < most]


def best_rows(state: State, value: Tensor) -> Tensor:
    """int64 ``[P]``: of each prompt's rows the one with the largest ``value`` ``[B]``, the first of equal ones."""
    order = _by_request(value, state.request)
    return order[_places(state.request[order]) == 0]


def all_filled(state: State) -> Tensor:
    """bool ``[B]``: the rows of prompts none of whose rows has a mask left."""
    same = state.request[:, None] == state.request
    return ~(same & state.masked.any(-1)).any(-1)


def _canvases(state: State, scores: Scores, where: Tensor, tokens: Tensor) -> Tensor:
    """A hash of the canvas each commit leads to, int64 ``[B, N]``: a sum over positions of what stands there."""
    here = mixed(state.positions, state.tokens).where(state.in_canvas, 0)
    change = mixed(scores.positions[:, None], tokens) - here.gather(1, scores.positions)[:, None]
    return here.sum(-1, keepdim=True) + change.where(where, 0).sum(-1)


def _by_request(value: Tensor, request: Tensor) -> Tensor:
    """Indices that sort by request and, within one, by ``value``, largest first; ties keep their order."""
    order = value.sort(descending=True, stable=True).indices
    return order[request[order].sort(stable=True).indices]


def _places(request: Tensor) -> Tensor:
    """The place of each entry among those of its request, in a list sorted by request."""
    return torch.arange(len(request), device=request.device) - torch.searchsorted(request, request)
