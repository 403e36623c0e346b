"""The cache that is always there: none. Also the base of the others."""

from __future__ import annotations

from typing import Any, ClassVar

from mdm.protocols import ModelSpec, NoOptions
from mdm.state import Plan, State
from pydantic import BaseModel


class NoCache:
    """Every step is the plain full forward: exact by definition."""

    Options: ClassVar[type[BaseModel]] = NoOptions
    uses_kv: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        self.options = options

    def plan(self, state: State, spec: ModelSpec) -> Plan:
        return Plan(query=state.real, write=state.real & False, window=state.real)
