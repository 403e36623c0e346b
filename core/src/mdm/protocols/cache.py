"""The cache that is always there: none. Also the base of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mdm.protocols.model import ModelSpec
from mdm.protocols.options import NoOptions
from pydantic import BaseModel
from torch import Tensor

if TYPE_CHECKING:
    from mdm.protocols.state import State


@dataclass(frozen=True)
class Plan:
    """What the model runs in one step; all bool ``[B, L]``.

    A row that writes nothing into the cache may skip its forward where its scores are known already.
    """

    query: Tensor
    """positions to run"""
    write: Tensor
    """those of them whose keys and values are kept for later steps"""
    window: Tensor
    """positions that an ``Evaluate`` in this step runs"""


class CacheMode(Protocol):
    """Which positions each step computes, and whose keys and values are kept.

    A mode that is right for one kind of attention only says so in a class attribute ``attention``, as in ``ModelSpec``.
    """

    Options: ClassVar[type[BaseModel]]
    uses_kv: ClassVar[bool]

    def __init__(self, options: Any) -> None: ...

    def plan(self, state: State, spec: ModelSpec) -> Plan: ...


class NoCache:
    """Every step is the plain full forward: exact by definition."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    uses_kv: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        self.options = options

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        return Plan(query=state.in_canvas, write=state.in_canvas & False, window=state.in_canvas)
