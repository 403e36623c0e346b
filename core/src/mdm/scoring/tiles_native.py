"""The pass over a vocabulary in C++ for a CPU, built by the compiler that torch.compile uses when it is first wanted.

Twin of the sums in ``mdm.scoring.tiles``, which say what the numbers are. A tile is read once, while it lies in the
first-level cache; operations of torch go over it six times.
"""

from __future__ import annotations

import ctypes
import subprocess
import warnings
from collections.abc import Callable
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mdm.models.torch_compile import compiler
from torch import Tensor

FLAGS: tuple[list[str], ...] = (["-march=native", "-fopenmp"], ["-march=native"], ["-fopenmp"], [])
"""What is asked of the compiler beside -O3, the first that it takes: not all know this processor, or OpenMP."""


def sums(x: Tensor, need_second_token: bool) -> tuple[Tensor, ...]:
    """The first four fields of ``Tiles``, ``[M, 2]`` twice and ``[M]`` twice, for float32 tiles ``[M, C]``.

    Tokens are counted within their tile. ``need_second_token``: see ``mdm.scoring.tile_pass.summed``.
    """
    function = built()
    assert function is not None
    if x.stride(1) != 1:
        x = x.contiguous()
    count, width = x.shape
    top, best = torch.empty(count, 2), torch.empty(count, 2, dtype=torch.long)
    tail_sum, tail_energy = torch.empty(count), torch.empty(count)
    out = (t.data_ptr() for t in (top, best, tail_sum, tail_energy))
    function(x.data_ptr(), count, width, x.stride(0), torch.get_num_threads(), need_second_token, *out)
    return top, best, tail_sum, tail_energy


@cache
def built() -> Callable[..., None] | None:
    """The function of ``tiles_native.cpp``, or None (and a warning) where the compiler does not take it.

    Its file is gone when it is loaded: nothing is left behind, or found by others.
    """
    first_error = ""
    with as_file(files("mdm.scoring") / "tiles_native.cpp") as source, TemporaryDirectory() as folder:
        library = Path(folder) / "tiles_native.so"
        for flags in FLAGS:
            command = [compiler(), "-O3", *flags, "-shared", "-fPIC", "-o", str(library), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                function = ctypes.CDLL(str(library)).sums
                break
            first_error = first_error or next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
        else:
            warnings.warn(f"{compiler()} cannot build the pass over the vocabulary ({first_error})", stacklevel=2)
            return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [pointer, number, number, number, ctypes.c_int, ctypes.c_int, *[pointer] * 4]
    function.restype = None
    return function
