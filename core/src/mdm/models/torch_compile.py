"""torch.compile, where it works. The compiled function computes the same: speed changes, decisions do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from shutil import which
from typing import Any, TypeVar

import torch
from mdm.errors import MdmError

F = TypeVar("F", bound=Callable[..., Any])
MAX_SPECIALIZATIONS = 64
"""Graphs that are made of one function at most, for all models of a process together."""


def compiler() -> str:
    """The C++ compiler that torch.compile uses for a CPU."""
    return os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")


def require(device: str) -> None:
    """Refuse a type of device for which nothing can be compiled.

    Raises:
        MdmError: there is no C++ compiler, or for a GPU no Triton.
    """
    if device == "cpu" and which(compiler()) is None:
        raise MdmError(f"compile needs a C++ compiler and {compiler()} is not there: install it, or drop --compile")
    if device not in ("cpu", "cuda"):
        raise MdmError(f"compile runs on cpu and cuda, and the device is {device}: drop --compile")
    if device == "cuda" and find_spec("triton") is None:
        raise MdmError("compile needs Triton on this device: pip install triton, or drop --compile")


@contextmanager
def limits() -> Iterator[None]:
    """In the block functions may be compiled in ``MAX_SPECIALIZATIONS`` kinds, and numbers of modules are constants.

    As inputs, which torch makes of them otherwise, they have everything compiled twice.
    """
    from torch._dynamo import config

    with config.patch(recompile_limit=MAX_SPECIALIZATIONS, specialize_float=True):
        yield


@cache
def compiled(function: F, *, whole: bool = False) -> F:
    """``function`` for tensors of any shape, compiled when it is first called; ``whole`` lets no part stay out.

    torch would first compile four little programs to see what the compiler knows of this processor.
    """
    options: Any = {"cpp.vec_isa_ok": True}
    compiled: Any = torch.compile(function, dynamic=True, fullgraph=whole, options=options)
    return compiled  # type: ignore[no-any-return]
