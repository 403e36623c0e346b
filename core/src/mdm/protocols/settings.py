"""Decoding options: the one place where each is defined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from mdm.errors import MdmError

Size = int | Literal["auto"] | None
"""A number of rows, the number that fits, or no limit."""

Schedule = Literal["even", "linear", "cosine", "dream"]

SCHEDULES: tuple[str, ...] = get_args(Schedule)


def refuse_policy(name: str, asked: Mapping[str, Any]) -> None:
    """Refuse what only a diffusion model has.

    Raises:
        MdmError: one of ``asked`` is set; the message names it.
    """
    for key, value in asked.items():
        if value:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            raise MdmError(
                f"{key.replace('_', ' ')} {shown} does not apply to {name}, which is autoregressive: "
                "it writes one token after another, without masks, sampler or cache mode"
            )
