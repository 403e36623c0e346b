"""mdm: decoding for masked diffusion language models.

Names are resolved on first use, so that ``import mdm`` costs nothing and pulls no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.api import Result, decode, load_model
    from mdm.errors import MdmError

_HOME = {"load_model": "mdm.api", "decode": "mdm.api", "Result": "mdm.api", "MdmError": "mdm.errors"}

__all__ = ["MdmError", "Result", "decode", "load_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mdm' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
