"""mdm: decoding for masked diffusion language models.

Names are resolved on first use, so that ``import mdm`` costs nothing and pulls no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.api import Result, Step, decode, load_model, open_session, read, steps
    from mdm.errors import MdmError

    __version__: str

__all__ = ["MdmError", "Result", "Step", "__version__", "decode", "load_model", "open_session", "read", "steps"]

_NAMES = {
    "api": ("load_model", "decode", "steps", "open_session", "read", "Result", "Step"), "errors": ("MdmError",)
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("mdm-core")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
