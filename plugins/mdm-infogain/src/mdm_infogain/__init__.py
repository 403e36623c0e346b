"""Info-Gain (arXiv:2602.18176) and LookUM (arXiv:2511.05563): commit what leaves the rest of the canvas most certain.

With H_i the entropy of masked position i, the state's uncertainty is the mean of H over its masks. An action a commits
k positions at a cost C(a) = sum of H over them, and gains IG(a) = uncertainty(z) - uncertainty(z'). Info-Gain commits
argmax J, J = IG - C; as uncertainty(z) is the same for all actions, J = -uncertainty(z') - C(a). LookUM drops C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm_infogain.samplers import InfoGain, LookUM

__all__ = ["InfoGain", "LookUM"]


def __getattr__(name: str) -> Any:
    """A sampler, with which torch is imported: the package's preset needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mdm_infogain import samplers

    return getattr(samplers, name)
