"""q, k and v as one product, and gate and up as another: few wide products fill a GPU that many narrow ones do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from mdm.models.placement import is_hooked
from torch import Tensor, nn

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections of transformers' layers that are given the same states, in the order in which they are called."""


def join(body: nn.Module) -> None:
    """Make one product of each group whose projections are plain linear layers side by side on one device."""
    for module in list(body.modules()):
        for names in GROUPS:
            linears = [linear for name in names if _is_plain(linear := getattr(module, name, None))]
            if len(linears) == len(names) and len(set(map(_kind, linears))) == 1:
                joined = _Joined(linears)
                for index, name in enumerate(names):
                    setattr(module, name, _Part(joined, index))


def alone(linear: nn.Module, states: Tensor) -> Tensor:
    """What a projection gives of states that the others of its group are not given."""
    own: Tensor = linear.own(states) if isinstance(linear, _Part) else linear(states)
    return own


def _is_plain(linear: Any) -> TypeGuard[nn.Linear]:
    return type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and not is_hooked(linear)


def _kind(linear: nn.Linear) -> tuple[object, ...]:
    return linear.in_features, linear.weight.dtype, linear.weight.device, linear.bias is None


class _Joined(nn.Module):
    """The product; its parts are asked for one after the other, and the last of them lets it go."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [linear.out_features for linear in linears]
        self.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
        self.bias = None
        if linears[0].bias is not None:
            self.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None

    def part(self, states: Tensor, index: int) -> Tensor:
        last = self._last
        if last is None or last[0] is not states:  # the first part, or another thread has been here
            last = states, torch.split(nn.functional.linear(states, self.weight, self.bias), self.sizes, -1)
        self._last = None if index == len(self.sizes) - 1 else last
        return last[1][index]


class _Part(nn.Module):
    """Stands where one of the projections stood."""

    def __init__(self, joined: _Joined, index: int) -> None:
        super().__init__()
        self.joined, self.index = joined, index

    @property
    def weight(self) -> Tensor:
        """The projection's own rows of the joined weight."""
        return torch.split(self.joined.weight, self.joined.sizes)[self.index]

    def own(self, states: Tensor) -> Tensor:
        """The product of this projection by itself."""
        whole = self.joined.bias
        bias = None if whole is None else torch.split(whole, self.joined.sizes)[self.index]
        return nn.functional.linear(states, self.weight, bias)

    def forward(self, states: Tensor) -> Tensor:
        return self.joined.part(states, self.index)
