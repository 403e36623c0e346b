"""mdm: decoding for masked diffusion language models.

Names are resolved on first use, so that ``import mdm`` costs nothing and pulls no torch.
"""

from typing import TYPE_CHECKING

from mdm.lazy import lazy

if TYPE_CHECKING:
    from mdm.api import Result, decode, load_model
    from mdm.errors import MdmError

__all__ = ["MdmError", "Result", "decode", "load_model"]

__getattr__, __dir__ = lazy(__name__, {"api": ("load_model", "decode", "Result"), "errors": ("MdmError",)})
