"""Copies of frozen records, a dozen of which are made in every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Self, TypeVar

import torch
from mdm.protocols.upload import upload
from torch import Tensor


def repeat_rows(values: Tensor, times: int) -> Tensor:
    """``[B * times, ...]``: each row of ``values`` ``[B, ...]`` ``times`` times, one after the other.

    Not to be written into: a single row is not copied.
    """
    if values.shape[0] == 1:
        return values.expand(times, *values.shape[1:])
    return values[:, None].expand(-1, times, *values.shape[1:]).flatten(0, 1)


def select_candidate(values: Tensor, choice: Tensor) -> Tensor:
    """``[B, ...]`` of ``values`` ``[B, N, ...]``: entry ``choice`` ``[B]`` of each row."""
    rows, count = values.shape[:2]
    if rows == 1:
        return values[0].index_select(0, choice)
    line = torch.arange(0, rows * count, count, device=choice.device) + choice
    return values.flatten(0, 1).index_select(0, line)


@dataclass(frozen=True)
class Rowwise:
    """Base of a sampler's memory: a frozen dataclass whose tensor fields have a leading row axis."""

    def rows(self, index: Tensor) -> Self:
        return replace(self, **map_tensors(self, lambda v: v[index]))

    def to(self, device: torch.device) -> Self:
        return replace(self, **map_tensors(self, lambda v: upload(v, device)))

    def join(self, other: Self) -> Self:
        """The rows of both; along their other axes tensors are padded with zeros to one shape."""
        values: dict[str, Any] = {}
        for name, first in map_tensors(self, lambda v: v).items():
            second = getattr(other, name)
            shape = [max(pair) for pair in zip(first.shape[1:], second.shape[1:], strict=True)]
            joined = values[name] = first.new_zeros(len(first) + len(second), *shape)
            for part, rows in ((first, slice(0, len(first))), (second, slice(len(first), None))):
                joined[rows, *map(slice, part.shape[1:])] = part
        return replace(self, **values)


T = TypeVar("T")


def fast_replace(record: T, **values: Any) -> T:
    """``record`` with these fields, as ``dataclasses.replace`` makes it, at a fifth of the time.

    For records that check nothing when they are made. What was cached on the old one is not taken over.
    """
    kind: Any = type(record)
    twin: T = object.__new__(kind)
    old, names = record.__dict__, _names(kind)
    twin.__dict__.update(old if len(old) == len(names) else {name: old[name] for name in names})
    twin.__dict__.update(values)
    return twin


def map_tensors(record: Any, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The fields of a record that are tensors, each as ``change`` makes it."""
    kind: Any = type(record)
    old = record.__dict__
    return {name: change(v) for name in _names(kind) if isinstance(v := old[name], Tensor)}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
