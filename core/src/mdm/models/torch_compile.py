"""torch.compile, where it can work. What it makes is the same function: speed changes, decisions do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from shutil import which
from typing import Any, TypeVar

import torch
from mdm.errors import MdmError

F = TypeVar("F", bound=Callable[..., Any])
KINDS = 64
"""Graphs that are made of one function at most, for all models of a process together."""


def compiler() -> str:
    """The C++ compiler that torch.compile uses for a CPU."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def require(device: str) -> None:
    """Say so where nothing can be compiled for this type of device.

    Raises:
        MdmError: there is no C++ compiler, or for a GPU no Triton.
    """
    if device == "cpu" and which(compiler()) is None:
        raise MdmError(f"compile needs a C++ compiler and {compiler()} is not there: install it, or leave compile out")
    if device not in ("cpu", "cuda"):
        raise MdmError(f"compile runs on cpu and cuda, and the device is {device}: leave compile out")
    if device == "cuda" and find_spec("triton") is None:
        raise MdmError("compile needs Triton on this device: pip install triton, or leave compile out")


@cache
def compiled(function: F, *, whole: bool = False) -> F:
    """``function`` for tensors of any shape, compiled when it is first called; ``whole`` lets no part stay out."""
    compiled = torch.compile(function, dynamic=True, fullgraph=whole)

    @wraps(function)
    def made(*given: Any) -> Any:
        from torch._dynamo import config

        with config.patch(recompile_limit=KINDS):
            return compiled(*given)

    return made  # type: ignore[return-value]
